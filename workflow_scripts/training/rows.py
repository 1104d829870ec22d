"""Records as rows of tokens: what the trainers' datasets hold. Images stay paths until a batch is made."""

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from workflow_scripts import files
from workflow_scripts.errors import UserError
from workflow_scripts.models.dialogue import Dialogue, image_paths


def sft_rows(path: Path, dialogue: Dialogue) -> Dataset:
    """One row for each assistant turn: id, image_paths, prompt_ids, completion_ids."""
    return _dataset(path, _sft_rows(path, dialogue))


def _sft_rows(path: Path, dialogue: Dialogue) -> Iterator[dict]:
    for record in files.read_jsonl(path):
        for turn in dialogue.turns(record):
            yield {
                "id": record["id"],
                "image_paths": image_paths(turn.images, path.parent),
                "prompt_ids": dialogue.tokens(turn.prompt),
                "completion_ids": dialogue.tokens(turn.completion),
            }


def preference_rows(path: Path, dialogue: Dialogue) -> Dataset:
    """One row for each pair: id, image_paths, prompt_ids, chosen_ids, rejected_ids."""
    return _dataset(path, _preference_rows(path, dialogue))


def _preference_rows(path: Path, dialogue: Dialogue) -> Iterator[dict]:
    for record in files.read_jsonl(path):
        messages = record["messages"]
        yield {
            "id": record["id"],
            "image_paths": image_paths(record["images"], path.parent),
            "prompt_ids": dialogue.tokens(dialogue.prompt(messages)),
            "chosen_ids": dialogue.tokens(dialogue.completion(messages, record["chosen"])),
            "rejected_ids": dialogue.tokens(dialogue.completion(messages, record["rejected"])),
        }


def _dataset(path: Path, rows: Iterator[dict]) -> Dataset:
    listed = list(rows)
    if not listed:
        raise UserError(f"{path}: no rows to train on")
    return Dataset.from_list(listed)
