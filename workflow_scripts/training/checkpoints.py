"""Unfinished training: where it is kept, and when it may be continued."""

import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError

logger = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"
MANIFEST = "contents.json"  # the last file of a checkpoint
STATE = "trainer_state.json"  # the trainer's own
KEPT = 2  # the newest ones; with validation, the best and the newest
HASHED_AT_ONCE = 8  # files: one of 100 GB would take two minutes, and shards of 5 GB together some seconds


@dataclass(frozen=True)
class SealedCheckpoint:
    """A checkpoint that was whole when it was saved; its `fingerprint` is of what it held, which another has not."""

    folder: Path
    step: int
    fingerprint: str

    def history(self) -> list[dict[str, Any]]:
        """What the trainer has logged up to `step`."""
        logged: list[dict[str, Any]] = files.read_value(self.folder / STATE, "log_history")
        return logged


def kept(folder: Path) -> list[SealedCheckpoint]:
    """The sealed checkpoints in `folder`, the oldest first. Their weights, which take minutes to read, are not looked at."""
    found = [(path, fingerprint(path)) for path in reversed(_newest_first(folder))]
    return [SealedCheckpoint(path, _step(path), known) for path, known in found if known]


def fingerprint(checkpoint: Path) -> str | None:
    """Of what the folder `checkpoint` holds; None where there is none that was sealed."""
    manifest = checkpoint / MANIFEST
    return files.sha256(manifest) if manifest.is_file() else None


def prepare(folder: Path, depends_on: dict[str, Any]) -> Path | None:
    """The newest whole checkpoint in `folder` to resume from, or None.

    `depends_on` is everything the result depends on: parameters, data, base model. Checkpoints of anything else
    are removed, so that a changed parameter never continues an old run.
    """
    if folder.is_dir() and not belong(folder, depends_on):
        before = _depended_on(folder)
        changed = [key for key in depends_on if before.get(key) != _plain(depends_on[key])]
        logger.info("starting afresh: %s changed since the checkpoints in %s", ", ".join(changed), folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FINGERPRINT, depends_on)
    for checkpoint in _newest_first(folder):
        if is_whole(checkpoint):
            logger.info("resuming from step %d", _step(checkpoint))
            return checkpoint
        logger.warning("%s is not whole; removed", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def belong(folder: Path, depends_on: dict[str, Any]) -> bool:
    """Whether the checkpoints in `folder` are of a training that depended on the same."""
    return bool(_depended_on(folder) == _plain(depends_on))


def _depended_on(folder: Path) -> dict[str, Any]:
    kept = folder / FINGERPRINT
    return files.read_object(kept) if kept.is_file() else {}


def _plain(value: Any) -> Any:
    """`value` as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, or None."""
    return next(filter(is_whole, _newest_first(folder)), None)


def discard(folder: Path) -> None:
    """Remove the checkpoints in `folder`."""
    for checkpoint in _newest_first(folder):
        shutil.rmtree(checkpoint)


def seal(checkpoint: Path) -> None:
    """Declare `checkpoint` whole: all that is in it is on the disk, and the manifest says what that is."""
    for file in _files(checkpoint):
        with open(file, "rb") as opened:
            os.fsync(opened)
    files.write_json(checkpoint / MANIFEST, _contents(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """Whether `checkpoint` was sealed and has not changed since."""
    try:
        return bool(files.read_json(checkpoint / MANIFEST) == _contents(checkpoint))
    except UserError:  # no manifest, or a part of one
        return False


def _contents(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of each file but the manifest."""
    found = _files(checkpoint)
    with ThreadPoolExecutor(HASHED_AT_ONCE) as threads:
        digests = list(threads.map(files.sha256, found))
    return {
        str(file.relative_to(checkpoint)): {"bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(found, digests, strict=True)
    }


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / MANIFEST)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
