"""Scores and what else is counted of answers, by every group of questions that their rows tell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import ReadOnly

from workflow_scripts.datasets.polarity import is_yes_or_no
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.statistics.clusters import Floats, Labels, Pictured
from workflow_scripts.evaluation.statistics.intervals import Estimate, estimate

NOT_STATED = "not stated"
OVERALL = "all"
REPEATS = 4  # times that a text ends in the same words to count as repetition
TAIL = 400  # characters of a text's end that are looked at for that


class DescribedRow(Pictured):
    """A question and its answer, as broken down; `repeated` is the generator's own word, where it gave one.

    `tokens` and `seconds` are those that generating the answer took.
    """

    gold: str
    answer: str | None
    text: str
    truncated: bool
    language: str
    answer_type: str
    question_type: str
    organ: str
    modality: str
    repeated: NotRequired[ReadOnly[bool]]
    tokens: NotRequired[ReadOnly[int]]
    seconds: NotRequired[ReadOnly[float]]


class Lengths(TypedDict):
    """Tokens (`datasets.tokens`) of the answers that could be read."""

    mean: float
    median: float
    longest: int


class Group(TypedDict):
    """One group of questions: its score, and of its answers shares of 0..1, lengths, and cost a question.

    `empty` is an answer, or a text without one, that has no word. None where no row tells.
    """

    score: Estimate
    unreadable: float
    truncated: float
    empty: float
    repeated: float
    answer_tokens: Lengths | None
    tokens: float | None
    seconds: float | None


# What rows are grouped by; each grouping has every row in one group.
GROUPINGS: Mapping[str, Callable[[DescribedRow], str]] = {
    "overall": lambda row: OVERALL,
    "set": lambda row: row["source"],
    "language": lambda row: row["language"],
    "answer_type": lambda row: row["answer_type"],  # closed or open as the set says
    "yes_no": lambda row: "yes/no" if is_yes_or_no(row["gold"]) else "other",  # closed by its answer
    "question_type": lambda row: row["question_type"],
    "organ": lambda row: row["organ"],
    "modality": lambda row: row["modality"],
}


def groups(rows: Sequence[DescribedRow]) -> dict[str, dict[str, Labels]]:
    """The places [of a group's rows] in `rows` by grouping and group, groups by name."""
    found = {}
    for name, of in GROUPINGS.items():
        labels = np.array([of(row) or NOT_STATED for row in rows], dtype=object)
        found[name] = {label: np.flatnonzero(labels == label) for label in sorted(set(labels))}
    return found


def by_group(
    rows: Sequence[DescribedRow], scores: ArrayLike, clusters: NDArray[Any], seed: int = 0
) -> dict[str, dict[str, Group]]:
    """`scores` [n] of `rows` [n] and what else their answers show, by grouping and group."""
    scores = np.asarray(scores, float)
    columns = _columns(rows)
    return {
        name: {
            label: _group(scores[places], clusters[places], _at(columns, places), seed)
            for label, places in parts.items()
        }
        for name, parts in groups(rows).items()
    }


def _columns(rows: Sequence[DescribedRow]) -> dict[str, Floats]:
    """What is counted of each row; NaN where it does not tell."""
    return {
        "unreadable": _column(row["answer"] is None for row in rows),
        "truncated": _column(row["truncated"] for row in rows),
        "empty": _column(is_empty(row) for row in rows),
        "repeated": _column(row.get("repeated", ends_in_repetition(row["text"])) for row in rows),
        "answer_tokens": _column(
            np.nan if row["answer"] is None else len(tokens(row["answer"])) for row in rows
        ),
        "tokens": _column(row.get("tokens", np.nan) for row in rows),
        "seconds": _column(row.get("seconds", np.nan) for row in rows),
    }


def _column(values: Any) -> Floats:
    return np.fromiter(values, float)


def _at(columns: Mapping[str, Floats], places: Labels) -> dict[str, Floats]:
    return {name: column[places] for name, column in columns.items()}


def _group(scores: Floats, clusters: NDArray[Any], columns: Mapping[str, Floats], seed: int) -> Group:
    lengths = _told(columns["answer_tokens"])
    return {
        "score": estimate(scores, clusters, seed),
        "unreadable": float(columns["unreadable"].mean()),
        "truncated": float(columns["truncated"].mean()),
        "empty": float(columns["empty"].mean()),
        "repeated": float(columns["repeated"].mean()),
        "answer_tokens": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "longest": int(lengths.max()),
        }
        if len(lengths)
        else None,
        "tokens": _mean(columns["tokens"]),
        "seconds": _mean(columns["seconds"]),
    }


def _told(column: Floats) -> Floats:
    return column[~np.isnan(column)]


def _mean(column: Floats) -> float | None:
    told = _told(column)
    return float(told.mean()) if len(told) else None


def is_empty(row: DescribedRow) -> bool:
    """Whether the answer, or a text without one, has no word."""
    return not tokens(row["text"] if row["answer"] is None else row["answer"])


def ends_in_repetition(text: str) -> bool:
    """Whether a text ends in the same two or more characters, `REPEATS` times over."""
    tail = " " + text.strip()[-TAIL:]  # the first of "la la la la" has no space before it
    return any(tail.endswith(tail[-size:] * REPEATS) for size in range(2, len(tail) // REPEATS + 1))
