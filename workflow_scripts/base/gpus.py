"""The GPUs of this machine: a job takes as many free ones as it asks for, and sees no others."""

import logging
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workflow_scripts.base import locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.locks import Lock
from workflow_scripts.base.processes import started_by_torchrun

logger = logging.getLogger(__name__)

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, or else all, by UUID; none where nvidia-smi is missing or finds none."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return _installed()
    names: list[str] = []
    for name in map(str.strip, named.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
            break  # CUDA looks no further either
        names.append(name)
    return names


def _installed() -> list[str]:
    return [value for value in described("uuid") if value.startswith("GPU-")]


def memory() -> int:
    """Bytes of the smallest GPU of this machine; 0 where nvidia-smi is missing or finds none."""
    return min((int(value) * 2**20 for value in described("memory.total") if value.isdigit()), default=0)


@cache
def described(value: str) -> list[str]:
    """What nvidia-smi says of each GPU, such as its "name"; nothing where it is missing or finds none."""
    command = ["nvidia-smi", f"--query-gpu={value}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


@dataclass(frozen=True)
class Used:
    """The GPUs that this process has taken, on how many machines, and their energy counters in joules before."""

    names: tuple[str, ...] = ()
    nodes: int = 1
    before: float | None = None

    @property
    def count(self) -> int:
        return len(self.names) * self.nodes

    def energy(self) -> float | None:
        """Joules since they were taken; None where the driver does not tell, or only of this one of several machines."""
        now = _energy(self.names)
        return None if now is None or self.before is None or self.nodes > 1 else now - self.before


_used = Used()


def used() -> Used:
    """What `taken` has last taken in this process."""
    return _used


def _note(names: Iterable[str], nodes: int) -> None:
    global _used
    _used = Used(tuple(names), nodes, _energy(names))


def _energy(names: Iterable[str]) -> float | None:
    """What the counters of these GPUs say, together, in joules; None without pynvml, or where one has none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        by_number, by_name = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        handles = [by_number(int(name)) if name.isdigit() else by_name(name) for name in names]
        return sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, handles)) / 1000 if handles else None
    except Exception:  # it is not installed, or the driver has no counter, or no right to see it
        return None


@contextmanager
def taken(count: int, nodes: int = 1) -> Iterator[None]:
    """Let this process and its children see `count` GPUs that no other job has, and wait until there are as many.

    `nodes` is on how many machines the job has as many.

    Comes before anything that touches CUDA, which looks at CUDA_VISIBLE_DEVICES once. What SLURM has given is left as
    it is, as is what the process that started torchrun has taken, and a machine without GPUs.
    """
    names = visible()
    if "SLURM_JOB_ID" in os.environ or started_by_torchrun() or not names:
        _note(names, nodes)
        yield
        return
    if count > len(names):
        raise UserError(f"gpus: {count} asked for, {len(names)} visible; check {VARIABLE} or ask for fewer")
    mine = _waited_for(names, count)
    _note(mine, nodes)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = ",".join(mine)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})
        for lock in mine.values():
            lock.release()


def _waited_for(names: list[str], count: int) -> dict[str, Lock]:
    """The locks of `count` of the GPUs `names`."""
    known: list[str] = []
    while True:
        mine: dict[str, Lock] = {}
        others = []
        for name in names:
            if len(mine) < count:
                found = locks.take(_lock_of(name))
                if isinstance(found, Lock):
                    mine[name] = found
                else:
                    others.append(f"{name}: {found}")
        if len(mine) == count:
            return mine
        for lock in mine.values():  # whoever waits holds nothing that others wait for
            lock.release()
        if others != known:
            logger.info(
                "waiting for %d of %d GPU(s), taken by others (%s)", count, len(names), "; ".join(others)
            )
        known = others
        time.sleep(locks.POLL * random.uniform(0.5, 1))


def _lock_of(name: str) -> Path:
    """The lock of a GPU, the same by whatever name: it may be a number, a UUID or the beginning of one."""
    installed = _installed()
    if name.isdigit() and int(name) < len(installed):
        name = installed[int(name)]
    name = next((uuid for uuid in installed if uuid.startswith(name)), name)
    folder = Path(tempfile.gettempdir()) / f"medvqa-gpus-{os.getuid()}"
    return folder / f"{name.replace('/', '_')}.lock"
