"""Which of several processes of one training this is, as torchrun tells."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """The number of this process, from 0, and how many there are."""

    rank: int = 0
    count: int = 1


def processes() -> Processes:
    """From the environment; a process that torchrun has not started is alone."""
    return Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
