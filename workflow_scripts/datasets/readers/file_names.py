"""File names as tables state them and as they lie on the disk: one name may be composed (NFC) or decomposed (NFD)."""

import unicodedata
from functools import cache
from pathlib import Path, PurePosixPath


class Folder:
    """The files below `root`, found by any spelling of their names in Unicode."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = cache(self._names_in)

    def find(self, path: str) -> str | None:
        """`path`, relative to the folder or absolute, as it lies there; None where no such file is."""
        if (self._root / path).is_file():
            return path
        if path.isascii():
            return None
        found = PurePosixPath()
        for part in PurePosixPath(path).parts:
            there = (self._root / found / part).exists()
            name = part if there else self._names(found).get(unicodedata.normalize("NFC", part))
            if name is None:
                return None
            found /= name
        return found.as_posix() if (self._root / found).is_file() else None

    def _names_in(self, folder: PurePosixPath) -> dict[str, str]:
        """The names in a folder by their composed form; two files of one name are each found by its own spelling."""
        place = self._root / folder
        names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        return {unicodedata.normalize("NFC", name): name for name in names}
