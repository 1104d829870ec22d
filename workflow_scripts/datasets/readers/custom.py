"""A user's own set: tables (.csv, .tsv, .parquet, .jsonl) with named columns, or dialogues in the messages format.

Every table in the folder, in data/ below it, or in a folder that is named after a split, is read. An image is a path
relative to its table, to the set's folder or to images/ in either, or absolute; in a parquet file it may be the image
itself, as the hub stores it.

A row's split is what its column `split` says, else what its table or the table's folder is named after (train.csv,
rad_test.csv, valset/a.jsonl), else what its images or their folder are called (test_01.png, images/test), else train.
A name that may mean several is an error. A set without any test row gets one: the train rows of TEST_SHARE of the
images, the same ones whenever and wherever it is read, whole images at a time. The validation split is then made as
for every set that has none.
"""

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.pictures.images import needs_rendering, write_png
from workflow_scripts.datasets.readers import choices, markup, messages, parquet, split_names, tables
from workflow_scripts.datasets.readers.fields import (
    Row,
    closed_if_yes_or_no,
    dialogue,
    lines,
    open_or_closed,
    optional,
    verbatim,
)
from workflow_scripts.datasets.readers.file_names import Folder
from workflow_scripts.datasets.readers.messages import Dialogue
from workflow_scripts.datasets.readers.tables import FieldName
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Example, Turn

logger = logging.getLogger(__name__)

TEST_SHARE = 0.1
IMAGES = "images"  # the folder of unpacked images, or of those that the user keeps apart
RENDERED = "rendered"  # the folder of the PNGs of DICOM images
_REQUIRED: tuple[FieldName, ...] = ("image", "question", "answer")
_STATE_SPLITS = (
    "give the rows a column 'split' with train, validation or test, or rename it after one of them"
)
_PATIENTS = ("patient_id", "PatientID", "group_id")  # columns that may stand for `patient`
_EXTENSION = re.compile(  # known ones only: the parts of a DICOM UID stand after dots too
    r"\.(?:png|jpe?g|jfif|jp2|bmp|dib|tiff?|gif|webp|avif|heic|p[pgn]m|dcm|dicom)$", re.IGNORECASE
)
_CHINESE = re.compile("[\u3400-\u9fff]")


def read(root: Path, columns: Mapping[FieldName, str] = {}) -> Iterator[Example]:
    """Every row of the set under `root`; `columns` names the column of a field where it is not the field's name.

    Without a column, `id` is the table's name and the row's number, `image_id` the image's path without extension,
    `language` zh where the question has Chinese characters, `answer_type` closed where the answer is yes or no,
    and what else there is "". Images that a row has together, and those of one patient, get one `group`.
    A missing column, an unknown split or another bad row is a UserError.
    """
    shared = [(_keys(row), row.split) for row in _rows(root, columns)]
    groups = _groups(keys for keys, _ in shared)
    tested = _test_groups((groups[keys[0]], split) for keys, split in shared)
    del shared
    for row in _rows(root, columns):
        group = groups[_keys(row)[0]]
        split = "test" if group in tested and row.split in ("", "train") else row.split or "train"
        yield replace(row, split=split, group=group[1])


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
    splits = {path: _split_of_table(path, root) for path in _tables(root)}
    locate = cache(partial(_locate, Folder(root)))
    common = _common_folder(splits, columns)
    for path, of_table in splits.items():
        folder = path.parent.relative_to(root).as_posix()
        prefix = "" if folder in (".", "data") else f"{path.parent.name}-"
        for number, row in tables.read(path):
            where = f"{tables.original(path)}: row {number}"
            known = _known(row, columns, where)
            if "messages" in row:
                said, named = messages.fields(row, where), row["images"]
            else:
                named = _listed(known["image"])
                try:
                    said = _said(known, choices.stated(row, _used(columns)), len(named), where)
                except ValueError as error:
                    raise UserError(f"{where}: {error}") from None
            places = [locate(folder, _image_path(image, where)) for image in named]
            row_id = optional(known, "id", where) or f"{prefix}{path.stem}-{number}"
            below = [image.removeprefix(common) for image in named if isinstance(image, str)]
            split = _split(optional(known, "split", where), of_table, below, where)
            if not split and any(splits.values()):
                raise UserError(
                    f"{where}: no split, but other tables of the set are named after one; {_STATE_SPLITS}"
                )
            example = _example(root, known, said, places, where)
            image_id = example.image_id.removeprefix(common)
            yield replace(example, id=f"custom-{row_id}", split=split, image_id=image_id)


def _common_folder(paths: Iterable[Path], columns: Mapping[FieldName, str]) -> str:
    """The folder, with a slash, below which all images lie that the tables name by absolute paths; "" for none.

    Where it lies tells nothing of the images, and must decide nothing.
    """
    rows = (row for path in paths for _, row in tables.read(path))
    images = (
        image
        for row in rows
        for image in _listed(row.get("images" if "messages" in row else columns.get("image", "image")))
    )
    folders = {os.path.dirname(image) for image in images if isinstance(image, str) and os.path.isabs(image)}
    return os.path.join(os.path.commonpath(folders), "") if folders else ""


