"""A finished training, and how one that depended on the same is recognised: it is not done again."""

import logging
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import METRICS

logger = logging.getLogger(__name__)

# What METRICS says, and the digests of all other files. No output of Snakemake, which deletes those before a job, and
# after one that failed or was killed.
RECORD = "training.json"


def seal(folder: Path, depends_on: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Declare the model in `folder` finished: write RECORD and METRICS; returns `metrics` with their fingerprint.

    `depends_on` is everything that the result depends on. What was written goes into the fingerprint too: other GPUs
    come to other weights by the same settings.
    """
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): files.sha256(path) for path in written}
    metrics = metrics | {"fingerprint": _fingerprint(depends_on, digests)}
    files.write_json(folder / RECORD, {"metrics": metrics, "files": digests})
    files.write_json(folder / METRICS, metrics)
    return metrics


def metrics(folder: Path, depends_on: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of the training in `folder`, if it depended on the same and all of its files are as it wrote them.

    Writes METRICS again, which may be gone, or older than what the training read.
    """
    try:
        record = files.read_json(folder / RECORD)
    except UserError:  # none, or a part of one
        return None
    found: dict[str, Any] = record["metrics"]
    if found["fingerprint"] != _fingerprint(depends_on, record["files"]):
        return None
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or files.sha256(folder / name) != digest:
            logger.warning("%s: missing, or not as the training wrote it; training again", folder / name)
            return None
    logger.info(
        "%s: trained already, by the same settings, data and base model; not trained again. "
        "Remove the folder to train it anew",
        folder,
    )
    files.write_json(folder / METRICS, found)
    return found


def _fingerprint(depends_on: dict[str, Any], digests: dict[str, str]) -> str:
    weights = [digests[name] for name in sorted(digests) if name.endswith(".safetensors")]
    return files.fingerprint([files.fingerprint(depends_on), weights])
