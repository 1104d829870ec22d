"""VQA-RAD: the public set as JSON, XML or Excel with its image folder, the MEVF variant, or the hub's parquet files.

The set has no validation split. `answer_type` is the file's own; the parquet files state none, and there
a closed question is one that is answered yes or no. The two definitions disagree on 21 test rows.
The first of the public files that is there is read; the three hold the same records. The variant, which MEVF and its
successors train on, has its own question numbers and 1,267 more train rows, of the phrase type `frame`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import shorten

from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.base.files import read_json
from workflow_scripts.datasets.readers import parquet, sheets
from workflow_scripts.datasets.readers.fields import (
    Row,
    dialogue,
    objects,
    open_or_closed,
    optional,
    text,
    tidy,
    verbatim,
)
from workflow_scripts.datasets.readers.refusals import Refusals
from workflow_scripts.datasets.records import Example

_PUBLIC = "VQA_RAD Dataset Public"
_IMAGES = "VQA_RAD Image Folder"
_MEVF = "data_RAD"
_MEVF_SPLITS = {"train": "trainset.json", "test": "testset.json"}
QUESTION_TYPES = (
    "ABN", "ATTRIB", "COLOR", "COUNT", "MODALITY", "ORGAN", "OTHER", "PLANE", "POS", "PRES", "SIZE"
)  # fmt: skip
_MISSPELT = {"ATRIB": "ATTRIB", "PRSE": "PRES"}
_ANNOTATIONS = (
    "qid_linked_id", "phrase_type", "question_rephrase", "question_relation", "question_frame", "evaluation",
    "image_case_url",
)  # fmt: skip
# The sheet's own column names.
_COLUMNS = {
    "QID_unique": "qid", "QID_para": "phrase_type", "QID_linked": "qid_linked_id",
    "IMAGEID_case": "image_case_url", "IMAGEID": "image_name", "IMAGEORGAN": "image_organ",
    "EVALUATION": "evaluation", "QUESTION": "question", "Q_REPHASE": "question_rephrase",
    "Q_RELATION": "question_relation", "Q_FRAMED": "question_frame", "Q_TYPE": "question_type",
    "ANSWER": "answer", "A_TYPE": "answer_type",
}  # fmt: skip
# JSON and XML lost the apostrophe of "it’s", which the sheet still has.
_LOST_APOSTROPHE = re.compile(r"(?<=\w)\ufffd(?=s\b)")


def read(root: Path) -> Iterator[Example]:
    """Every row of the set under `root`; missing files and bad rows make one UserError."""
    path = next((path for suffix in _READERS if (path := root / f"{_PUBLIC}{suffix}").exists()), None)
    mevf = next((home for home in (root, root / _MEVF) if (home / _MEVF_SPLITS["train"]).exists()), None)
    if path:
        refusals = Refusals()
        for number, row in enumerate(_READERS[path.suffix](path), start=1):
            where = f"{path}: row {number}"
            with refusals.collecting():
                split = "test" if text(row, "phrase_type", where).startswith("test_") else "train"
                yield _example(row, "rad", split, _IMAGES, where)
        refusals.end()
    elif mevf:
        yield from _mevf(root, mevf)
    elif parquet.is_hub_layout(root):
        yield from parquet.examples(root, "rad", ("train", "test"))
    else:
        looked_for = ", ".join(f"'{_PUBLIC}{suffix}'" for suffix in _READERS)
        raise UserError(
            f"{root}: no VQA-RAD here; looked for {looked_for}, {_MEVF}/trainset.json and {parquet.PATTERN}"
        )


def _mevf(root: Path, home: Path) -> Iterator[Example]:
    images = next(
        (folder for folder in (home / "images", root / _IMAGES) if folder.is_dir()), home / "images"
    )
    folder, refusals = images.relative_to(root).as_posix(), Refusals()
    for split, name in _MEVF_SPLITS.items():
        path = home / name
        with refusals.collecting():
            for number, row in enumerate(objects(read_json(path), path), start=1):
                with refusals.collecting():
                    yield _example(row, "rad-mevf", split, folder, f"{path}: row {number}")
    refusals.end()


def _json(path: Path) -> list[Row]:
    return objects(read_json(path), path)


def _xml(path: Path) -> Iterator[Row]:
    for element in sheets.xml(path):
        yield {field.tag: field.text or "" for field in element}


def _xlsx(path: Path) -> Iterator[Row]:
    for row in sheets.xlsx(path):
        row = {_COLUMNS.get(name, name): value for name, value in row.items()}
        # The sheet links to the image.
        yield row | {"image_name": str(row.get("image_name", "")).rsplit("/", 1)[-1]}


_READERS: dict[str, Callable[[Path], Iterable[Row]]] = {".json": _json, ".xml": _xml, ".xlsx": _xlsx}


def _example(row: Row, prefix: str, split: str, images: str, where: str) -> Example:
    name = text(row, "image_name", where)
    facts = {key: _mended(optional(row, key, where)) for key in _ANNOTATIONS}
    return Example(
        id=f"{prefix}-{text(row, 'qid', where)}",
        source="rad",
        split=split,
        image=f"{images}/{name}",
        image_id=Path(name).stem,
        **dialogue(verbatim(row, "question", where), verbatim(row, "answer", where), _mended),
        answer_type=open_or_closed(row, where),
        question_type=_question_type(optional(row, "question_type", where), where),
        organ=optional(row, "image_organ", where),
        facts={key: fact for key, fact in facts.items() if fact},
        linked_id=facts["qid_linked_id"],
    )


def _mended(text: str) -> str:
    return _LOST_APOSTROPHE.sub("’", tidy(text))


def _question_type(stated: str, where: str) -> str:
    """One or several of QUESTION_TYPES, in alphabetical order: "POS, PRES"; the files spell them in 26 ways."""
    types = {_MISSPELT.get(name, name) for name in stated.upper().replace(" ", "").split(",") if name}
    if unknown := types - set(QUESTION_TYPES):
        raise UserError(
            f"{where}: 'question_type' is {shown(stated)}; {shorten(', '.join(sorted(unknown)), 100)} is none of "
            f"{', '.join(QUESTION_TYPES)}; correct the row or fetch the file again"
        )
    return ", ".join(sorted(types))