def _listed(image: Any) -> list[Any]:
    return image if isinstance(image, list) else [image]


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
    if "patient" not in columns and known["patient"] is None:
        known["patient"] = next((row[name] for name in _PATIENTS if row.get(name) is not None), None)
    return {
        **dict.fromkeys(required, ""),
        **{field: value for field, value in known.items() if value is not None},
    }


def _used(columns: Mapping[FieldName, str]) -> set[str]:
    """The columns that are a field."""
    return {columns.get(field, field) for field in tables.FIELDS}


def _said(known: Row, offered: dict[str, str], images: int, where: str) -> Dialogue:
    """What the row asks and answers, of multiple choice with what is `offered`; a ValueError says what is wrong."""
    question = markup.asked(verbatim(known, "question", where))
    rationale, answer = markup.said(verbatim(known, "answer", where))
    if optional(known, "rationale", where):
        rationale = markup.plain(lines(verbatim(known, "rationale", where)), "rationale")
    if markers := question.count(IMAGE_PLACEHOLDER):
        if markers != images:
            raise ValueError(f"the question has {markers} {IMAGE_PLACEHOLDER} for {images} image(s)")
        question = question.strip()
        if images == 1:  # at either end: the image comes first, as in every row of a table
            question = question.removeprefix(IMAGE_PLACEHOLDER).removesuffix(IMAGE_PLACEHOLDER).strip()
    if offered:
        texts = [markup.plain(text, f"choice {letter}") for letter, text in offered.items()]
        question = choices.asked(question, dict(zip(offered, texts, strict=True)))
        answer = choices.answered(answer, offered)
    user, question = question, question.replace(IMAGE_PLACEHOLDER, " ")
    said = dialogue(question, answer, lines)
    turns = (Turn(lines(user), said["answer"], rationale),) if IMAGE_PLACEHOLDER in user else ()
    return {**said, "rationale": rationale, "turns": turns}


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
        image_id=optional(known, "image_id", where) or _EXTENSION.sub("", places[0]),
        patient=optional(known, "patient", where),
        **said,
        answer_type=open_or_closed(known, where) if stated else closed_if_yes_or_no(said["answer"]),
        question_type=optional(known, "question_type", where),
        modality=optional(known, "modality", where),
        organ=optional(known, "organ", where),
        language=language,
    )


def _tables(root: Path) -> list[Path]:
    """The tables of the set, those in folders that are named after a split too; none is a UserError."""
    found = tables.find(root)
    for home in (root, root / "data"):
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            if (
                folder.is_dir()
                and not folder.name.startswith(".")
                and folder not in (root / "data", root / IMAGES)
            ):
                inside = tables.find(folder)
                found += inside if inside and _split_of_name(folder.name, folder) else []
    if not found:
        raise UserError(f"{root}: no table here; looked for .jsonl, .csv, .tsv and .parquet, in data/ too")
    return found


def _split_of_table(path: Path, root: Path) -> str:
    """The split that the table, or a folder between it and `root`, is named after; "" for none."""
    place = path.relative_to(root)
    names = [*place.parts[:-1], place.stem]
    found = {split for name in names if (split := _split_of_name(name, tables.original(path)))}
    if len(found) > 1:
        raise UserError(f"{tables.original(path)}: table and folder name two splits; {_STATE_SPLITS}")
    return found.pop() if found else ""


def _split_of_name(name: str, where: Path) -> str:
    try:
        return split_names.split(name)
    except ValueError as error:
        raise UserError(f"{where}: {error}; {_STATE_SPLITS}") from None


def _split(stated: str, of_table: str, images: list[str], where: str) -> str:
    """The split that the row, else its table's name, else that of its images states, "" for none."""
    if stated:
        if stated.lower() not in split_names.SPLITS:
            raise UserError(f"{where}: split is {stated!r}, none of {', '.join(split_names.SPLITS)}")
        return split_names.SPLITS[stated.lower()]
    if of_table:
        return of_table
    paths = [image.replace("\\", "/") for image in images]
    try:
        found = {split_names.of_image(path) for path in paths} - {""}
    except ValueError as error:
        raise UserError(f"{where}: {error}; {_STATE_SPLITS}") from None
    if len(found) > 1:
        raise UserError(f"{where}: its images are named after two splits; {_STATE_SPLITS}")
    return found.pop() if found else ""


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


def _locate(root: Folder, folder: str, path: str) -> str:
    """`path` relative to `root`: below the table's `folder`, images/, images/ in the folder or, for a table in the
    folder of its split, the set's own, whichever has it."""
    homes = [folder, IMAGES, f"{folder}/{IMAGES}", *([] if folder in (".", "data") else ["."])]
    places = [PurePosixPath(home, path).as_posix() for home in homes]
    return next((found for place in places if (found := root.find(place))), places[0])


def _rendered(place: str) -> str:
    return f"{RENDERED}/{place.lstrip('/')}.png"


# Whole images to one split

Key = tuple[str, str]  # "id", "image" or "patient", and which


def _keys(row: Example) -> list[Key]:
    """What a row shares with others, so that they must be in one split."""
    keys = [("id", row.image_id), *(("image", image) for image in row.images)]
    return [*keys, ("patient", row.patient)] if row.patient else keys


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
