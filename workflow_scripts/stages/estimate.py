"""What a run would need and take, and the settings that fit: from published shapes and counts, before any download."""

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.settings import Config
from workflow_scripts.models import shapes
from workflow_scripts.training.estimation import candidates, presentation, sets, speed

logger = logging.getLogger(__name__)


def command(
    settings: Config,
    layout: Layout,
    run: Run,
    memory: float,
    gpus: int | None = None,
    rate: float | None = None,
    method: str | None = None,
    as_json: bool = False,
    write: Path | None = None,
) -> dict[str, Any]:
    """Print the estimate for GPUs of `memory` bytes; write the settings of what fits to `write`.

    Exactly `gpus` where stated. A UserError where settings are to be written and nothing fits.
    """
    settings.checkpoint(run.model_version, run.mode)  # a UserError for an unknown one
    own = runs.settings_of(settings, run)
    sft = own.sft
    shape = shapes.published(run.model_version)
    rows = sets.of_run(settings, layout, run, shape)
    rate = rate or speed.H200
    found = candidates.tried(shape, sft, rows, memory, _counts(own, gpus))
    best = candidates.recommended(found, method or sft.method)
    overlay = candidates.overlay(shape, best, memory) if best else {}
    told = presentation.as_json(shape, rows, found, best, rate, overlay)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        title = f"{run}: an estimate; nothing was downloaded"
        print(presentation.table(title, shape, rows, found, best, memory, rate, overlay))
    if write:
        if not best:
            raise UserError(
                f"{write}: not written, nothing fits; see the table, and take larger --gpu or more --gpus"
            )
        files.write_text(
            write,
            f"# {run}, {best.name}, by `python -m workflow_scripts.estimate`.\n"
            + yaml.safe_dump(overlay, sort_keys=False),
        )
        logger.info("written: %s", write)
    return told


def _counts(settings: Config, gpus: int | None) -> list[int]:
    """The numbers of GPUs that both trainings' batches can be divided among; a UserError where `gpus` is none of them."""
    sizes = settings.sft.batch_size, settings.dpo.batch_size
    if gpus and any(size % gpus for size in sizes):
        raise UserError(
            f"--gpus {gpus}: sft.batch_size ({sizes[0]}) and dpo.batch_size ({sizes[1]}) are to be multiples of it"
        )
    return (
        [gpus] if gpus else [count for count in candidates.COUNTS if not any(size % count for size in sizes)]
    )
