"""Stopping a training by a signal or before its job's time limit, after a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workflow_scripts.base.errors import STOPPING, OutOfTime, Terminated
from workflow_scripts.training.deadline import Deadline


class StopInTime(TrainerCallback):
    """Save a checkpoint and stop after the step during which one of STOPPING came, or before which `deadline` comes.

    A validation that is due then comes first.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.received = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Wait for signals; a Terminated that names the last step follows where one ended the training early."""
        before = {number: signal.signal(number, self._receive) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def _told(self, args: TrainingArguments) -> bool:
        if not self.received and self.deadline.has_come():
            self.received = OutOfTime.NUMBER
        if args.world_size > 1:  # all must stop after the same step, whenever each of them was told
            latest = torch.tensor(self.received, device=args.device)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX)
            self.received = int(latest)
        return bool(self.received)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.deadline.goes_on()  # to load a checkpoint is no part of a step

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.deadline.validation_ends()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.deadline.step_ends()
        if self._told(args):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.deadline.goes_on()
        if self._told(args) and state.global_step < state.max_steps:
            kind = OutOfTime if self.received == OutOfTime.NUMBER else Terminated
            raise kind(
                self.received,
                f" after step {state.global_step} of {state.max_steps}, which is saved; start again to go on",
            )
