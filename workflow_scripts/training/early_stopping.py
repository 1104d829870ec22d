"""Early stopping by the validation loss, and which checkpoint is kept."""

from transformers import EarlyStoppingCallback, TrainerState

from workflow_scripts.configuration.settings import Training


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
