"""What is kept of an answer, and the numbers over many: the rows that protocols score and what they return."""

from typing import TypedDict


class ScoredRow(TypedDict):
    """What scoring needs of a prediction; `answer` is None when unreadable, `answer_type` open or closed."""

    gold: str
    answer: str | None
    answer_type: str
    truncated: bool
    source: str
    language: str


class Prediction(ScoredRow):
    """What a model answered at a stage to a question; `image` is relative to where the row is kept, or ""."""

    id: str
    image_id: str
    question: str
    stage: str
    text: str
    image: str


class Metrics(TypedDict):
    """The protocol's numbers: shares of 0..1, None where a group is empty."""

    n: int
    accuracy: float | None
    accuracy_terms: float | None
    closed_accuracy: float | None
    open_exact_match: float | None
    open_token_f1: float | None
    open_token_recall: float | None
    unreadable: float | None
    truncated: float | None


class Breakdown(TypedDict):
    """The numbers over all rows, by source and by language."""

    overall: Metrics
    test_sets: dict[str, Metrics]
    languages: dict[str, Metrics]
