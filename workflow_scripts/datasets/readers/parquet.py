"""The hub's layout: data/{split}-*.parquet with the images' bytes in the rows.

At download the images are unpacked into images/ beside data/, each named by its content; the rows then
refer to them there.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.files import replacing
from workflow_scripts.datasets.readers.fields import Row, closed_if_yes_or_no, dialogue, verbatim
from workflow_scripts.datasets.records import SPLITS, Example

PATTERN = "data/*.parquet"
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}
_BATCH = 64  # rows, with their images, that are in memory at a time


def is_hub_layout(root: Path) -> bool:
    return any(root.glob(PATTERN))


def unpack_images(parquet: Path, folder: Path, column: str = "image") -> None:
    """Write each distinct image of `column` to `folder`, its bytes as they are; those there already stay.

    A column of paths has nothing to unpack, nor has a file without the column.
    """
    with _opened(parquet) as file:
        if column not in file.schema_arrow.names:
            return
    for number, row in read_rows(parquet, [column]):
        where = f"{parquet}: row {number}"
        if isinstance(row[column], str | list):
            continue
        data = _image_bytes(row, column, where)
        target = folder / _name(data, where)
        if not target.exists():
            with replacing(target) as temporary:
                temporary.write_bytes(data)


def image_name(row: Row, column: str, where: str) -> str:
    """The name of the file to which `unpack_images` writes the image of a row."""
    return _name(_image_bytes(row, column, where), where)


def rows(parquet: Path) -> Iterator[tuple[str, str, str, str]]:
    """(split, name of the image's file, question, answer) of each row."""
    split = _split(parquet)
    for number, row in read_rows(parquet, ["image", "question", "answer"]):
        where = f"{parquet}: row {number}"
        name = image_name(row, "image", where)
        yield split, name, verbatim(row, "question", where), verbatim(row, "answer", where)


def examples(root: Path, source: str, splits: tuple[str, ...]) -> Iterator[Example]:
    """The rows of all files under `root`, split by split; each of `splits` must be there."""
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in sorted(root.glob(PATTERN)):
        files[_split(file)].append(file)
    missing = [split for split in splits if not files[split]]
    if missing:
        raise UserError(f"{root}: no data/{missing[0]}-*.parquet; fetch the set again")
    for split in SPLITS:
        stated = (row for file in files[split] for row in rows(file))
        for number, (_, name, question, answer) in enumerate(stated):
            said = dialogue(question, answer)
            yield Example(
                id=f"{source}-{split}-{number}",
                source=source,
                split=split,
                image=f"images/{name}",
                image_id=Path(name).stem,
                **said,
                answer_type=closed_if_yes_or_no(said["answer"]),
            )


def _split(parquet: Path) -> str:
    split = parquet.name.split("-")[0]
    if split not in SPLITS:
        raise UserError(f"{parquet}: the name should begin with one of {', '.join(SPLITS)} and a hyphen")
    return split


def read_rows(parquet: Path, columns: list[str] | None = None) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of these or all columns with flat memory; a bad file is a UserError."""
    with _opened(parquet) as file:
        absent = [column for column in columns or () if column not in file.schema_arrow.names]
        if absent:
            raise UserError(f"{parquet}: no column '{absent[0]}'; is this the set's own file?")
        number = 0
        for batch in file.iter_batches(_BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row


@contextmanager
def _opened(parquet: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(parquet) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{parquet}: not a readable parquet file ({error}); fetch it again") from None


def _image_bytes(row: Row, column: str, where: str) -> bytes:
    image = row[column]
    held = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(held, bytes):
        raise UserError(f"{where}: '{column}' holds no bytes; fetch the file again")
    return held


def _name(data: bytes, where: str) -> str:
    """The file name of an image: the first 16 digits of its SHA-256, and jpg or png by its first bytes."""
    for magic, extension in _MAGIC.items():
        if data.startswith(magic):
            return f"{hashlib.sha256(data).hexdigest()[:16]}.{extension}"
    raise UserError(f"{where}: 'image' is neither JPEG nor PNG; fetch the file again")
