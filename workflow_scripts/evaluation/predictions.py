"""What is kept of an answer, and the numbers over many: the rows that protocols score and what they return."""

from typing import NotRequired, TypedDict


class ScoredRow(TypedDict):
    """What scoring needs of a prediction; `answer` is what was read of `text`, None when unreadable, `answer_type` open
    or closed.
    """

    gold: str
    text: str
    answer: str | None
    answer_type: str
    truncated: bool
    source: str
    image_id: str
    language: str


class Prediction(ScoredRow):
    """What a model answered at a stage to a question; `image` is relative to where the row is kept, or ""."""

    id: str
    question: str
    stage: str
    image: str


class Metrics(TypedDict):
    """A protocol's numbers: shares of 0..1, None where a group is empty. What is not required, `strict` has."""

    n: int
    accuracy: float | None
    accuracy_terms: NotRequired[float | None]
    closed_accuracy: NotRequired[float | None]
    open_exact_match: NotRequired[float | None]
    open_token_f1: NotRequired[float | None]
    open_token_recall: NotRequired[float | None]
    unreadable: NotRequired[float | None]
    truncated: NotRequired[float | None]


class Breakdown(TypedDict):
    """The numbers over all rows, by source and by language."""

    overall: Metrics
    test_sets: dict[str, Metrics]
    languages: dict[str, Metrics]
