"""Readers of raw sets: every row of a set as an `Example`, in the order of its files.

Each reader takes the folder that the set was downloaded to and knows the original layout and the hub's.
Rows that do not suit training are yielded too; whether an image is there is for whoever opens it to see.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from workflow_scripts.datasets.records import Example


def _read(name: str, root: Path) -> Iterator[Example]:
    return import_module(f"{__name__}.{name}").read(Path(root))


READERS: dict[str, Callable[[Path], Iterator[Example]]] = {
    name: partial(_read, name) for name in ("slake", "rad", "pathvqa")
}
