"""The user's own preference files: one pair a row, checked and brought into the answer format of a run."""

import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.checks import structure
from workflow_scripts.datasets.checks.structure import MessageSchema, Text
from workflow_scripts.datasets.pictures import near_duplicates
from workflow_scripts.datasets.pictures.frames import FrameRule
from workflow_scripts.datasets.pictures.images import image_size, open_image
from workflow_scripts.datasets.pictures.near_duplicates import difference_hash
from workflow_scripts.datasets.readers import dialogue_layouts, markup
from workflow_scripts.datasets.readers.fields import tidy
from workflow_scripts.datasets.readers.file_names import Folder
from workflow_scripts.datasets.records import (
    IMAGE_PLACEHOLDER,
    SIDES,
    PreferencePair,
    PreferenceRecord,
    last_turn,
)

_OTHERS_KEYS = ("conversations", "image", "prompt", "history")  # which the records have in their own form


class UserPair(BaseModel):
    """What a line must have; further keys are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: list[MessageSchema] = Field(min_length=1)
    images: list[Text] = Field(min_length=1)
    chosen: Text
    rejected: Text


def read(
    path: Path,
    rewrite: Callable[[str], str],
    same: Callable[[str, str], bool],
    tested: Container[str],
    examine: Callable[[Path], object] = image_size,
    earlier: "Earlier | None" = None,
) -> Iterator[PreferenceRecord]:
    """The preference record of each row of a JSONL file or a JSON array, images relative to it.

    `rewrite` brings an answer into the format that is trained, or raises ValueError; `same` says whether two answers
    in it say the same; `tested` has the SHA-256 of every test image. `examine` raises UserError for an image that
    is of no use. All rows that are wrong, show a test image, or repeat or contradict an earlier one, make one UserError,
    a line for each with its number and the key. `earlier` are the pairs of other files, to which these are added.
    """
    beside, bad = Folder(path.parent), list[str]()
    earlier = Earlier() if earlier is None else earlier
    for number, row in files.json_values(path):
        try:
            pair = _pair(row, beside, path.parent, rewrite, same, tested, examine)
            earlier.add(pair, path, number, same)
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


_Question = tuple[tuple[str, ...], tuple[str, ...]]


class Earlier:
    """The pairs that were read so far, by what they ask."""

    def __init__(self) -> None:
        self._pairs: dict[_Question, list[tuple[Path, int, PreferencePair]]] = defaultdict(list)

    def add(self, pair: PreferencePair, path: Path, number: int, same: Callable[[str, str], bool]) -> None:
        """Add the pair of a row; a ValueError where an earlier row prefers what this one rejects, or is the same."""
        asked = self._pairs[_question(pair, path)]
        for file, row, other in asked:
            place = f"row {row}" if file == path else f"{file}:{row}"
            if same(pair["chosen"], other["rejected"]) or same(pair["rejected"], other["chosen"]):
                raise ValueError(f"chosen and rejected contradict {place}, which prefers otherwise; keep one")
            if same(pair["chosen"], other["chosen"]) and same(pair["rejected"], other["rejected"]):
                raise ValueError(f"the same pair as in {place}; remove one")
        asked.append((path, number, pair))


def _question(pair: PreferencePair, path: Path) -> _Question:
    """What two rows ask alike: the images, by where they lie, and the dialogue's words."""
    texts = (
        message["content"].replace(IMAGE_PLACEHOLDER, f" {IMAGE_PLACEHOLDER} ")
        for message in pair["messages"]
    )
    images = (os.path.abspath(path.parent / image) for image in pair["images"])
    return tuple(images), tuple(tidy(text).casefold() for text in texts)


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
    row: object,
    beside: Folder,
    folder: Path,
    rewrite: Callable[[str], str],
    same: Callable[[str, str], bool],
    tested: Container[str],
    examine: Callable[[Path], object],
) -> PreferencePair:
    """The pair of one row, or a ValueError that names the key."""
    if isinstance(row, ValueError):
        raise ValueError(f"not JSON: {row}")
    try:
        stated: Any = UserPair.model_validate(_in_our_layout(row)).model_dump()
    except ValidationError as error:
        raise ValueError(structure.describe(error)) from None
    pair: PreferencePair = stated
    for message in pair["messages"]:
        if message["role"] == "user":
            try:
                message["content"] = markup.asked(message["content"])
            except ValueError as error:
                raise ValueError(f"messages: {error}") from None
    pair["images"] = [_place(image, beside) for image in pair["images"]]
    for image in pair["images"]:
        try:
            if os.path.isfile(folder / image) and files.sha256(folder / image) in tested:
                raise ValueError(f"images: {image} belongs to the test set; remove the pair")
            examine(folder / image)
        except UserError as error:
            raise ValueError(f"images: {error}") from None
    if len({_has_thought(pair[side]) for side in SIDES}) > 1:
        raise ValueError(
            "a thought stands in chosen or rejected alone, so that the pair would teach whether to think; give both or none"
        )
    for side in SIDES:
        try:
            pair[side] = rewrite(pair[side])
        except ValueError as error:
            raise ValueError(f"{side}: {error}") from None
    if problem := structure.pair_problem(pair, same):
        raise ValueError(": ".join(problem))
    return pair


def _in_our_layout(row: object) -> object:
    """A row of LLaMA-Factory (`conversations`, answers of from and value), TRL (answers as lists of messages) or
    ms-swift (`rejected_response` to the last message) as ours; any other as it is."""
    if not isinstance(row, dict):
        return row
    if isinstance(row.get("prompt"), list) and "messages" not in row:
        row = {**row, "messages": row["prompt"]}
    row = dialogue_layouts.as_messages(row)
    if not row.get("messages"):
        return row
    row = {key: value for key, value in row.items() if key not in _OTHERS_KEYS}
    messages, system = row["messages"], row.pop("system")
    if "rejected_response" in row and messages[-1]["role"] == "assistant":
        *row["messages"], last = messages
        row |= {"chosen": last["content"], "rejected": row.pop("rejected_response")}
    if system:
        first, *others = row["messages"]
        row["messages"] = [{**first, "content": f"{system}\n{first['content']}"}, *others]
    return row | {side: _text(row[side]) for side in SIDES if side in row}


def _text(answer: Any) -> Any:
    """The text of an answer that is a message, or a list of one."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return dialogue_layouts.message(answer, "answer")[1] if isinstance(answer, dict) else answer


def _place(image: str, beside: Folder) -> str:
    path = image.replace("\\", "/")
    return beside.find(path) or path


def _has_thought(text: str) -> bool:
    return bool(text.rpartition("</think>")[0].replace("<think>", "").strip())
