"""Copies of large files on the disk of the node itself, shared by its jobs: read once over the network, then from here.

Where MEDVQA_SCRATCH names a folder (`cluster.scratch`), `near` gives a copy below it. Jobs of a node agree by flock, which
local disks keep and which ends with its process however that ends: whoever copies holds it alone, whoever reads shares it.
The last one to end removes the copy; what killed jobs have left, the next job removes.
"""

import atexit
import errno
import fcntl
import logging
import os
import random
import shutil
import time
from contextlib import suppress
from functools import cache
from io import TextIOWrapper
from pathlib import Path

from workflow_scripts.base import files

logger = logging.getLogger(__name__)

VARIABLE = "MEDVQA_SCRATCH"
SPARE = 0.05  # of the disk, which is left to others
_held: dict[Path, TextIOWrapper] = {}  # the locks of the copies that this process reads


def near(path: Path) -> Path:
    """A copy of the file or folder at `path` on the node's own disk; `path` where there is none, or no room on it."""
    named = os.environ.get(VARIABLE)
    return _copy_of(path, named) if named else path


@cache
def _copy_of(path: Path, named: str) -> Path:
    folder = Path(os.path.expandvars(named)) / f"medvqa-{os.getuid()}"
    try:
        if "$" in str(folder):
            raise OSError(errno.ENOENT, "it is not set on this node")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (
            folder.lstat().st_uid != os.getuid()
        ):  # in /tmp anybody may have been here first, with weights of his own
            raise OSError(errno.EPERM, f"{folder.name} belongs to another user")
        atexit.register(_leave, folder)
        _sweep(folder)
        return _shared(path, folder / files.fingerprint([str(path.resolve()), *_contents(path)]))
    except OSError as error:
        logger.warning("%s: read where it lies; no copy in %s: %s", path, named, error.strerror or error)
        return path


def _contents(path: Path) -> list[str]:
    """What tells a copy from one of other content: each file with its size and time."""
    stats = [(file.relative_to(path.parent), file.stat()) for file in _files(path)]
    return [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]


def _files(path: Path) -> list[Path]:
    return sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]


def _shared(path: Path, copy: Path) -> Path:
    """The copy in the folder `copy`, made if it is not there, and locked against removal until this process ends."""
    lock = open(_lock_of(copy), "a", encoding="utf-8")  # noqa: SIM115 - open as long as it is held
    try:
        while not _readable(copy, lock):
            if _alone(lock):
                _make(path, copy)
            else:
                time.sleep(random.uniform(0.1, 0.3))
    except BaseException:
        lock.close()
        raise
    _held[copy] = lock
    return copy / path.name


def _readable(copy: Path, lock: TextIOWrapper) -> bool:
    """Whether the copy is there, now locked against removal; who is copying is waited for."""
    fcntl.flock(lock, fcntl.LOCK_SH)
    return copy.is_dir()


def _alone(lock: TextIOWrapper) -> bool:
    """Whether this process holds the lock, and no other one reads or copies."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(path: Path, copy: Path) -> None:
    part = _part_of(copy)
    shutil.rmtree(part, ignore_errors=True)
    size = sum(file.stat().st_size for file in _files(path))
    disk = shutil.disk_usage(copy.parent)
    if disk.free - size < SPARE * disk.total:
        raise OSError(errno.ENOSPC, f"{disk.free / 1e9:.1f} GB are free, and it has {size / 1e9:.1f} GB")
    logger.info("%s: copied to %s", path, copy.parent)
    try:
        part.mkdir()
        if path.is_dir():
            shutil.copytree(path, part / path.name)
        else:
            shutil.copy2(path, part / path.name)
        part.rename(copy)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _lock_of(copy: Path) -> Path:
    """It stays when the copy goes: another job may be about to lock it."""
    return copy.with_name(f"{copy.name}.lock")


def _part_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.part")


def _leave(folder: Path) -> None:
    while _held:
        _held.popitem()[1].close()
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove the copies that nobody reads."""
    for path in folder.glob("*.lock"):
        copy = path.with_suffix("")
        if copy in _held:
            continue
        with suppress(OSError), open(path, "a", encoding="utf-8") as lock:
            for left in (copy, _part_of(copy)) if _alone(lock) else ():
                shutil.rmtree(left, ignore_errors=True)
