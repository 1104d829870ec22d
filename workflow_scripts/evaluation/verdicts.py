"""What a protocol says of one answer, and the numbers over many verdicts."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from workflow_scripts.evaluation.predictions import Metrics, ScoredRow

# Why a row has no score: the protocol does not look at such rows; its original would raise; a judge said neither.
Note = Literal["", "excluded", "raised", "unscored"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The score of an answer, 0..1, and why; None only with a note.

    `scores` are what the row adds to the protocol's own numbers, each 0..1; a number is the mean over the rows that
    have it.
    """

    score: float | None
    why: str
    scores: Mapping[str, float] = field(default_factory=dict)
    note: Note = ""


def excluded(why: str) -> Verdict:
    """The verdict on a row that is not in the denominator."""
    return Verdict(None, why, note="excluded")


def raised(why: str) -> Verdict:
    """The verdict on a row at which the protocol's original would raise."""
    return Verdict(None, why, note="raised")


def given(row: ScoredRow) -> str:
    """What a protocol that knows no form of answers is given: the answer that was read, else all that was written.

    The projects of these protocols have models that write an answer and nothing else.
    """
    return row["text"] if row["answer"] is None else row["answer"]


def summary(verdicts: Sequence[Verdict], numbers: Collection[str]) -> Metrics:
    """`n` and `accuracy` over the rows that have a score, how many have none, and the means of `numbers`."""
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    notes = Counter(verdict.note for verdict in verdicts if verdict.note)
    own = {
        name: _mean([verdict.scores[name] for verdict in verdicts if name in verdict.scores])
        for name in numbers
    }
    return cast(Metrics, {"n": len(scores), **notes, "accuracy": _mean(scores), **own})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
