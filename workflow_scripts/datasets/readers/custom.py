"""A user's own set: tables (.csv, .tsv, .parquet, .jsonl) with named columns, or dialogues in the messages format.

Every table in the folder, or in data/ below it, is read. An image is a path relative to its table or to images/ in
the set's folder, or absolute; in a parquet file it may be the image itself, as the hub stores it.

A row's split is what its column `split` says, else what its table is named after (train.csv, test-2.jsonl), else
train. A set without any test row gets one: the train rows of TEST_SHARE of the images, the same ones whenever and
wherever it is read, whole images at a time. The validation split is then made as for every set that has none.
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path, PurePosixPath

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.pictures.images import needs_rendering, write_png
from workflow_scripts.datasets.readers import messages, parquet, tables
from workflow_scripts.datasets.readers.fields import (
    Row,
    closed_if_yes_or_no,
    dialogue,
    open_or_closed,
    optional,
    verbatim,
)
from workflow_scripts.datasets.readers.messages import Dialogue
from workflow_scripts.datasets.readers.tables import FieldName
from workflow_scripts.datasets.records import Example

logger = logging.getLogger(__name__)

TEST_SHARE = 0.1
IMAGES = "images"  # the folder of unpacked images, or of those that the user keeps apart
RENDERED = "rendered"  # the folder of the PNGs of DICOM images
_REQUIRED: tuple[FieldName, ...] = ("image", "question", "answer")
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "validate": "validation",
    "valid": "validation", "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
_CHINESE = re.compile("[\u3400-\u9fff]")


def read(root: Path, columns: Mapping[FieldName, str] = {}) -> Iterator[Example]:
    """Every row of the set under `root`; `columns` names the column of a field where it is not the field's name.

    Without a column, `id` is the table's name and the row's number, `image_id` the image's path without extension,
    `language` zh where the question has Chinese characters, `answer_type` closed where the answer is yes or no,
    and what else there is "". Images that a row has together get one `image_id`.
    A missing column, an unknown split or another bad row is a UserError.
    """
    shared = [(_keys(row), row.split) for row in _rows(root, columns)]
    groups = _groups(keys for keys, _ in shared)
    tested = _test_groups((groups[keys[0]], split) for keys, split in shared)
    del shared
    for row in _rows(root, columns):
        group = groups[_keys(row)[0]]
        split = "test" if group in tested and row.split in ("", "train") else row.split or "train"
        yield replace(row, split=split, image_id=group[1])


def images(root: Path, columns: Mapping[FieldName, str]) -> set[str]:
    """The paths of all images that the rows name, as they stand in `Example.images`."""
    return {image for row in _rows(root, columns) for image in row.images}


def render(root: Path, columns: Mapping[FieldName, str], frames: FrameRule = FRAMES) -> None:
    """Write each image that other programs would not show as we do, DICOM and several frames, as a PNG in its place.

    The records are for training frameworks and browsers too. What cannot be rendered stays as it is, with a warning
    that names file and row: validation lists all bad images of the set at once.
    """
    first_rows: dict[str, str] = {}
    for row in _rows(root, columns):
        for image in row.images:
            first_rows.setdefault(image, row.id)
    for image, row_id in sorted(first_rows.items()):
        if not (root / image).is_file() or image.startswith(f"{RENDERED}/"):
            continue
        try:
            if needs_rendering(tables.original(root / image)):
                write_png(tables.original(root / image), root / _rendered(image), frames)
        except UserError as error:
            logger.warning("%s: %s", row_id, error)


def _rows(root: Path, columns: Mapping[FieldName, str]) -> Iterator[Example]:
    """The rows as their tables state them; the split may be ""."""
    found = tables.find(root)
    if not found:
        raise UserError(f"{root}: no table here; looked for .jsonl, .csv, .tsv and .parquet, in data/ too")
    locate = cache(partial(_locate, root))
    for path in found:
        folder = path.parent.relative_to(root).as_posix()
        for number, row in tables.read(path):
            where = f"{tables.original(path)}: row {number}"
            known = _known(row, columns, where)
            if "messages" in row:
                said, named = messages.fields(row, where), row["images"]
            else:
                said, named = _said(known, where), known["image"]
            named = named if isinstance(named, list) else [named]
            places = [locate(folder, _image_path(image, where)) for image in named]
            row_id = optional(known, "id", where) or f"{path.stem}-{number}"
            split = _split(optional(known, "split", where), path, where)
            yield replace(_example(root, known, said, places, where), id=f"custom-{row_id}", split=split)


def _known(row: Row, columns: Mapping[FieldName, str], where: str) -> Row:
    """The row's values by field; what is required is there, "" for a null."""
    required: tuple[FieldName, ...] = () if "messages" in row else _REQUIRED
    named: set[FieldName] = {*required, *columns}
    for field in named:
        name = columns.get(field, field)
        if name not in row:
            raise UserError(
                f"{where}: no column '{name}' for the {field} (there are: {', '.join(map(str, row))}); "
                f"name it in the set's columns: {{{field}: ...}}"
            )
    known = {field: row.get(columns.get(field, field)) for field in tables.FIELDS}
    return {
        **dict.fromkeys(required, ""),
        **{field: value for field, value in known.items() if value is not None},
    }


