"""The user's own preference files: one pair a line, checked and brought into the answer format of a run."""

import json
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import Message, Text
from workflow_scripts.datasets.pictures.images import image_size
from workflow_scripts.datasets.readers import markup
from workflow_scripts.datasets.records import SIDES, PreferencePair, PreferenceRecord, last_turn


class UserPair(BaseModel):
    """What a line must have; further keys are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: list[Message] = Field(min_length=1)
    images: list[Text] = Field(min_length=1)
    chosen: Text
    rejected: Text


def read(
    path: Path,
    rewrite: Callable[[str], str],
    same: Callable[[str, str], bool],
    tested: Container[str],
) -> Iterator[PreferenceRecord]:
    """The preference record of each line of a JSONL file, images relative to it as they are written there.

    `rewrite` brings an answer into the format that is trained, or raises ValueError; `same` says whether two answers
    in it say the same; `tested` has the SHA-256 of every test image. The first line that is wrong, or shows a test
    image, is a UserError with its number and the key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"preferences.files: {path}: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        try:
            pair = _pair(line, path.parent, rewrite, same, tested)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        yield {
            "id": f"{path.stem}-{number}",
            "source": path.stem,
            **pair,  # which may have its own id and source
            **last_turn(pair["messages"]),
            "origin": "user",
        }


def _pair(
    line: bytes,
    folder: Path,
    rewrite: Callable[[str], str],
    same: Callable[[str, str], bool],
    tested: Container[str],
) -> PreferencePair:
    """The pair of one line, or a ValueError that names the key."""
    try:
        stated: Any = UserPair.model_validate(json.loads(line)).model_dump()
    except ValidationError as error:
        raise ValueError(structure.describe(error)) from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    pair: PreferencePair = stated
    for message in pair["messages"]:
        if message["role"] == "user":
            try:
                message["content"] = markup.asked(message["content"])
            except ValueError as error:
                raise ValueError(f"messages: {error}") from None
    for image in pair["images"]:
        try:
            image_size(folder / image)
        except UserError as error:
            raise ValueError(f"images: {error}") from None
        if files.sha256(folder / image) in tested:
            raise ValueError(f"images: {image} belongs to the test set; remove the pair")
    for side in SIDES:
        try:
            pair[side] = rewrite(pair[side])
        except ValueError as error:
            raise ValueError(f"{side}: {error}") from None
    if problem := structure.pair_problem(pair, same):
        raise ValueError(": ".join(problem))
    return pair
