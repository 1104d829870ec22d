"""What all processes of a training need and one of them makes: rows of tokens, digests of images."""

from collections.abc import Callable, Collection
from pathlib import Path

from datasets import Dataset, load_from_disk
from huggingface_hub.utils import WeakFileLock

from workflow_scripts.base import files
from workflow_scripts.base.processes import processes


class Shared:
    """Things in `folder`, which all processes reach; a process that is alone keeps nothing there.

    The first that asks makes a thing, the others wait and read it. `key` is what all of them depend on.
    """

    def __init__(self, folder: Path, key: object) -> None:
        self.folder, self.key = folder, key

    def rows(self, source: Path, read: Callable[[], Dataset]) -> Dataset:
        """The rows that `read` makes of the file `source`."""
        if processes().count == 1:
            return read()

        def make(path: Path) -> None:
            with files.replacing_folder(path) as temporary:
                read().save_to_disk(temporary)

        found = load_from_disk(self._made(["rows", source.name, files.sha256(source)], make))
        assert isinstance(found, Dataset)
        return found

    def digests(self, images: Collection[str]) -> dict[str, str]:
        """The SHA-256 of each image by its path; one that was written since is hashed again."""

        def hashed() -> dict[str, str]:
            return {image: files.sha256(Path(image)) for image in images}

        if processes().count == 1:
            return hashed()
        states = [Path(image).stat() for image in images]
        written = [(state.st_size, state.st_mtime_ns) for state in states]
        found: dict[str, str] = files.read_json(
            self._made(["digests", list(images), written], lambda path: files.write_json(path, hashed()))
        )
        return found

    def _made(self, thing: list[object], make: Callable[[Path], None]) -> Path:
        path = self.folder / files.fingerprint([*thing, self.key])
        self.folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.folder / f"{path.name}.lock"):
            if not path.exists():
                make(path)
        return path
