"""What a person sees of a training, and the curve that is kept of it."""

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workflow_scripts.base import files, job_log
from workflow_scripts.training.data.batching import Load

logger = logging.getLogger(__name__)

CLOCK = "seconds.json"
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}  {remaining} left"


class Progress(TrainerCallback):
    """Loss, rates and time left at each logging step: a bar in a terminal, lines in a log file.

    `loads` are those of each optimiser step over all processes. The seconds are counted over every resumption.
    """

    def __init__(self, loads: Sequence[Load], folder: Path) -> None:
        self.up_to = list(itertools.accumulate(loads, initial=Load()))  # each step
        self.bar: tqdm[Any] | None = None
        self.clock = folder / CLOCK
        self.earlier = 0.0
        self.started = 0.0
        self.first_step = 0

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started

    def done(self, step: int, first: int = 0) -> Load:
        """What was run in the steps from `first` up to `step`, over all processes."""
        return self.up_to[min(step, len(self.up_to) - 1)] - self.up_to[first]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        if self.first_step and self.clock.is_file():
            self.earlier = files.read_value(self.clock, "seconds")
        if state.is_world_process_zero:
            # disable=None: only in a terminal
            self.bar = tqdm(
                total=state.max_steps,
                initial=self.first_step,
                disable=None,
                dynamic_ncols=True,
                bar_format=BAR,
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        job_log.at_step(state.global_step + 1)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        job_log.at_step(None)  # an error that ends it is of its step

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            files.write_json(self.clock, {"seconds": self.seconds})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is None or not logs or "loss" not in logs:
            return
        seconds = time.monotonic() - self.started
        done = self.done(state.global_step, self.first_step)
        logs |= self._numbers(
            state.global_step, done.rows / seconds
        )  # for callbacks that come after this one
        left = self.done(state.max_steps, state.global_step)
        text = (
            f"loss {float(logs['loss']):.4f}  lr {float(logs['learning_rate']):.2e}  "
            f"{done.rows / seconds:.1f} rows/s  {done.image_reuse:.1f} rows/image"
        )
        if self.bar.disable:
            remaining = tqdm.format_interval(seconds * left.tokens / done.tokens)
            logger.info("step %d/%d  %s  %s left", state.global_step, state.max_steps, text, remaining)
        else:
            self.bar.set_postfix_str(text)

    def _numbers(self, step: int, rows_per_second: float) -> dict[str, float]:
        """What trackers show besides: time over every resumption, speed, and what was run up to `step`."""
        done = self.done(step)
        return {
            "seconds": self.seconds,
            "rows_per_second": rows_per_second,
            "tokens": done.tokens,
            "tokens_of_rows": done.total_tokens,
            "image_reuse": done.image_reuse,
        }

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and metrics:
            loss, best = metrics["eval_loss"], state.best_metric
            note = (
                "" if best is None or loss < best else f", least {best:.4f} at step {state.best_global_step}"
            )
            logger.info("step %d: validation loss %.4f%s", state.global_step, loss, note)


def curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
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
