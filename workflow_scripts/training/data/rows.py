"""Records as rows of tokens: what the trainers' datasets hold. Images stay paths until a batch is made."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.images import image_size
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.training.data.batching import RowCost


def sft_rows(path: Path, dialogue: Dialogue) -> Dataset:
    """One row for each assistant turn: id, image_paths, prompt_ids, completion_ids, thought_tokens.

    The first `thought_tokens` of a completion are of its thought.
    """
    return _dataset(path, _sft_rows(path, dialogue))


def _sft_rows(path: Path, dialogue: Dialogue) -> Iterator[dict[str, Any]]:
    for record in files.read_jsonl(path):
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
    for record in files.read_jsonl(path):
        messages = record["messages"]
        yield {
            "id": record["id"],
            "image_paths": image_paths(record["images"], path.parent),
            "prompt_ids": dialogue.tokens(dialogue.prompt(messages)),
            "chosen_ids": dialogue.tokens(dialogue.completion(messages, record["chosen"])),
            "rejected_ids": dialogue.tokens(dialogue.completion(messages, record["rejected"])),
        }


def costs(dataset: Dataset, dialogue: Dialogue, max_tokens: int) -> list[RowCost]:
    """What planning needs of each row, without decoding an image; a row over `max_tokens` is a UserError."""
    known: dict[str, int] = {}
    found = []
    for row in dataset:
        for path in row["image_paths"]:
            if path not in known:
                known[path] = dialogue.image_tokens(*image_size(Path(path), dialogue.frames))
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


def _dataset(path: Path, rows: Iterator[dict[str, Any]]) -> Dataset:
    listed = list(rows)
    if not listed:
        raise UserError(f"{path}: no rows to train on")
    return Dataset.from_list(listed)
