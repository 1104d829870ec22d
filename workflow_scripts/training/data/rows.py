"""Records as rows of tokens: what the trainers' datasets hold. Images stay paths until a batch is made."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import MessageSchema, Text
from workflow_scripts.datasets.pictures.images import image_size
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.training.data.batching import RowCost


class TrainedDialogue(BaseModel):
    """What training needs of a record; whoever starts it by hand may not have validated the set."""

    model_config = ConfigDict(strict=True)

    id: Text
    messages: list[MessageSchema] = Field(min_length=1)
    images: list[Text]


class TrainedPair(TrainedDialogue):
    """What it needs of a preference pair."""

    chosen: Text
    rejected: Text


def sft_rows(path: Path, dialogue: Dialogue) -> Dataset:
    """One row for each assistant turn: id, image_paths, prompt_ids, completion_ids, thought_tokens.

    The first `thought_tokens` of a completion are of its thought.
    """
    return _dataset(path, _sft_rows(path, dialogue))


def _sft_rows(path: Path, dialogue: Dialogue) -> Iterator[dict[str, Any]]:
    for record in _records(path, TrainedDialogue, last="assistant"):
        for turn in dialogue.turns(record):
            completion = dialogue.tokens(turn.completion)
            yield {
                "id": record["id"],
                "image_paths": image_paths(turn.images, path.parent),
                "prompt_ids": dialogue.tokens(turn.prompt),
                "completion_ids": completion,
                "thought_tokens": dialogue.thought_tokens(completion),
            }


def preference_rows(path: Path, dialogue: Dialogue) -> Dataset:
    """One row for each pair: id, image_paths, prompt_ids, chosen_ids, rejected_ids."""
    return _dataset(path, _preference_rows(path, dialogue))


def _preference_rows(path: Path, dialogue: Dialogue) -> Iterator[dict[str, Any]]:
    for record in _records(path, TrainedPair, last="user"):
        messages = record["messages"]
        yield {
            "id": record["id"],
            "image_paths": image_paths(record["images"], path.parent),
            "prompt_ids": dialogue.tokens(dialogue.prompt(messages)),
            "chosen_ids": dialogue.tokens(dialogue.completion(messages, record["chosen"])),
            "rejected_ids": dialogue.tokens(dialogue.completion(messages, record["rejected"])),
        }


def _records(path: Path, kind: type[TrainedDialogue], last: Literal["user", "assistant"]) -> Iterator[Any]:
    """The rows of a JSONL file, whose dialogues end with a turn of `last`; one that is none is a UserError."""
    for number, record in enumerate(files.read_jsonl(path), start=1):
        try:
            kind.model_validate(record)
        except ValidationError as error:
            raise UserError(
                f"{path}: row {number}: {structure.describe(error)}; validate the set first"
            ) from None
        if problem := structure.dialogue_problem(record["messages"], record["images"], last):
            raise UserError(f"{path}: row {number}: {': '.join(problem)}; validate the set first")
        yield record


def costs(dataset: Dataset, dialogue: Dialogue, max_tokens: int) -> list[RowCost]:
    """What planning needs of each row, without decoding an image; a row over `max_tokens` is a UserError."""
    known: dict[str, int] = {}
    found = []
    for row in dataset:
        for path in row["image_paths"]:
            if path not in known:
                known[path] = _image_tokens(Path(path), dialogue)
        images = tuple((path, known[path]) for path in row["image_paths"])
        shared = sum(tokens for _, tokens in images)
        prompt = len(row["prompt_ids"]) - len(row["image_paths"])
        completions = [
            len(row[name]) for name in ("completion_ids", "chosen_ids", "rejected_ids") if name in row
        ]
        if shared + prompt + max(completions) > max_tokens:
            raise UserError(
                f"{row['id']}: {shared + prompt + max(completions)} tokens are over data.max_tokens = {max_tokens}; "
                "leave the row out, lower data.max_image_side or raise the limit"
            )
        first = row["image_paths"][0] if row["image_paths"] else f"no image, {row['id']}"
        total = sum(shared + prompt + completion for completion in completions)
        found.append(RowCost(first, images, prompt + sum(completions), total))
    return found


def _image_tokens(path: Path, dialogue: Dialogue) -> int:
    if not os.path.isfile(path):  # False for names that no file can have, where Path.is_file raises
        raise UserError(f"{shown(str(path))}: no such image; validate the set first")
    try:
        return dialogue.image_tokens(*image_size(path, dialogue.frames))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _dataset(path: Path, rows: Iterator[dict[str, Any]]) -> Dataset:
    listed = list(rows)
    if not listed:
        raise UserError(f"{path}: no rows to train on")
    return Dataset.from_list(listed)
