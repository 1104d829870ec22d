"""Rows of a user's own tables: JSON, JSONL, CSV, TSV and Parquet. What is text in the file stays text."""

import csv
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from workflow_scripts.base import files, text_files
from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.readers import parquet
from workflow_scripts.datasets.readers.fields import Row
from workflow_scripts.datasets.readers.refusals import Refusals

# What a column can say of a row.
FieldName = Literal[
    "image", "question", "answer", "split", "id", "image_id", "patient", "language", "answer_type", "question_type",
    "modality", "organ", "rationale",
]  # fmt: skip
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
_DELIMITERS = ",;\t"
csv.field_size_limit(2**30)  # a cell may hold an image


def find(root: Path) -> list[Path]:
    """The tables in `root` and in data/ below it, sorted by name.

    A JSON file is one where it holds several objects: others, such as dataset_info.json, describe sets.
    """
    found = [
        path
        for folder in (root, root / "data")
        for path in folder.glob("*")
        if path.suffix.lower() in _READERS and not path.name.startswith(".")
    ]
    return sorted(path for path in found if path.suffix.lower() != ".json" or _holds_rows(path))


def read(path: Path, refusals: Refusals) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) with flat memory, but for a JSON array; column names without space around them.

    A bad row goes to `refusals`; a file that cannot be read is a UserError.
    """
    path = original(path)
    for number, row in _READERS[path.suffix.lower()](path, refusals):
        with refusals.collecting():
            yield number, _object(row, f"{path}: row {number}")


def original(path: Path) -> Path:
    """The user's own file behind a link of the same name, which a message should speak of."""
    target = path.resolve()
    return target if target.name == path.name else path


def _object(row: object, where: str) -> Row:
    """`row` with tidy names; pandas' NaN is a missing value."""
    if not isinstance(row, dict):
        raise UserError(f"{where} is not an object with keys")
    names = _distinct((str(name).strip() for name in row), where)
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in zip(names, row.values(), strict=True)
    }


def _distinct(names: Iterable[str], where: str) -> list[str]:
    found = list(names)
    if repeated := {name for name in found if name and found.count(name) > 1}:
        raise UserError(f"{where}: several columns are called {shown(min(repeated))}; rename all but one")
    return found


def _holds_rows(path: Path) -> bool:
    """Whether it is an array of objects, or has one on each of its first two lines."""
    if files.holds_array(path):
        return True
    head = [line.strip() for _, line in itertools.islice(files.lines(path), 2)]
    return len(head) == 2 and all(line.startswith("{") for line in head) and head[0].endswith("}")


def _json(path: Path, refusals: Refusals) -> Iterator[tuple[int, Any]]:
    """An array of rows, or one row a line, whichever the extension promises."""
    for row, (number, value) in enumerate(files.json_values(path), start=1):
        with refusals.collecting():
            if isinstance(value, ValueError):
                raise UserError(f"{path}:{number}: not a JSON object ({value})")
            yield row, value


def _csv(path: Path, refusals: Refusals) -> Iterator[tuple[int, Row]]:
    try:
        with text_files.opened(path, newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, delimiter=max(_DELIMITERS, key=head.count), strict=True)
            names = _distinct((name.strip() for name in rows.fieldnames or ()), str(path))
            for number, row in enumerate(rows, start=1):
                with refusals.collecting():
                    if None in row or None in row.values():
                        raise UserError(
                            f"{path}: row {number} has another number of fields than the {len(names)} of the first "
                            "line; put text with a delimiter in it between double quotes"
                        )
                    yield number, row
    except csv.Error as error:
        raise UserError(f"{path}: not a readable table ({error})") from None


def _parquet(path: Path, refusals: Refusals) -> Iterator[tuple[int, Row]]:
    return parquet.read_rows(path)


_READERS: dict[str, Callable[[Path, Refusals], Iterator[tuple[int, Any]]]] = {
    ".json": _json,
    ".jsonl": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
