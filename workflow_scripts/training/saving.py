"""How long a checkpoint takes to save: measured each time, and guessed before the first."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.training import parts

MEASURED = "saving.json"  # beside the checkpoints
BYTES_PER_SECOND = 200e6  # of a shared disk at a bad hour
WEIGHT_BYTES, MOMENT_BYTES = 4, 8  # of a number in a checkpoint, and of Adam's moments of one that is trained


@contextmanager
def measured(folder: Path, keeps: bool) -> Iterator[None]:
    """Keep in `folder` how many seconds the block took, where this process `keeps` it."""
    started = time.monotonic()
    yield
    if keeps:
        files.write_json(folder / MEASURED, {"seconds": time.monotonic() - started})


def last_seconds(folder: Path) -> float | None:
    """What the last save into `folder` took; None before the first."""
    try:
        return float(files.read_value(folder / MEASURED, "seconds"))
    except (UserError, TypeError, ValueError):
        return None


def guessed_seconds(model: torch.nn.Module) -> float:
    """What a checkpoint of `model` may take: of an adapter what is trained is saved, else all weights."""
    numbers = [(parts.size(value), value.requires_grad) for value in model.parameters()]
    trained = sum(size for size, trains in numbers if trains)
    saved = trained if isinstance(model, PeftModel) else sum(size for size, _ in numbers)
    return (WEIGHT_BYTES * saved + MOMENT_BYTES * trained) / BYTES_PER_SECOND
