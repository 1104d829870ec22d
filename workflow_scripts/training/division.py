"""What each strategy of several processes divides among them."""

from dataclasses import dataclass
from typing import Literal

Divided = Literal["weights", "gradients", "optimiser"]


@dataclass(frozen=True)
class Strategy:
    """What is divided among the processes, by which library; offloading keeps weights and optimiser off the GPU."""

    library: Literal["torch", "deepspeed", "fsdp"]
    divides: tuple[Divided, ...] = ()
    offloads: bool = False

    @property
    def divides_weights(self) -> bool:
        return "weights" in self.divides

    @property
    def is_zero3(self) -> bool:
        return self.library == "deepspeed" and self.divides_weights


EVERYTHING: tuple[Divided, ...] = ("weights", "gradients", "optimiser")
STRATEGIES = {
    "ddp": Strategy("torch"),
    "zero1": Strategy("deepspeed", ("optimiser",)),
    "zero2": Strategy("deepspeed", ("gradients", "optimiser")),
    "zero3": Strategy("deepspeed", EVERYTHING),
    "zero3_offload": Strategy("deepspeed", EVERYTHING, offloads=True),
    "fsdp": Strategy("fsdp", EVERYTHING),
}