def _said(known: Row, where: str) -> Dialogue:
    question, answer = verbatim(known, "question", where), verbatim(known, "answer", where)
    return {**dialogue(question, answer), "rationale": optional(known, "rationale", where), "turns": ()}


def _example(root: Path, known: Row, said: Dialogue, places: list[str], where: str) -> Example:
    """The example without the id and the split, which depend on the table."""
    language = optional(known, "language", where) or ("zh" if _CHINESE.search(said["question"]) else "en")
    if language not in ("en", "zh"):
        raise UserError(f"{where}: language is {language!r}, neither en nor zh")
    stated = optional(known, "answer_type", where)
    first, *others = [_rendered(place) if (root / _rendered(place)).is_file() else place for place in places]
    return Example(
        id="",
        source="custom",
        split="",
        image=first,
        more_images=tuple(others),
        image_id=optional(known, "image_id", where) or PurePosixPath(places[0]).with_suffix("").as_posix(),
        **said,
        answer_type=open_or_closed(known, where) if stated else closed_if_yes_or_no(said["answer"]),
        question_type=optional(known, "question_type", where),
        modality=optional(known, "modality", where),
        organ=optional(known, "organ", where),
        language=language,
    )


def _split(stated: str, path: Path, where: str) -> str:
    """The split that the row or else the table's name states, "" for none."""
    if stated and stated.lower() not in _SPLITS:
        raise UserError(f"{where}: split is {stated!r}, none of {', '.join(_SPLITS)}")
    named = re.split("[^a-z]", path.stem.lower(), maxsplit=1)[0]
    return _SPLITS.get(stated.lower() or named, "")


# Images


def _image_path(image: object, where: str) -> str:
    """The path that a row gives of an image, relative or absolute; of stored bytes the name that they are unpacked to."""
    if isinstance(image, dict):
        return parquet.image_name({"image": image}, "image", where)
    path = verbatim({"image": image}, "image", where).strip().replace("\\", "/")
    if not path or ".." in PurePosixPath(path).parts:
        raise UserError(
            f"{where}: image is {path!r}; give a path below the table's folder, or an absolute one"
        )
    return path


def _locate(root: Path, folder: str, path: str) -> str:
    """`path` relative to `root`: below the table's `folder` or images/, whichever has it."""
    places = [PurePosixPath(folder, path).as_posix(), PurePosixPath(IMAGES, path).as_posix()]
    return next((place for place in places if (root / place).is_file()), places[0])


def _rendered(place: str) -> str:
    return f"{RENDERED}/{place.lstrip('/')}.png"


# Whole images to one split

Key = tuple[str, str]  # "id" or "image", and which


def _keys(row: Example) -> list[Key]:
    """What a row shares with others, so that they must be in one split."""
    return [("id", row.image_id), *(("image", image) for image in row.images)]


def _groups(rows: Iterable[list[Key]]) -> dict[Key, Key]:
    """For each key the least of all keys that rows connect with it."""
    parent: dict[Key, Key] = {}

    def least(key: Key) -> Key:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for keys in rows:
        for key in keys[1:]:
            first, second = sorted((least(keys[0]), least(key)))
            parent[second] = first
    return {key: least(key) for key in parent}


def _test_groups(rows: Iterable[tuple[Key, str]]) -> set[Key]:
    """The groups to take for the test split from those that no validation row uses; none if there is a test row."""
    splits: dict[Key, set[str]] = defaultdict(set)
    for group, split in rows:
        splits[group].add(split)
    if any("test" in found for found in splits.values()):
        return set()
    free = [group for group, found in splits.items() if "validation" not in found]
    free.sort(key=lambda group: hashlib.sha256(group[1].encode()).digest())
    return set(free[: max(1, round(TEST_SHARE * len(splits)))])
