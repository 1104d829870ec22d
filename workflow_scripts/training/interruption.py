"""Stopping a training by a signal, after a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workflow_scripts.base.errors import STOPPING, Terminated


class StopOnSignal(TrainerCallback):
    """Save a checkpoint and stop after the step during which one of STOPPING came, and a validation that is due then."""

    def __init__(self) -> None:
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
        if args.world_size > 1:  # all must stop after the same step, whenever each of them was told
            latest = torch.tensor(self.received, device=args.device)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX)
            self.received = int(latest)
        return bool(self.received)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._told(args):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._told(args) and state.global_step < state.max_steps:
            raise Terminated(
                self.received,
                f" after step {state.global_step} of {state.max_steps}, which is saved; start again to go on",
            )
