"""Rows that are validated on while training, early stopping, and which checkpoint is kept."""

import random
from collections.abc import Sequence

from datasets import Dataset, concatenate_datasets
from transformers import EarlyStoppingCallback, TrainerState

from workflow_scripts.errors import UserError
from workflow_scripts.settings import Training

LARGEST_SHARE = 0.1  # of the pairs


def add_rows(dataset: Dataset, others: Dataset, limit: int, seed: int) -> tuple[Dataset, list[int]]:
    """`dataset` with up to `limit` rows drawn from `others` behind it, and their numbers."""
    drawn = random.Random(f"{seed}-validation").sample(range(len(others)), min(limit, len(others)))
    both = concatenate_datasets([dataset, others.select(sorted(drawn))])
    return both, list(range(len(dataset), len(both)))


def set_aside(images: Sequence[str], limit: int, seed: int) -> list[int]:
    """The numbers of the rows of some images: up to `limit` rows, at most LARGEST_SHARE of all.

    `images` has the image of each row; all rows of an image go together. A UserError where that leaves none.
    """
    by_image: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        by_image.setdefault(image, []).append(row)
    order = list(by_image)
    random.Random(f"{seed}-validation").shuffle(order)
    limit = min(limit, int(len(images) * LARGEST_SHARE))
    held: list[int] = []
    for image in order:
        if len(held) + len(by_image[image]) <= limit:
            held += by_image[image]
    if not held:
        raise UserError(
            f"validation_steps: of {len(images)} pairs, no image's can be set aside (at most {LARGEST_SHARE:.0%} of all "
            "are); raise preferences.max_pairs, or leave validation_steps empty"
        )
    return sorted(held)


def arguments(settings: Training) -> dict:
    """TrainingArguments by which the model with the least validation loss is kept; {} without validation.

    The loss is the mean over batches of as many rows. A checkpoint is written at each validation, so that the best is one.
    """
    if not settings.validation_steps:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.validation_steps,
        "save_steps": settings.validation_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "restore_callback_states_from_checkpoint": True,  # how often the loss has not fallen
    }


class EarlyStopping(EarlyStoppingCallback):
    """Also where a training is resumed from the checkpoint that was to be its last.

    The trainer has forgotten that it was to stop, and takes a step more, which must not count.
    """

    def on_step_end(self, args, state, control, **kwargs):
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
            control.should_log = control.should_evaluate = control.should_save = False
            state.global_step -= 1


def callbacks(settings: Training) -> list[EarlyStopping]:
    """Early stopping where it is asked for."""
    if not (settings.validation_steps and settings.patience):
        return []
    return [EarlyStopping(settings.patience)]


def outcome(state: TrainerState) -> dict:
    """{"best_step", "validation_loss"} of the model that was kept; {} without validation."""
    if state.best_metric is None:
        return {}
    return {"best_step": state.best_global_step, "validation_loss": state.best_metric}
