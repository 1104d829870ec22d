"""What sft and dpo have in common: from the command and the configuration to a training task, and its record."""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow_scripts import tracking
from workflow_scripts.base import files, locks
from workflow_scripts.base.paths import METRICS, Layout, Run
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration import dependencies
from workflow_scripts.configuration.settings import Config
from workflow_scripts.training import launch
from workflow_scripts.training import overfit as self_test
from workflow_scripts.training import run as training
from workflow_scripts.training.memory import Settings
from workflow_scripts.training.run import Task
from workflow_scripts.training.trainers.objective import Objective

# Of metrics.json, what is no number of the whole training, or is a curve already, whose last point says the same.
NO_METRICS = ("curve", "version", "made", "seconds", "image_reuse")


def task(
    settings: Config,
    layout: Layout,
    run: Run,
    objective: Objective[Settings],
    own: Settings,
    base_model: Path,
    data: Path,
    validation_data: Path | None = None,
) -> Task[Settings]:
    """The training of `run` by the stage's `own` settings; what the rest of the configuration means for it."""
    name = objective.name
    recipe = dependencies.stage_settings(settings, name)
    recipe[name]["learning_rate"] = own.rate.value
    return Task(
        objective=objective,
        settings=own,
        recipe=recipe,
        run=str(run),
        model_version=run.model_version,
        mode=run.mode,
        seed=settings.seed,
        max_image_side=settings.data.max_image_side,
        frames=settings.data.frames,
        max_tokens=settings.data.max_tokens,
        base_model=base_model,
        data=data,
        validation_data=validation_data,
        trained=layout.trained(name, run),
        unfinished=layout.checkpoints(name, run),
        features=layout.features(),
    )


def command(
    name: str,
    stage: Callable[[Config, Layout, Run, Path], dict[str, Any]],
    options: argparse.Namespace,
    base_model: Path,
    arguments: list[str],
) -> int:
    """Run the `stage` of the command `name` by its `options`, of `flags.training_options`; returns the exit status.

    In this process, or in one per GPU, which are given the same `arguments`.
    """
    settings, layout, run = options.settings, options.layout, options.run
    return launch.launch_or_run(
        f"workflow_scripts.{name}",
        arguments,
        getattr(settings, name),
        layout.checkpoints(name, run),
        lambda: stage(settings, layout, run, base_model),
    )


def overfit(settings: Config, layout: Layout, run: Run, task: Task[Settings], steps: int) -> dict[str, Any]:
    """Let `task` learn one batch by heart, as a self-test, and leave nothing of it; returns what it took."""
    place = layout.overfit(task.objective.name, run)
    with locks.one_writer(place, settings.output_in_use):
        try:
            return self_test.overfit(
                replace(task, trained=place / "trained", unfinished=place / "unfinished"), steps
            )
        finally:
            if processes().rank == 0:
                shutil.rmtree(place, ignore_errors=True)


def train(settings: Config, layout: Layout, run: Run, task: Task[Settings]) -> dict[str, Any]:
    """Train, recorded by the trackers; returns the metrics."""
    with (
        locks.one_writer(task.trained, settings.output_in_use),
        tracking.stage(settings, layout, run, task.objective.name, task.recipe) as record,
    ):
        record.dataset(task.data, files.sha256(task.data)[:16], "training")
        if task.settings.validation_steps:
            path, part = (task.validation_data, "") if task.validation_data else (task.data, "set_aside")
            record.dataset(path, files.sha256(path)[:16], "validation", part)
        metrics = training.train(task, record.callbacks())
        record.checkpoints(task.unfinished)
        record.metrics({"train": {key: value for key, value in metrics.items() if key not in NO_METRICS}})
        record.artifact(task.trained / METRICS)
        record.model(task.trained, metrics["steps"])
    return metrics
