"""What was answered to closed questions, against what is true: as the strict protocol reads both."""

from collections.abc import Callable, Mapping, Sequence
from typing import NotRequired, TypedDict

from workflow_scripts.datasets.polarity import bare
from workflow_scripts.datasets.tokens import tokens
from workflow_scripts.evaluation.predictions import ScoredRow
from workflow_scripts.evaluation.protocols import strict

OTHER, UNREADABLE = "other", "unreadable"
MOST_CHOICES = 8  # different gold answers beyond yes and no of which a table can still be read


class Confusion(TypedDict):
    """`counts` [truths][answers] of `n` questions; the answers are the truths, then OTHER and UNREADABLE."""

    n: int
    truths: list[str]
    answers: list[str]
    counts: list[list[int]]


class ClosedAnswers(TypedDict):
    """Of the `closed` questions of a test set those of yes and no, and the others where few answers are right."""

    closed: int
    yes_no: NotRequired[Confusion]
    choices: NotRequired[Confusion]


def by_set(rows: Sequence[ScoredRow]) -> dict[str, ClosedAnswers]:
    """The answers to the closed questions among `rows`, by test set; a set without any is left out."""
    closed = [row for row in rows if row["answer_type"] == "closed"]
    sets = sorted({row["source"] for row in closed})
    return {name: _of_set([row for row in closed if row["source"] == name]) for name in sets}


def _of_set(rows: Sequence[ScoredRow]) -> ClosedAnswers:
    found: ClosedAnswers = {"closed": len(rows)}
    polar = [row for row in rows if bare(row["gold"])]
    others = [row for row in rows if not bare(row["gold"])]
    if polar:
        said = [(bare(row["gold"]), row["answer"]) for row in polar]
        found["yes_no"] = _counted({"yes": "yes", "no": "no"}, said, strict.polarity)
    choices: dict[str, str] = {}
    for row in others:
        choices.setdefault(_normal(row["gold"]), row["gold"])
    if 0 < len(choices) <= MOST_CHOICES:
        said = [(_normal(row["gold"]), row["answer"]) for row in others]
        found["choices"] = _counted(dict(sorted(choices.items())), said, _normal)
    return found


def _normal(text: str) -> str:
    return " ".join(tokens(text))


def _counted(
    labels: Mapping[str, str],
    said: Sequence[tuple[str | None, str | None]],
    read: Callable[[str], str | None],
) -> Confusion:
    """`said` are (the truth, the answer), truths being keys of `labels`, and so what `read` makes of an answer that is one."""
    truths = list(labels)
    counts = [[0] * (len(truths) + 2) for _ in truths]
    for truth, answer in said:
        if answer is None:
            place = len(truths) + 1
        else:
            found = read(answer)
            place = truths.index(found) if found in truths and found else len(truths)
        counts[truths.index(truth or "")][place] += 1
    shown = list(labels.values())
    return {"n": len(said), "truths": shown, "answers": [*shown, OTHER, UNREADABLE], "counts": counts}
