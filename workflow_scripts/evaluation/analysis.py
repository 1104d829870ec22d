"""What an evaluation says beyond shares: their doubt, other protocols, comparisons, and whether pictures are used."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

import numpy as np

from workflow_scripts.datasets.terminology import Terminology
from workflow_scripts.evaluation import protocols
from workflow_scripts.evaluation.predictions import Breakdown, Prediction
from workflow_scripts.evaluation.protocols import ScoringProtocol, strict
from workflow_scripts.evaluation.statistics import breakdown, comparisons, confusion, pictures, power
from workflow_scripts.evaluation.statistics.breakdown import Group
from workflow_scripts.evaluation.statistics.clusters import Floats, Labels, clusters
from workflow_scripts.evaluation.statistics.comparisons import Comparison
from workflow_scripts.evaluation.statistics.confusion import ClosedAnswers
from workflow_scripts.evaluation.statistics.intervals import Estimate, estimate
from workflow_scripts.evaluation.statistics.pictures import Consistency, LeakScores
from workflow_scripts.evaluation.statistics.power import Resolution
from workflow_scripts.evaluation.verdicts import Verdict

FLOOR = "floor"
WITHOUT = (FLOOR, "blank_image", "shuffled_image")  # lines that do not see a question's own picture

Lines = Mapping[
    str, Sequence[Prediction]
]  # the predictions of each line of an evaluation, all of the same questions


Verdicts = Mapping[str, Mapping[str, Sequence[Verdict]]]  # on the rows of each line, by protocol


class ProtocolScores(Breakdown):
    """A protocol's numbers, and its headline with its interval."""

    headline: Estimate


class PictureUse(TypedDict):
    """Whether the final model looks: its gain over each line without the picture, consistency, and leaked pictures.

    `gains` are by line. `leaks` is None where validation did not look for leaked images.
    """

    gains: dict[str, Comparison]
    consistency: Consistency
    leaks: LeakScores | None


class Analysis(TypedDict):
    """By line, then by grouping and group or by protocol; comparisons are named "{second} over {first}".

    `confusion` is that of the final model, by test set.
    """

    groups: dict[str, dict[str, dict[str, Group]]]
    protocols: dict[str, dict[str, ProtocolScores]]
    comparisons: dict[str, Comparison]
    picture: PictureUse
    confusion: dict[str, ClosedAnswers]
    resolution: Resolution


def verdicts(
    lines: Lines, scoring: Sequence[ScoringProtocol], terms: Terminology
) -> dict[str, dict[str, list[Verdict]]]:
    """What each protocol of `scoring` says of each row, by line and protocol."""
    return {
        line: {protocol.NAME: protocol.verdicts(rows, terms) for protocol in scoring}
        for line, rows in lines.items()
    }


def analyse(
    lines: Lines,
    final_stage: str,
    leaked: Collection[str] | None,
    scoring: Sequence[ScoringProtocol],
    said: Verdicts,
    seed: int = 0,
) -> Analysis:
    """Everything from the predictions of the lines and what the protocols of `scoring` have `said` of them."""
    rows = lines[final_stage]
    for name, other in lines.items():
        if [(row["source"], row["id"]) for row in other] != [(row["source"], row["id"]) for row in rows]:
            raise ValueError(f"{name} and {final_stage} are not of the same questions")
    labels = clusters(rows)
    scores = {name: _values(found[protocols.DEFAULT.NAME]) for name, found in said.items()}
    stages = [name for name in lines if name not in WITHOUT]
    pairs = [(first, second) for place, second in enumerate(stages) for first in stages[:place]]
    final = scores[final_stage]
    return {
        "groups": {
            name: breakdown.by_group(found, scores[name], labels, seed) for name, found in lines.items()
        },
        "protocols": {
            name: {
                protocol.NAME: _scored(protocol, found, said[name][protocol.NAME], labels, seed)
                for protocol in scoring
            }
            for name, found in lines.items()
        },
        "comparisons": comparisons.corrected(
            {
                f"{second} over {first}": comparisons.compare(scores[first], scores[second], labels, seed)
                for first, second in pairs
            }
        ),
        "picture": {
            "gains": pictures.use_of_picture(
                final, {name: scores[name] for name in WITHOUT if name in scores}, labels, seed
            ),
            "consistency": pictures.consistency(rows, labels, strict.same_answer, seed),
            "leaks": None if leaked is None else pictures.scores_by_leak(rows, final, labels, leaked, seed),
        },
        "confusion": confusion.by_set(rows),
        "resolution": power.resolution(final, labels, scores[_other_stage(lines, final_stage)]),
    }


def _other_stage(lines: Lines, final_stage: str) -> str:
    """A model much like the final one: the last stage beside it; the floor where there is none."""
    stages = [name for name in lines if name not in WITHOUT and name != final_stage]
    return stages[-1] if stages else FLOOR


def strict_scores(rows: Sequence[Prediction], terms: Terminology | None = None) -> Floats:
    """1 or 0 for each row by the default protocol, which scores every row."""
    return _values(protocols.DEFAULT.verdicts(rows, terms))


def _values(found: Sequence[Verdict]) -> Floats:
    return np.array([verdict.score for verdict in found], float)


def _scored(
    protocol: ScoringProtocol,
    rows: Sequence[Prediction],
    verdicts: Sequence[Verdict],
    labels: Labels,
    seed: int,
) -> ProtocolScores:
    return {
        **protocols.breakdown_of(rows, verdicts, protocol.NUMBERS),
        "headline": headline(verdicts, labels, seed),
    }


def headline(verdicts: Sequence[Verdict], labels: Labels, seed: int = 0) -> Estimate:
    """The mean score with its interval, over the rows [n] that have one."""
    scored = {place: verdict.score for place, verdict in enumerate(verdicts) if verdict.score is not None}
    return estimate(list(scored.values()), labels[list(scored)], seed)
