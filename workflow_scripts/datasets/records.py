"""The shapes that data has in this project: an `Example` as read, a record or a preference pair as written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict, get_args

from workflow_scripts.datasets.polarity import is_yes_or_no

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
IMAGE_PLACEHOLDER = "<image>"


class Message(TypedDict):
    """One turn of a dialogue; `role` is user or assistant."""

    role: str
    content: str


class QuestionFields(TypedDict):
    """What records and prediction rows alike say of their question."""

    id: str
    source: str
    image_id: str
    question: str
    language: str
    answer_type: str


class Record(QuestionFields):
    """A question with its dialogue, as it stands in a split's file; `images` are relative to that."""

    messages: list[Message]
    images: list[str]
    split: str
    answer: str
    yes_no: bool
    question_type: str
    modality: str
    organ: str
    linked_id: str  # what the rephrasings of one question share, "" for none
    raw_answer: NotRequired[str]  # where `answer` is in canonical terms


def image_key(source: str, image_id: str) -> str:
    """An image among those of all sets, which may name theirs alike."""
    return f"{source}/{image_id}"


class LastTurn(TypedDict):
    """A dialogue's last user turn after a history of (user, assistant) pairs."""

    prompt: str
    history: list[list[str]]


class PreferencePair(TypedDict):
    """A dialogue up to the user's last turn, and two texts that may follow it."""

    messages: list[Message]
    images: list[str]
    chosen: str
    rejected: str


SIDES: tuple[Literal["chosen", "rejected"], ...] = ("chosen", "rejected")


class PreferenceRecord(PreferencePair, LastTurn):
    """A preference pair as it stands in a run's file; a user's own may have further keys."""

    id: str
    source: str
    origin: str


class MadePreference(PreferenceRecord):
    """A preference pair made of a record, with what that says of its question."""

    image_id: str
    question: str
    answer: str
    language: str
    answer_type: str
    rejected_answer: str


class Exchange(NamedTuple):
    """A user's text, with a placeholder for each image, the answer, and the user's own rationale or ""."""

    user: str
    answer: str
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one image, as a raw set states it; white space in the text is tidied.

    `image` is relative to the folder the set was read from, or absolute. `answer_type` is "open" or "closed" by the
    set's own field; `question_type`, `modality` and `organ` are "" where the set does not say.
    `mask` is a file like `image`. `facts` are the set's further annotations of this row (a SLAKE triple, a linked
    question's id), `stated` the texts that were tidied as they stand in the file, by field.
    `patient` is whom the image is of, "" where the set does not say; `group` what splits keep together, of which the
    images of one patient are a part, and is `image_id` unless it is stated. `linked_id` is what the rephrasings of
    one question share, "" where the set links none.
    A longer dialogue has its turns in `turns`, of which question and answer are the last, and may use
    `more_images`.
    """

    id: str
    source: str
    split: str
    image: str
    image_id: str
    question: str
    answer: str
    answer_type: str
    question_type: str = ""
    language: str = "en"
    modality: str = ""
    organ: str = ""
    rationale: str = ""
    mask: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)
    turns: tuple[Exchange, ...] = ()
    more_images: tuple[str, ...] = ()
    patient: str = ""
    group: str = ""
    linked_id: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.image_id)

    @property
    def images(self) -> tuple[str, ...]:
        return (self.image, *self.more_images)

    @property
    def yes_no(self) -> bool:
        """The other definition of closed in print: the answer is yes or no."""
        return is_yes_or_no(self.answer)


def user_text(question: str, images: int = 1) -> str:
    """The user's turn of a record: one placeholder per image, then the question."""
    return IMAGE_PLACEHOLDER * images + question


def to_record(example: Example, images: Sequence[str], turns: Sequence[tuple[str, str]]) -> Record:
    """The record on disk: LLaMA-Factory, ms-swift and TRL read it as it is.

    `images` are paths relative to the record's file, `turns` the escaped user's and the assistant's texts.
    """
    return {
        "messages": [
            {"role": role, "content": content}
            for turn in turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ],
        "images": list(images),
        "id": example.id,
        "source": example.source,
        "split": example.split,
        "image_id": example.image_id,
        "question": example.question,
        "answer": example.answer,
        "answer_type": example.answer_type,
        "yes_no": example.yes_no,
        "question_type": example.question_type,
        "language": example.language,
        "modality": example.modality,
        "organ": example.organ,
        # In every row: a key of some rows only stops `datasets` where a later block of a file has it.
        "linked_id": example.linked_id,
    }


def annotations(example: Example, mask: str) -> dict[str, Any]:
    """What a set says of a row beyond the record, which stays flat so that other tools load it.

    `mask` is the mask's path relative to the file of annotations, "" for none.
    """
    patient = {"patient": example.patient} if example.patient else {}
    return {"id": example.id, "image_id": example.image_id, **patient, "mask": mask, **example.facts}


def tidied(example: Example) -> Iterator[dict[str, str]]:
    """Each text of the example that reading changed, as it was and as it is."""
    for name, stated in example.stated.items():
        yield {"id": example.id, "field": name, "stated": stated, "written": getattr(example, name)}


def last_turn(messages: Sequence[Message]) -> LastTurn:
    """The dialogue before `chosen` and `rejected` once more: `prompt`, the last user turn, after a `history` of pairs.

    LLaMA-Factory and ms-swift read preferences between texts in this form only; TRL wants a `prompt`.
    """
    turns = [message["content"] for message in messages]
    return {
        "prompt": turns[-1],
        "history": [list(pair) for pair in zip(turns[:-1:2], turns[1::2], strict=True)],
    }


def dataset_info(run: str) -> dict[str, Any]:
    """LLaMA-Factory's `dataset_info.json` for the three splits and the preference pairs of a run.

    Splits are `sharegpt`. Pairs are `alpaca`, the one of its formats whose `ranking` takes chosen and rejected texts;
    their images are relative to their file, so they need `media_dir: results/preferences`.
    """
    sharegpt = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }
    info: dict[str, Any] = {f"{run}_{split}": {"file_name": f"{split}.jsonl", **sharegpt} for split in SPLITS}
    columns = ("prompt", "history", "images", "chosen", "rejected")
    info[f"{run}_preferences"] = {
        "file_name": f"../../preferences/{run}.jsonl",
        "formatting": "alpaca",
        "ranking": True,
        "columns": {column: column for column in columns},
    }
    return info
