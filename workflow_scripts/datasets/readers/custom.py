"""A user's own set: tables (.csv, .tsv, .parquet, .jsonl, .json) with named columns, or dialogues (`dialogue_layouts`).

Every table in the folder, in data/ below it, or in a folder that is named after a split, is read. An image is a path
relative to its table, to the set's folder or to images/ in either, or absolute, or the image itself (`embedded`).

A row's split is what its column `split` says, else what its table or the table's folder is named after (train.csv,
rad_test.csv, valset/a.jsonl), else what its images or their folder are called (test_01.png, images/test), else train.
A name that may mean several is an error. A set without any test row gets one: the train rows of `groups.TEST_SHARE` of
the images, the same ones whenever and wherever it is read, whole images at a time. The validation split is then made
as for every set that has none.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.pictures.frames import FRAMES, FrameRule
from workflow_scripts.datasets.pictures.images import needs_rendering, write_png
from workflow_scripts.datasets.readers import (
    choices,
    dataset_info,
    dialogue_layouts,
    groups,
    markup,
    messages,
    stated_splits,
    tables,
    vlmevalkit,
)
from workflow_scripts.datasets.readers.fields import (
    Row,
    closed_if_yes_or_no,
    dialogue,
    lines,
    open_or_closed,
    optional,
    verbatim,
)
from workflow_scripts.datasets.readers.messages import DialogueFields
from workflow_scripts.datasets.readers.places import IMAGES, Images
from workflow_scripts.datasets.readers.refusals import Refusals
from workflow_scripts.datasets.readers.tables import FieldName
from workflow_scripts.datasets.records import IMAGE_PLACEHOLDER, Example, Exchange

logger = logging.getLogger(__name__)

RENDERED = "rendered"  # the folder of the PNGs of DICOM images
_REQUIRED: tuple[FieldName, ...] = ("image", "question", "answer")
_PATIENTS = ("patient_id", "PatientID", "group_id")  # columns that may stand for `patient`
_EXTENSION = re.compile(  # known ones only: the parts of a DICOM UID stand after dots too
    r"\.(?:png|jpe?g|jfif|jp2|bmp|dib|tiff?|gif|webp|avif|heic|p[pgn]m|dcm|dicom)$", re.IGNORECASE
)
_LONGEST_PATH = 4096  # PATH_MAX of Linux
_FLOAT = re.compile(r"-?\d+\.0")
_CHINESE = re.compile("[\u3400-\u9fff]")


def read(root: Path, columns: Mapping[FieldName, str] = {}) -> Iterator[Example]:
    """Every row of the set under `root`; `columns` names the column of a field where it is not the field's name.

    Without a column, `id` is the table's name and the row's number, `image_id` the image's path without extension,
    `language` zh where the question has Chinese characters, `answer_type` closed where the answer is yes or no,
    and what else there is "". Images that a row has together, and those of one patient, get one `group`.
    All bad tables and rows make one UserError, a line for each.
    """
    own = _Set(root, columns)
    shared = [(groups.keys(row), row.split) for row in own.rows()]
    group_of = groups.connected(keys for keys, _ in shared)
    tested = groups.for_test((group_of[keys[0]], split) for keys, split in shared)
    del shared
    for row in own.rows():
        group = group_of[groups.keys(row)[0]]
        split = "test" if group in tested and row.split in ("", "train") else row.split or "train"
        yield replace(row, split=split, group=group[1])


def images(root: Path, columns: Mapping[FieldName, str]) -> set[str]:
    """The paths of all images that the rows name, as they stand in `Example.images`."""
    return {image for row in _Set(root, columns).rows() for image in row.images}


def unpack(root: Path, columns: Mapping[FieldName, str]) -> None:
    """Write each image that stands inside a row to images/, its bytes as they are."""
    for _ in _Set(root, columns, unpack=True).rows():
        pass


def render(root: Path, columns: Mapping[FieldName, str], frames: FrameRule = FRAMES) -> None:
    """Write each image that other programs would not show as we do, DICOM and several frames, as a PNG in its place.

    The records are for training frameworks and browsers too. What cannot be rendered stays as it is, with a warning
    that names file and row: validation lists all bad images of the set at once.
    """
    first_rows: dict[str, str] = {}
    for row in _Set(root, columns).rows():
        for image in row.images:
            first_rows.setdefault(image, row.id)
    for image, row_id in sorted(first_rows.items()):
        if not os.path.isfile(root / image) or image.startswith(f"{RENDERED}/"):
            continue
        try:
            if needs_rendering(tables.original(root / image)):
                write_png(tables.original(root / image), root / _rendered(image), frames)
        except UserError as error:
            logger.warning("%s: %s", row_id, error)


@dataclass
class _Set:
    """The tables of the set under `root`; with `unpack`, images inside rows are written out as they are met."""

    root: Path
    columns: Mapping[FieldName, str]
    unpack: bool = False

    def rows(self) -> Iterator[Example]:
        """The rows as their tables state them; the split may be "". It may be asked for several times."""
        refusals = Refusals()
        for table in self._tables(refusals):
            with refusals.collecting():
                yield from replace(table, common=self._common).examples(refusals)
        refusals.end()

    def _tables(self, refusals: Refusals) -> list["_Table"]:
        splits: dict[Path, str] = {}
        for path in _tables(self.root):
            with refusals.collecting():
                splits[path] = stated_splits.of_table(path, self.root)
        named = any(splits.values())
        return [
            _Table(self.root, path, split, named, self.columns, self._images)
            for path, split in splits.items()
        ]

    @cached_property
    def _images(self) -> Images:
        return Images(self.root, self.unpack)

    @cached_property
    def _common(self) -> str:
        """The folder, with a slash, below which all images lie that the tables name by absolute paths; "" for none.

        Where it lies tells nothing of the images, and must decide nothing.
        """
        named = (image for table in self._tables(Refusals()) for image in table.absolute_images())
        folders = {os.path.dirname(image) for image in named}
        return os.path.join(os.path.commonpath(folders), "") if folders else ""


@dataclass
class _Table:
    """One table of the set under `root`; `split` is what it is named after, and `others_named` whether any is.

    `common` is the start of absolute paths that tells nothing of an image.
    """

    root: Path
    path: Path
    split: str
    others_named: bool
    columns: Mapping[FieldName, str]
    images: Images
    common: str = ""

    def absolute_images(self) -> Iterator[str]:
        """The absolute paths that its rows name; bad rows are passed over."""
        with suppress(UserError):
            for _, row in tables.read(self.path, Refusals()):
                with suppress(UserError):
                    for image in self._named(self._in_our_layout(row, "")):
                        # A longer one is the bytes of an image, in base64.
                        if isinstance(image, str) and os.path.isabs(image) and len(image) <= _LONGEST_PATH:
                            yield image

    def examples(self, refusals: Refusals) -> Iterator[Example]:
        """Its rows; bad ones go to `refusals`, and a UserError is about the whole of it."""
        only_floats = None
        for number, row in tables.read(self.path, refusals):
            where = f"{tables.original(self.path)}: row {number}"
            if number == 1:
                self._check_columns(row, where)
            with refusals.collecting():
                example = self._example(number, row, where)
                if example.answer:
                    only_floats = only_floats is not False and bool(_FLOAT.fullmatch(example.answer))
                yield example
        if only_floats:
            raise UserError(
                f"{tables.original(self.path)}: every answer is a whole number with .0, as pandas writes numbers and yes or "
                "no once a value is missing; write them as text again"
            )

    def _check_columns(self, row: Row, where: str) -> None:
        """What the first row lacks is a column that the table does not have."""
        self._known(self._in_our_layout(row, where), where)

    def _example(self, number: int, row: Row, where: str) -> Example:
        row = self._in_our_layout(row, where)
        known = self._known(row, where)
        if "messages" in row:
            said, named = messages.fields(row, where), self._named(row)
        else:
            named = self._named(row)
            try:
                said = _said(
                    known, choices.stated(row, self._used(), str(known["answer"])), len(named), where
                )
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
        if not named:
            raise UserError(f"{where}: names no image")
        folder = self.path.parent.relative_to(self.root).as_posix()
        paths = [self.images.path(image, where) for image in named]
        below = [path.removeprefix(self.common) for path in paths]
        split = stated_splits.of_row(optional(known, "split", where), self.split, below, where)
        if not split and self.others_named:
            raise UserError(
                f"{where}: no split, but other tables of the set are named after one; {stated_splits.STATE_SPLITS}"
            )
        prefix = "" if folder in (".", "data") else f"{self.path.parent.name}-"
        row_id = optional(known, "id", where) or f"{prefix}{self.path.stem}-{number}"
        places = [self.images.place(folder, path) for path in paths]
        example = _example(self.root, known, said, places, where)
        image_id = example.image_id.removeprefix(self.common)
        return replace(example, id=f"custom-{row_id}", split=split, image_id=image_id)

    def _named(self, row: Row) -> list[Any]:
        """The images of a row in our layout, as it names them."""
        image = row["images"] if "messages" in row else row.get(self.columns.get("image", "image"), "")
        return image if isinstance(image, list) else ["" if image is None else image]

    def _in_our_layout(self, row: Row, where: str) -> Row:
        if vlmevalkit.is_layout(row):
            return vlmevalkit.plain(row, self._shared_images if vlmevalkit.is_shared(row) else {})
        try:
            return dialogue_layouts.as_messages(self._naming.plain(row))
        except ValueError as error:
            raise UserError(f"{where}: {error}; read are {dialogue_layouts.READ}") from None

    @cached_property
    def _naming(self) -> dataset_info.Naming:
        return dataset_info.of_table(self.path)

    @cached_property
    def _shared_images(self) -> dict[str, str]:
        return vlmevalkit.names(tables.read(self.path, Refusals()))

    def _used(self) -> set[str]:
        """The columns that are a field."""
        return {self.columns.get(field, field) for field in tables.FIELDS}

    def _known(self, row: Row, where: str) -> Row:
        """The row's values by field; what is required is there, "" for a null."""
        required: tuple[FieldName, ...] = () if "messages" in row else _REQUIRED
        named: set[FieldName] = {*required, *self.columns}
        for field in sorted(named, key=tables.FIELDS.index):
            name = self.columns.get(field, field)
            if name not in row:
                raise UserError(
                    f"{where}: no column '{name}' for the {field} (there are: {shorten(', '.join(map(str, row)), 200)}); "
                    f"name it in the set's columns: {{{field}: ...}}; read are {dialogue_layouts.READ}"
                )
        known = {field: row.get(self.columns.get(field, field)) for field in tables.FIELDS}
        if "patient" not in self.columns and known["patient"] is None:
            known["patient"] = next((row[name] for name in _PATIENTS if row.get(name) is not None), None)
        return {
            **dict.fromkeys(required, ""),
            **{field: value for field, value in known.items() if value is not None},
        }


def _said(known: Row, offered: dict[str, str], images: int, where: str) -> DialogueFields:
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
    turns = (Exchange(lines(user), said["answer"], rationale),) if IMAGE_PLACEHOLDER in user else ()
    return {**said, "rationale": rationale, "turns": turns}


def _example(root: Path, known: Row, said: DialogueFields, places: list[str], where: str) -> Example:
    """The example without the id and the split, which depend on the table."""
    language = optional(known, "language", where) or ("zh" if _CHINESE.search(said["question"]) else "en")
    if language not in ("en", "zh"):
        raise UserError(f"{where}: language is {shown(language)}, neither en nor zh")
    stated = optional(known, "answer_type", where)
    first, *others = [
        _rendered(place) if os.path.isfile(root / _rendered(place)) else place for place in places
    ]
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
                found += inside if inside and stated_splits.of_name(folder.name, folder) else []
    if not found:
        raise UserError(
            f"{root}: no table here; looked for .csv, .tsv, .parquet, .jsonl, and .json with an array of rows or one a "
            "line, in data/ too"
        )
    return found


def _rendered(place: str) -> str:
    return f"{RENDERED}/{place.lstrip('/')}.png"
