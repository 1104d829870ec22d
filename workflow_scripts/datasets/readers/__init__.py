"""Readers of raw sets: every row of a set as an `Example`, in the order of its files.

Each reader takes the folder that the set was downloaded to and knows the original layout and the hub's.
Rows that do not suit training are yielded too; whether an image is there is for whoever opens it to see.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from workflow_scripts.datasets.readers.tables import FieldName
from workflow_scripts.datasets.records import Example

Name = Literal["slake", "rad", "pathvqa", "custom"]  # each a module of this folder with `read`
NAMES: tuple[Name, ...] = get_args(Name)


def _read(name: str, root: Path, **options: Any) -> Iterator[Example]:
    examples: Iterator[Example] = import_module(f"{__name__}.{name}").read(Path(root), **options)
    return examples


READERS: dict[str, Callable[..., Iterator[Example]]] = {name: partial(_read, name) for name in NAMES}


def read(reader: str, root: Path, source: str, columns: Mapping[FieldName, str]) -> Iterator[Example]:
    """The rows of the set under `root` as those of `source`, the name that it has in the configuration.

    `columns` is for the reader `custom`.
    """
    options = {"columns": columns} if reader == "custom" else {}
    for example in READERS[reader](root, **options):
        # A reader names rows after itself, but several sets may have one format.
        yield replace(example, source=source, id=source + example.id.removeprefix(reader))


def knowledge(reader: str, root: Path) -> Iterator[dict[str, str]]:
    """The knowledge graph that comes with the set under `root`, as rows; most sets have none."""
    if reader == "slake":
        from workflow_scripts.datasets.readers import slake

        yield from slake.knowledge(Path(root))
