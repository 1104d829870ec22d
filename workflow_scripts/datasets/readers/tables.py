"""Rows of a user's own tables: .jsonl, .csv and .tsv (UTF-8), .parquet. What is text in the file stays text."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import read_jsonl
from workflow_scripts.datasets.readers import parquet
from workflow_scripts.datasets.readers.fields import Row

# What a column can say of a row.
FieldName = Literal[
    "image", "question", "answer", "split", "id", "image_id", "patient", "language", "answer_type", "question_type",
    "modality", "organ", "rationale",
]  # fmt: skip
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
_DELIMITERS = ",;\t"


def find(root: Path) -> list[Path]:
    """The tables in `root` and in data/ below it, sorted by name."""
    found = [
        path
        for folder in (root, root / "data")
        for path in folder.glob("*")
        if path.suffix.lower() in _READERS
    ]
    return sorted(path for path in found if not path.name.startswith("."))


def read(path: Path) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) with flat memory; a bad file or row is a UserError."""
    return _READERS[path.suffix.lower()](original(path))


def original(path: Path) -> Path:
    """The user's own file behind a link of the same name, which a message should speak of."""
    target = path.resolve()
    return target if target.name == path.name else path


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(read_jsonl(path), start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is not an object with keys")
        yield number, row


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, delimiter=max(_DELIMITERS, key=head.count), strict=True)
            for number, row in enumerate(rows, start=1):
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}: row {number} has another number of fields than the {len(rows.fieldnames or ())} of the "
                        "first line; put text with a delimiter in it between double quotes"
                    )
                yield number, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a readable table ({error})") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": parquet.read_rows,
}
