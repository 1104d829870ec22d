"""What a trainer says, as points of the recorded curves."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workflow_scripts.tracking import names
from workflow_scripts.training import parts

if TYPE_CHECKING:
    from workflow_scripts.tracking import Recorder


class Mirror(TrainerCallback):
    """Records the curve while the training runs; the numbers of a step and of a validation after it are one point."""

    def __init__(self, record: "Recorder") -> None:
        self._record = record
        self._point: dict[str, float] = {}
        self._step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Points before a kill that did not reach the journal are in the checkpoint."""
        self._record.train_from(state.global_step)
        by_step: dict[int, dict[str, float]] = {}
        for entry in state.log_history:
            numbers = names.of_curve({key: value for key, value in entry.items() if key != "step"})
            by_step.setdefault(int(entry["step"]), {}).update(numbers)
        for step, numbers in sorted(by_step.items()):
            self._record.curve(step, numbers)
        self._record.checkpoints(Path(str(args.output_dir)))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.global_step != self._step:
            self._flush()
        self._step = state.global_step
        self._point |= names.of_curve(logs or {})
        if "train/learning_rate" in self._point:
            self._point |= rates(kwargs.get("model"), kwargs.get("optimizer"))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._flush()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After those that it takes the place of are removed."""
        self._flush()
        self._record.checkpoints(Path(str(args.output_dir)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._point:
            self._record.curve(self._step, self._point)
        self._point = {}


def rates(model: Any, optimizer: Any) -> dict[str, float]:
    """The learning rate of each part of the model, where parts have rates of their own."""
    if not isinstance(model, torch.nn.Module) or optimizer is None:
        return {}
    owners = {id(parameter): parts.part(name) for name, parameter in model.named_parameters()}
    groups = [(group["params"], float(group["lr"])) for group in optimizer.param_groups]
    found = {owners[id(held[0])]: rate for held, rate in groups if held and id(held[0]) in owners}
    if len(found) < 2:
        return {}
    return {f"train/learning_rate/{part.replace(' ', '_')}": rate for part, rate in found.items()}
