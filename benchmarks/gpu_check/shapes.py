"""How much is checked: what eight minutes of a GPU hold, or what shows on a CPU that the checks themselves work."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from benchmarks import common


@dataclass(frozen=True)
class Shape:
    """Sides in pixels, questions an image, images of a step of ours, and how often things are repeated.

    `pass_tokens` is what a forward pass of stock holds at most, if more than one image.
    """

    sides: tuple[int, ...]
    questions: tuple[int, ...]
    images: int
    steps: int
    stock_steps: int
    pass_tokens: int
    batch_shapes: int
    new_tokens: int
    matrix_side: int


# A pass of 8192 tokens keeps a GPU busy, stock's and ours.
FULL = Shape((768, 336), (14, 1), 8, 4, 3, 8192, batch_shapes=50, new_tokens=32, matrix_side=8192)
SMALL = Shape((56,), (3,), 2, 2, 2, 256, batch_shapes=4, new_tokens=4, matrix_side=256)


def on_gpu() -> bool:
    """Whether there is one to check."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda" if on_gpu() else "cpu")


@dataclass(frozen=True)
class Moment:
    """A point of the GPU's own time line (a CUDA event), or of the process's where there is no GPU."""

    event: Any
    host: float

    @classmethod
    def now(cls) -> "Moment":
        """This moment; on a GPU the one at which it has done all that was asked of it so far."""
        event = None
        if on_gpu():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return cls(event, time.perf_counter())

    def until(self, later: "Moment") -> float:
        """Seconds from this to a later one."""
        if self.event is None:
            return later.host - self.host
        later.event.synchronize()
        milliseconds: float = self.event.elapsed_time(later.event)
        return milliseconds / 1000


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if on_gpu():
        torch.cuda.synchronize()


def peak_gib() -> float:
    """The most memory that was in use on the GPU since `forget_peak`, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if on_gpu() else 0.0


def forget_peak() -> None:
    """Begin to measure the peak of memory anew."""
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@dataclass
class Base:
    """One model of the benchmarks (on a GPU 9B-shaped), made once; each training puts its adapter on and takes it off."""

    made: Any = None

    def get(self) -> Any:
        """The model without an adapter, attending by sdpa."""
        if self.made is None:
            self.made = common.model()
        self.made.set_attn_implementation({"text_config": "sdpa"})
        return self.made

    def drop(self) -> None:
        """Give its memory back."""
        self.made = None
        forget_peak()

    @contextmanager
    def bare_again(self, trainer: Any) -> Iterator[None]:
        """After the block, what `trainer` did to the model is undone."""
        try:
            yield
        finally:
            if isinstance(trainer.model, PeftModel):
                trainer.model.unload()
            trainer.accelerator.free_memory()
            trainer.model = trainer.model_wrapped = trainer.optimizer = None
            self.made.gradient_checkpointing_disable()
            # TRL's fused head, our shared prefixes, fused steps and compiled layers are in the place of these.
            for module in self.made.modules():
                module.__dict__.pop("forward", None)
                module._compiled_call_impl = None
            self.made.__dict__.pop("peft_config", None)
            forget_peak()
