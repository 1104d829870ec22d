"""Whether a model looks: paired differences from its answers without the picture, consistency, and leaked pictures."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.records import image_key
from workflow_scripts.evaluation.statistics.clusters import Labels, Pictured
from workflow_scripts.evaluation.statistics.comparisons import Comparison, compare, corrected
from workflow_scripts.evaluation.statistics.intervals import Estimate, estimate


def use_of_picture(
    scores: ArrayLike, without: Mapping[str, ArrayLike], clusters: NDArray[Any], seed: int = 0
) -> dict[str, Comparison]:
    """What the pictures are worth to a model with `scores` [n]: its gain over each of `without`.

    Those are scores [n] on the same rows, by name: with blank or shuffled pictures, or the question-only floor. As a
    table of several comparisons: with Holm's p values.
    """
    return corrected({name: compare(other, scores, clusters, seed) for name, other in without.items()})


class Answered(Pictured):
    """A question with its gold answer and the answer that was read, None for none."""

    gold: str
    answer: str | None


class Consistency(TypedDict):
    """How often rephrasings of a question get the same answer.

    `pairs`: the share of pairs of them, with its interval; `groups`: the share of questions all of whose rephrasings
    agree. `other_golds` counts linked pairs that are left out because their gold answers differ, as those of a
    question and its inversion do.
    """

    pairs: Estimate
    groups: Estimate
    other_golds: int


def consistency(
    rows: Sequence[Answered], clusters: Labels, same: Callable[[str, str], bool], seed: int = 0
) -> Consistency:
    """How consistent the answers of `rows` [n] are, where rows of one picture share a `linked_id`.

    `same` says whether two answers say the same. An unreadable answer is the same as none.
    """
    linked: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.get("linked_id"):
            linked[row["source"], row["image_id"], row["linked_id"]].append(place)
    agreeing: list[bool] = []
    pair_clusters: list[int] = []
    whole: list[bool] = []
    group_clusters: list[int] = []
    other_golds = 0
    for places in linked.values():
        verdicts = []
        for one, other in combinations(places, 2):
            if same(rows[one]["gold"], rows[other]["gold"]):
                verdicts.append(_agree(rows[one]["answer"], rows[other]["answer"], same))
            else:
                other_golds += 1
        if verdicts:
            agreeing += verdicts
            pair_clusters += [int(clusters[places[0]])] * len(verdicts)
            whole.append(all(verdicts))
            group_clusters.append(int(clusters[places[0]]))
    return {
        "pairs": estimate(agreeing, np.array(pair_clusters, int), seed),
        "groups": estimate(whole, np.array(group_clusters, int), seed),
        "other_golds": other_golds,
    }


def _agree(one: str | None, other: str | None, same: Callable[[str, str], bool]) -> bool:
    return one is not None and other is not None and same(one, other)


class LeakScores(TypedDict):
    """A mean over all rows, over those whose picture training had or all but had, and over the others."""

    all: Estimate
    leaked: Estimate
    free: Estimate


def leaked_images(validation: Mapping[str, Any]) -> set[str]:
    """The test images that are in train or validation or look like one there, as `image_key` has them.

    `validation` is a run's validation.json. Where it says that images were not decoded, only copies of a file are known.
    """
    try:
        found = validation["leaked_images"]
    except KeyError:
        raise UserError(
            f"{validation.get('run', 'the validation')}: validated before leaked images were listed; "
            "run workflow_scripts.validate again"
        ) from None
    return {*found["exact"], *(found["near_duplicates"] or ())}


def scores_by_leak(
    rows: Sequence[Pictured],
    scores: ArrayLike,
    clusters: NDArray[Any],
    leaked: Collection[str],
    seed: int = 0,
) -> LeakScores:
    """`scores` [n] of `rows` [n] over all of them, and with and without those of `leaked` images."""
    scores = np.asarray(scores, float)
    seen = np.array([image_key(row["source"], row["image_id"]) in leaked for row in rows], bool)
    return {
        "all": estimate(scores, clusters, seed),
        "leaked": estimate(scores[seen], clusters[seen], seed),
        "free": estimate(scores[~seen], clusters[~seen], seed),
    }
