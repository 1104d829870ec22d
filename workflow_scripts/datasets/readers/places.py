"""Where the images of a user's own set lie: beside its table, in images/, absolute, or inside the rows."""

import re
from functools import cache
from pathlib import Path, PurePosixPath

from workflow_scripts.base.errors import UserError, shown
from workflow_scripts.datasets.readers import embedded
from workflow_scripts.datasets.readers.fields import verbatim
from workflow_scripts.datasets.readers.file_names import Folder

IMAGES = "images"  # the folder of unpacked images, or of those that the user keeps apart
_LONGEST = 255  # bytes of a name, which file systems have in common
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ELSEWHERE = re.compile(r"[A-Za-z]:[/\\]|\\\\|//")  # a Windows drive or share


class Images:
    """The images below `root`; with `unpack`, those inside rows are written to images/ as they are met."""

    def __init__(self, root: Path, unpack: bool = False) -> None:
        self._root, self._unpack = root, unpack
        self._folder = Folder(root)
        self.place = cache(self._place)

    def path(self, image: object, where: str) -> str:
        """The path that a row gives of an image, relative or absolute; of one inside the row its file's name."""
        try:
            if (data := embedded.image_bytes(image)) is not None:
                return self._kept(data)
        except ValueError as error:
            raise UserError(f"{where}: image holds {error}; correct the row") from None
        if isinstance(image, dict):
            image = image.get("path") or image.get("url")
        path = verbatim({"image": image}, "image", where).strip()
        if _URL.match(path):
            raise UserError(
                f"{where}: image is the address {shown(path)}; fetch it yourself and give its path"
            )
        if _ELSEWHERE.match(path):
            raise UserError(
                f"{where}: image is {shown(path)}, on a drive of Windows; give a path below the table's folder"
            )
        path = path.replace("\\", "/")
        parts = PurePosixPath(path).parts
        if not path or "\0" in path or any(part == ".." or len(part.encode()) > _LONGEST for part in parts):
            raise UserError(
                f"{where}: image is {shown(path)}; give a path below the table's folder, or an absolute one"
            )
        return path

    def _kept(self, data: bytes) -> str:
        name = embedded.name(data)
        if self._unpack:
            embedded.keep(data, self._root / IMAGES / name)
        return name

    def _place(self, folder: str, path: str) -> str:
        """`path` relative to the root: below the table's `folder`, images/, images/ in the folder or, for a table in
        the folder of its split, the set's own, whichever has it."""
        homes = [folder, IMAGES, f"{folder}/{IMAGES}", *([] if folder in (".", "data") else ["."])]
        places = [PurePosixPath(home, path).as_posix() for home in homes]
        return next((found for place in places if (found := self._folder.find(place))), places[0])
