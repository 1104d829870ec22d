"""The user's own preference files: one pair a line, checked and brought into the answer format of a run."""

import json
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import Message, Text
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.pictures.images import image_size, open_image
from workflow_scripts.datasets.pictures.near_duplicates import difference_hash
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
    examine: Callable[[Path], object] = image_size,
) -> Iterator[PreferenceRecord]:
    """The preference record of each line of a JSONL file, images relative to it as they are written there.

    `rewrite` brings an answer into the format that is trained, or raises ValueError; `same` says whether two answers
    in it say the same; `tested` has the SHA-256 of every test image. `examine` raises UserError for an image that
    is of no use. All lines that are wrong, or show a test image, make one UserError, a line for each with its number
    and the key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"preferences.files: {path}: {error.strerror}") from None
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            pair = _pair(line, path.parent, rewrite, same, tested, examine)
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
            continue
        yield {
            "id": f"{path.stem}-{number}",
            "source": path.stem,
            **pair,  # which may have its own id and source
            **last_turn(pair["messages"]),
            "origin": "user",
        }
    if bad:
        raise UserError("\n".join(bad))


def examine(path: Path, trained: Container[str], tested: Mapping[str, bytes], frames: FrameRule) -> None:
    """Decode an image whole; a UserError where that fails, or where it looks like a test image.

    `tested` has the difference hash of each test image by its name, `trained` the SHA-256 of each image of the run
    that is no test image: those may look like one.
    """
    look = difference_hash(open_image(path, frames))
    if files.sha256(path) in trained:
        return
    for bits, _, name in near_duplicates.pairs({"": look}, dict(tested))[:1]:
        raise UserError(
            f"{path}: looks like the test image {name} ({bits} of 256 bits differ); remove the pair"
        )


def _pair(
    line: bytes,
    folder: Path,
    rewrite: Callable[[str], str],
    same: Callable[[str, str], bool],
    tested: Container[str],
    examine: Callable[[Path], object],
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
        if (folder / image).is_file() and files.sha256(folder / image) in tested:
            raise ValueError(f"images: {image} belongs to the test set; remove the pair")
        try:
            examine(folder / image)
        except UserError as error:
            raise ValueError(f"images: {error}") from None
    for side in SIDES:
        try:
            pair[side] = rewrite(pair[side])
        except ValueError as error:
            raise ValueError(f"{side}: {error}") from None
    if problem := structure.pair_problem(pair, same):
        raise ValueError(": ".join(problem))
    return pair
