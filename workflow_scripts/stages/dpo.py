"""Direct preference optimisation of the SFT model, which is also the reference: `results/dpo/{run}/`."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.settings import Config, Dpo
from workflow_scripts.stages import recorded_training
from workflow_scripts.training.run import Task
from workflow_scripts.training.trainers import dpo

logger = logging.getLogger(__name__)

TO_ZERO = ("sigmoid", "sigmoid_norm", "hinge", "ipo")  # losses whose least is 0


def task(settings: Config, layout: Layout, run: Run, base_model: Path) -> Task[Dpo]:
    """The training of `base_model` on the preference pairs of `run`.

    It is validated on pairs of images that SFT has not seen. Where there is none, some of its own are set aside: with a
    warning, and as a UserError where the splits were to share no image.
    """
    pairs, unseen = layout.preferences(run), layout.validation_pairs(run)
    has_unseen = unseen.is_file() and unseen.stat().st_size > 0
    if settings.dpo.validation_steps and not has_unseen:
        meaning = f"{unseen}: no pair is of a validation image that SFT has not seen"
        if settings.data.splits == "image_disjoint":
            raise UserError(f"{meaning}; switch on preferences.rules, or leave dpo.validation_steps empty")
        logger.warning(
            "%s; pairs of train images are set aside for validation: their loss favours what is memorised",
            meaning,
        )
    return recorded_training.task(
        settings,
        layout,
        run,
        dpo.objective(references=pairs.parent / f"{run}.reference"),
        settings.dpo,
        base_model,
        data=pairs,
        validation_data=unseen if has_unseen else None,
    )


def overfit(settings: Config, layout: Layout, run: Run, base_model: Path, steps: int) -> dict[str, Any]:
    """Let the training of `run` learn its first batch by heart; a UserError where it does not within `steps`."""
    others = [name for name in settings.dpo.loss if name not in TO_ZERO]
    if others or settings.dpo.trainer.get("label_smoothing"):
        what = f"dpo.loss {others[0]}" if others else "dpo.trainer.label_smoothing"
        raise UserError(
            f"{what}: such a loss does not fall to 0; --overfit knows {', '.join(TO_ZERO)} without smoothing"
        )
    whole = task(settings, layout, run, base_model)
    own = replace(whole, objective=dpo.objective(references=layout.overfit("dpo", run) / "reference"))
    return recorded_training.overfit(settings, layout, run, own, steps)


def stage(settings: Config, layout: Layout, run: Run, base_model: Path) -> dict[str, Any]:
    """Train and write the model or adapter of `run`; returns its metrics."""
    return recorded_training.train(settings, layout, run, task(settings, layout, run, base_model))
