"""What each attempt at a job took, beside its log: time, GPUs, memory, and energy where the driver tells it.

One JSON object a line, only ever added to: one where an attempt begins, one where it ends. An attempt that was killed has
no end, and what it took is known by SLURM's accounting or not at all.
"""

import json
import os
import resource
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflow_scripts.base import gpus, slurm
from workflow_scripts.base.attempts import LOG_VARIABLE
from workflow_scripts.base.processes import started_by_torchrun

# Set in a SLURM job that was submitted for one job of Snakemake's: what the one took the other did.
ALONE_VARIABLE = "MEDVQA_JOB_ALONE"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Attempt:
    """What one attempt took: seconds, GPUs, bytes of its largest process, joules of its GPUs. None: nobody knows.

    `shared`: other stages, or other runs, may have used the same SLURM job.
    """

    slurm_job: str = ""
    seconds: float | None = None
    gpus: int | None = None
    memory: float | None = None
    energy: float | None = None
    shared: bool = False


def ledger_of(log: Path) -> Path:
    """Where the attempts of a job lie."""
    return log.with_suffix(".usage.jsonl")


@contextmanager
def recorded() -> Iterator[None]:
    """Note what the block takes, as one attempt at a job of Snakemake's; elsewhere nothing."""
    log = os.environ.get(LOG_VARIABLE)
    if not log or started_by_torchrun():
        yield
        return
    ledger, attempt = ledger_of(Path(log)), uuid.uuid4().hex[:12]
    started = time.monotonic()
    slurm_job = os.environ.get("SLURM_JOB_ID", "")
    shared = bool(slurm_job) and not os.environ.get(ALONE_VARIABLE)
    _add(ledger, {"attempt": attempt, "slurm_job": slurm_job, "shared": shared})
    try:
        yield
    finally:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        used = gpus.used()
        _add(
            ledger,
            {
                "attempt": attempt,
                "seconds": round(time.monotonic() - started, 1),
                "gpus": used.count,
                "memory": max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024,
                "energy": used.energy(),
            },
        )


def _add(ledger: Path, line: dict[str, Any]) -> None:
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with open(ledger, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError:  # a full disk is what the command itself speaks of
        pass


def attempts(ledger: Path) -> list[Attempt]:
    """All attempts at the job, by its own account."""
    found: dict[str, Attempt] = {}
    for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines() if ledger.is_file() else []:
        try:
            told = json.loads(line)
            known = found.get(attempt := told.pop("attempt"), Attempt())
            found[attempt] = replace(known, **told)
        except (ValueError, KeyError, TypeError, AttributeError):  # torn by a kill
            continue
    return list(found.values())


def accounts(taken: Iterable[Attempt]) -> dict[str, Attempt]:
    """What SLURM's accounting says of the jobs that these attempts had to themselves, all their starts together; of none
    where there is no accounting."""
    numbers = ",".join(sorted({each.slurm_job for each in taken if each.slurm_job and not each.shared}))
    if not numbers:
        return {}
    fields = "--format=JobIDRaw,ElapsedRaw,AllocTRES,MaxRSS,ConsumedEnergyRaw"
    told = slurm.ask("sacct", "--noheader", "--parsable2", "--duplicates", fields, f"--jobs={numbers}")
    starts: dict[str, list[Attempt]] = {}  # one for each time a job was put back into the queue, and one more
    for line in told.text.splitlines():
        number, seconds, allocated, memory, energy = line.split("|")
        job, _, step = number.partition(".")
        known = starts.setdefault(job, [])
        if not step:
            known.append(Attempt(job, float(seconds or 0), _gpus(allocated)))
        if known:  # the steps of a start follow it
            most = (_most(known[-1].memory, _size(memory)), _most(known[-1].energy, _size(energy)))
            known[-1] = replace(known[-1], memory=most[0], energy=most[1])
    return {job: _of_all(known) for job, known in starts.items() if known}


def _of_all(starts: list[Attempt]) -> Attempt:
    """A job over all its starts; one that waits in the queue has no GPUs at present."""
    energies = [each.energy for each in starts if each.energy is not None]
    return replace(
        starts[-1],
        seconds=sum(each.seconds or 0.0 for each in starts),
        gpus=max(each.gpus or 0 for each in starts),
        memory=_most(*(each.memory for each in starts)),
        energy=sum(energies) if energies else None,
    )


def accounted(taken: list[Attempt], told: Mapping[str, Attempt]) -> list[Attempt]:
    """The same with what `accounts` has told of their jobs: it knows what those took that were killed too."""
    # A job that went back into the queue has one number, and several attempts.
    by_own: dict[str, list[Attempt]] = {}
    for each in taken:
        by_own.setdefault(each.slurm_job, []).append(each)
    rest = [each for job, own in by_own.items() if job not in told for each in own]
    return rest + [_joined(told[job], own) for job, own in by_own.items() if job in told]


def _joined(found: Attempt, own: list[Attempt]) -> Attempt:
    """SLURM's account, and the attempts' own of what that does not know."""
    energies = [each.energy for each in own if each.energy is not None]
    whole = sum(energies) if len(energies) == len(own) else None
    memory = _most(found.memory, *(each.memory for each in own))
    return replace(found, memory=memory, energy=whole if found.energy is None else found.energy)


def _gpus(allocated: str) -> int:
    """Of such as "billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=90G"."""
    counts = dict(item.partition("=")[::2] for item in allocated.split(","))
    kinds = (int(count) for name, count in counts.items() if name.startswith("gres/gpu:"))
    return int(counts.get("gres/gpu", 0)) or sum(kinds)


def _size(text: str) -> float | None:
    """A number of sacct's with its unit; None for none, and for the nought of what is not measured."""
    text = text.strip()
    unit = text[-1:] if text[-1:] in _UNITS else ""
    try:
        return float(text.removesuffix(unit)) * _UNITS[unit] or None
    except ValueError:
        return None


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)
