"""File names as tables state them and as they lie on the disk.

One name may be composed (NFC) or decomposed (NFD), and programs change the letter case of extensions: .JPG, .jpg.
"""

import os
import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path, PurePosixPath


class Folder:
    """The files below `root`, found by any spelling of their names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = cache(self._names_in)

    def find(self, path: str) -> str | None:
        """`path`, relative to the folder or absolute, as it lies there; None where no such file is.

        A name that several files have in other spellings is none of them.
        """
        if os.path.isfile(self._root / path):  # False too for what can be no name
            return path
        found = PurePosixPath()
        for part in PurePosixPath(path).parts:
            there = os.path.exists(self._root / found / part)
            names = [part] if there else self._names(found).get(_plain(part), [])
            if len(names) != 1:
                return None
            found /= names[0]
        return found.as_posix() if os.path.isfile(self._root / found) else None

    def _names_in(self, folder: PurePosixPath) -> dict[str, list[str]]:
        """The names in a folder by their plain form."""
        place = self._root / folder
        names: dict[str, list[str]] = defaultdict(list)
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            names[_plain(path.name)].append(path.name)
        return names


def _plain(name: str) -> str:
    """The name composed, its extension in small letters."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    return path.with_suffix(path.suffix.lower()).name if path.suffix else path.name
