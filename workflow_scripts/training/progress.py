"""What a person sees of a training, and the curve that is kept of it."""

import logging
import time
from pathlib import Path

from transformers import TrainerCallback

from workflow_scripts import files

logger = logging.getLogger(__name__)

CLOCK = "seconds.json"


class Progress(TrainerCallback):
    """Log loss, rate and time left at each logging step; count the seconds over every resumption."""

    def __init__(self, rows_per_step: int, folder: Path) -> None:
        self.rows_per_step = rows_per_step
        self.clock = folder / CLOCK
        self.earlier = 0.0
        self.started = 0.0
        self.first_step = 0

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started

    def on_train_begin(self, args, state, control, **kwargs):
        self.started, self.first_step = time.monotonic(), state.global_step
        if self.first_step and self.clock.is_file():
            self.earlier = files.read_json(self.clock)["seconds"]

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            files.write_json(self.clock, {"seconds": self.seconds})

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        done = state.global_step - self.first_step
        per_step = (time.monotonic() - self.started) / max(done, 1)
        logger.info(
            "step %d/%d  loss %.4f  lr %.2e  %.1f rows/s  %s left",
            state.global_step,
            state.max_steps,
            float(logs["loss"]),
            float(logs["learning_rate"]),
            self.rows_per_step / per_step,
            time.strftime("%H:%M:%S", time.gmtime(per_step * (state.max_steps - state.global_step))),
        )


def curve(history: list[dict]) -> list[dict]:
    """The points of the training curve from the trainer's log history."""
    keep = (
        "loss",
        "learning_rate",
        "grad_norm",
        "mean_token_accuracy",
        "rewards/accuracies",
        "rewards/margins",
    )
    return [
        {"step": entry["step"], **{key: float(entry[key]) for key in keep if key in entry}}
        for entry in history
        if "loss" in entry
    ]
