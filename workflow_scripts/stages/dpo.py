"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

from pathlib import Path
from typing import Any

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Dpo
from workflow_scripts.stages import recorded_training
from workflow_scripts.training.run import Task
from workflow_scripts.training.trainers import dpo


def task(settings: Config, layout: Layout, run: Run, base_model: Path) -> Task[Dpo]:
    """The training of `base_model` on the preference pairs of `run`, a part of which it is validated on."""
    pairs = layout.preferences(run)
    objective = dpo.objective(references=pairs.parent / f"{run}.reference")
    return recorded_training.task(settings, layout, run, objective, settings.dpo, base_model, data=pairs)


def stage(settings: Config, layout: Layout, run: Run, base_model: Path) -> dict[str, Any]:
    """Train and write the model or adapter of `run`; returns its metrics."""
    return recorded_training.train(settings, layout, run, task(settings, layout, run, base_model))
