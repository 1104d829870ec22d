"""Unfinished training: where it is kept, and when it may be continued."""

import json
import logging
import shutil
from pathlib import Path

from workflow_scripts import files

logger = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"


def prepare(folder: Path, depends_on: dict) -> Path | None:
    """The newest whole checkpoint in `folder` to resume from, or None.

    `depends_on` is everything the result depends on: parameters, data, base model. Checkpoints of anything else
    are removed, so that a changed parameter never continues an old run.
    """
    if folder.is_dir():
        kept = folder / FINGERPRINT
        before = files.read_json(kept) if kept.is_file() else None
        if before != json.loads(json.dumps(depends_on)):
            changed = [key for key in depends_on if not before or before.get(key) != depends_on[key]]
            logger.info("starting afresh: %s changed since the checkpoints in %s", ", ".join(changed), folder)
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FINGERPRINT, depends_on)
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        if (checkpoint / "trainer_state.json").is_file():
            logger.info("resuming from step %d", _step(checkpoint))
            return checkpoint
        logger.warning("%s is not whole; removed", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
