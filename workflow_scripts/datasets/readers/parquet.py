"""The hub's layout: data/{split}-*.parquet with the images' bytes in the rows.

At download the images are unpacked into images/ beside data/, each named by its content; the rows then
refer to them there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.readers import embedded
from workflow_scripts.datasets.readers.fields import Row, closed_if_yes_or_no, dialogue, verbatim
from workflow_scripts.datasets.records import SPLITS, Example

PATTERN = "data/*.parquet"
_BATCH = 64  # rows, with their images, that are in memory at a time


def is_hub_layout(root: Path) -> bool:
    return any(root.glob(PATTERN))


def unpack_images(parquet: Path, folder: Path) -> None:
    """Write each distinct image to `folder`, its bytes as they are; those there already stay."""
    for number, row in read_rows(parquet, ["image"]):
        data, name = _image(row, f"{parquet}: row {number}")
        embedded.keep(data, folder / name)


def rows(parquet: Path) -> Iterator[tuple[str, str, str, str]]:
    """(split, name of the image's file, question, answer) of each row."""
    split = _split(parquet)
    for number, row in read_rows(parquet, ["image", "question", "answer"]):
        where = f"{parquet}: row {number}"
        _, name = _image(row, where)
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


def _image(row: Row, where: str) -> tuple[bytes, str]:
    """(the bytes of a row's image, the name of its file)."""
    try:
        data = embedded.image_bytes(row["image"])
        if data is None:
            raise ValueError("no bytes")
        return data, embedded.name(data)
    except ValueError as error:
        raise UserError(f"{where}: 'image' holds {error}; fetch the file again") from None
