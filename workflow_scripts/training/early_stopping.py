"""Early stopping by the validation loss, and which checkpoint is kept."""

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from workflow_scripts.configuration.settings import Training


def arguments(settings: Training) -> dict[str, Any]:
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


def callbacks(settings: Training) -> list[EarlyStoppingCallback]:
    """Early stopping where it is asked for."""
    if not (settings.validation_steps and settings.patience):
        return []
    return [EarlyStoppingCallback(settings.patience)]


def ended_at(checkpoint: Path) -> int | None:
    """The step after which early stopping ended the training that left `checkpoint`; None where it did not.

    Resumed from there, the trainer has forgotten that it was to stop, and would take a step more.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    kept = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if kept is None:
        return None
    used = kept["attributes"]["early_stopping_patience_counter"]
    return state.global_step if used >= kept["args"]["early_stopping_patience"] else None


def outcome(state: TrainerState) -> dict[str, float | None]:
    """{"best_step", "validation_loss"} of the model that was kept; {} without validation."""
    if state.best_metric is None:
        return {}
    return {"best_step": state.best_global_step, "validation_loss": state.best_metric}
