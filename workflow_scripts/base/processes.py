"""Which processes there are: those of one training, as torchrun tells, and those of this machine."""

import logging
import os
from dataclasses import dataclass

logger = logging.getLogger(__name__)

OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# What accelerate reads besides, where it finds no GPU.
OF_MPI = tuple(
    f"{launcher}_{name}"
    for launcher in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")
    for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
)


@dataclass(frozen=True)
class Processes:
    """The number of this process, from 0, and how many there are."""

    rank: int = 0
    count: int = 1


def processes() -> Processes:
    """From the environment; a process that torchrun has not started is alone."""
    if not started_by_torchrun():
        return Processes()
    return Processes(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process: it sets all of its variables."""
    return all(name in os.environ for name in ("TORCHELASTIC_RUN_ID", *OF_TORCHRUN))


def launch() -> str:
    """What is alike for the processes that one torchrun has started, and empty for a process that is alone."""
    return os.environ["TORCHELASTIC_RUN_ID"] if started_by_torchrun() else ""


def forget_other_launchers() -> None:
    """Remove from the environment what would make the libraries wait for processes that nobody starts.

    Container platforms, schedulers and earlier shells leave it there.
    """
    if started_by_torchrun():
        return
    strays = [name for name in (*OF_TORCHRUN, "LOCAL_WORLD_SIZE", *OF_MPI) if os.environ.pop(name, None)]
    if any(name in OF_TORCHRUN for name in strays):
        logger.warning("%s: ignored, for torchrun has not started this process", ", ".join(strays))


def is_running(process: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
