"""Supervised fine-tuning of a model on the train records: `results/sft/{run}/`."""

from pathlib import Path
from typing import Any

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Sft
from workflow_scripts.stages import recorded_training
from workflow_scripts.training.run import Task
from workflow_scripts.training.trainers import sft


def task(settings: Config, layout: Layout, run: Run, base_model: Path) -> Task[Sft]:
    """The training of `base_model` on the train records of `run`."""
    return recorded_training.task(
        settings,
        layout,
        run,
        sft.objective(settings.sft.loss_weights),
        settings.sft,
        base_model,
        data=layout.split(run, "train"),
        validation_data=layout.split(run, "validation"),
    )


def overfit(settings: Config, layout: Layout, run: Run, base_model: Path, steps: int) -> dict[str, Any]:
    """Let the training of `run` learn its first batch by heart; a UserError where it does not within `steps`."""
    return recorded_training.overfit(settings, layout, run, task(settings, layout, run, base_model), steps)


def stage(settings: Config, layout: Layout, run: Run, base_model: Path) -> dict[str, Any]:
    """Train and write the model or adapter of `run`; returns its metrics."""
    return recorded_training.train(settings, layout, run, task(settings, layout, run, base_model))
