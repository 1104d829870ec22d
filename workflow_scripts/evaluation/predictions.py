"""What is kept of an answer, and the numbers over many: the rows that protocols score and what they return."""

from typing import NotRequired, TypedDict


class ScoredRow(TypedDict):
    """What scoring needs of a prediction.

    `text` is what the model wrote, thought included; `answer` what was read from it, None when unreadable.
    `answer_type` is open or closed.
    """

    question: str
    gold: str
    text: str
    answer: str | None
    answer_type: str
    truncated: bool
    source: str
    language: str
    image_id: str


class Prediction(ScoredRow):
    """What a model answered at a stage to a question, as a line of an evaluation has it.

    `image` is relative to where the row is kept, or "". `tokens` were written, in `seconds`; `repeated` and `forced`
    are the generator's word.
    """

    id: str
    stage: str
    image: str
    linked_id: str
    question_type: str
    organ: str
    modality: str
    forced: bool
    repeated: bool
    tokens: int
    seconds: float


class Metrics(TypedDict):
    """A protocol's numbers: shares of 0..1, None where a group is empty.

    `n` is what `accuracy` is a share of; the rows beside it are counted by why they have no score. The shares that are
    not required are those of `strict`; other protocols have their own, as their NUMBERS say.
    """

    n: int
    accuracy: float | None
    excluded: NotRequired[int]
    raised: NotRequired[int]
    unscored: NotRequired[int]
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
