"""The two shapes that data has in this project: an `Example` as read, a record as written."""

from dataclasses import dataclass, field

SPLITS = ("train", "validation", "test")
IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one image, as a raw set states it; text stays as it was, only stripped.

    `image` is relative to the folder the set was read from. `answer_type` is "open" or "closed" by the
    set's own field; `question_type`, `modality` and `organ` are "" where the set does not say.
    `facts` are the set's further annotations of this row (a SLAKE triple, a linked question's id).
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
    facts: dict = field(default_factory=dict)


def user_text(question: str, images: int = 1) -> str:
    """The user's turn of a record: one placeholder per image, then the question."""
    return IMAGE_PLACEHOLDER * images + question


def to_record(example: Example, image: str, prompt: str, target: str) -> dict:
    """The record on disk: LLaMA-Factory, ms-swift and TRL read it as it is.

    `image` is the path relative to the record's file, `prompt` the escaped question, `target` the assistant's text.
    """
    return {
        "messages": [
            {"role": "user", "content": user_text(prompt)},
            {"role": "assistant", "content": target},
        ],
        "images": [image],
        "id": example.id,
        "source": example.source,
        "split": example.split,
        "image_id": example.image_id,
        "question": example.question,
        "answer": example.answer,
        "answer_type": example.answer_type,
        "question_type": example.question_type,
        "language": example.language,
        "modality": example.modality,
        "organ": example.organ,
    }


def last_turn(messages: list[dict]) -> dict:
    """The dialogue before `chosen` and `rejected` once more: `prompt`, the last user turn, after a `history` of pairs.

    LLaMA-Factory and ms-swift read preferences between texts in this form only; TRL wants a `prompt`.
    """
    turns = [message["content"] for message in messages]
    return {
        "prompt": turns[-1],
        "history": [list(pair) for pair in zip(turns[:-1:2], turns[1::2], strict=True)],
    }


def dataset_info(run: str) -> dict:
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
    info = {f"{run}_{split}": {"file_name": f"{split}.jsonl", **sharegpt} for split in SPLITS}
    columns = ("prompt", "history", "images", "chosen", "rejected")
    info[f"{run}_preferences"] = {
        "file_name": f"../../preferences/{run}.jsonl",
        "formatting": "alpaca",
        "ranking": True,
        "columns": {column: column for column in columns},
    }
    return info
