"""What a model scores without looking: the answer that the training set gives most often to a question."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import TypedDict

from workflow_scripts.datasets.tokens import tokens


class FloorRow(TypedDict):
    """What the floor looks at of a record."""

    question: str
    answer: str
    answer_type: str
    language: str
    source: str


def question_only(train_rows: Iterable[FloorRow], test_rows: Iterable[FloorRow]) -> list[str]:
    """One answer for each test row: the most frequent train answer to the same question.

    For an unseen question: to questions with the same first two words, else of the same answer type, else
    of the source and language, else of the language, else of all. Only within one source and language as
    long as train has any such row. Answers that differ in case or punctuation count as one, in the spelling
    seen first; so do ties. "" where train is empty.
    """
    counts: dict[Hashable, Counter[tuple[str, ...]]] = defaultdict(Counter)
    spelling: dict[tuple[str, ...], str] = {}
    for row in train_rows:
        answer = tuple(tokens(row["answer"]))
        spelling.setdefault(answer, row["answer"])
        for key in _keys(row):
            counts[key][answer] += 1
    best = {key: spelling[counter.most_common(1)[0][0]] for key, counter in counts.items()}
    return [next((best[key] for key in _keys(row) if key in best), "") for row in test_rows]


def _keys(row: FloorRow) -> list[Hashable]:
    """What to look a row up by, the most telling first; Chinese has no spaces: its two words are the question."""
    scope = (row["source"], row["language"])
    return [
        (scope, "question", tuple(tokens(row["question"]))),
        (scope, "two words", tuple(row["question"].casefold().split()[:2])),
        (scope, "type", row["answer_type"]),
        scope,
        row["language"],
        None,
    ]
