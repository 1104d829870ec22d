"""What a run has cost so far, stage by stage: by SLURM's accounting, else by what its jobs have noted themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from workflow_scripts.base import usage
from workflow_scripts.base.columns import aligned
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.base.usage import Attempt
from workflow_scripts.configuration.dependencies import STAGES
from workflow_scripts.tracking import journal
from workflow_scripts.tracking.journal import Journal

HEADER = ("stage", "attempts", "hours", "GPU hours", "peak memory, GB", "peak GPU memory, GB", "energy, kWh")
UNKNOWN = "unknown"
GIB, GB = 2**30, 1e9


class Cost(TypedDict):
    """What a stage, or the whole run, took: as words, for what nobody knows is said and no nought."""

    stage: str
    attempts: str
    hours: str
    gpu_hours: str
    memory: str
    gpu_memory: str
    energy: str


def of_run(layout: Layout, run: Run) -> list[Cost]:
    """The stages of a run that have left an account, and last their sum; downloads are several runs' and left out.

    Energy is that of the whole job where SLURM measures it, else that of its GPUs. A sum of which a part is unknown, such
    as of an attempt that was killed where SLURM keeps no accounts, is "at least".
    """
    found: dict[str, list[Attempt]] = {}
    for stage in STAGES:
        attempts = [attempt for ledger in _ledgers(layout, stage, run) for attempt in usage.attempts(ledger)]
        if attempts:
            found[stage] = attempts
    told = usage.accounts(attempt for attempts in found.values() for attempt in attempts)
    found = {stage: usage.accounted(attempts, told) for stage, attempts in found.items()}
    peaks = _gpu_peaks(layout, run)
    rows = [_cost(stage, attempts, peaks.get(stage)) for stage, attempts in found.items()]
    if rows:
        whole = [attempt for attempts in found.values() for attempt in attempts]
        rows.append(_cost("all", whole, max(peaks.values(), default=None)))
    return rows


def _ledgers(layout: Layout, stage: str, run: Run) -> Iterator[Path]:
    yield usage.ledger_of(layout.log(stage, str(run)))
    yield from sorted(usage.ledger_of(layout.log(stage, f"{run}/*")).parent.glob("*.usage.jsonl"))


def _gpu_peaks(layout: Layout, run: Run) -> dict[str, float]:
    """The most GPU memory that a stage's first process took, in GB, as it told the trackers."""
    found: dict[str, float] = {}
    for path in journal.all_of(layout, run):
        for event, _ in Journal(path).read():
            if event["kind"] == "metrics" and (most := event["values"].get("system/peak_gpu_memory_gb")):
                found[path.stem] = max(found.get(path.stem, 0.0), most * GIB / GB)
    return found


def _cost(stage: str, attempts: list[Attempt], gpu_peak: float | None) -> Cost:
    times = [attempt.seconds for attempt in attempts]
    gpu_times = [
        None if each.seconds is None or each.gpus is None else each.seconds * each.gpus for each in attempts
    ]
    on_gpus = [attempt for attempt in attempts if attempt.gpus != 0]
    metered = [each for each in attempts if each in on_gpus or each.energy is not None]
    memory = max((each.memory for each in attempts if each.memory is not None), default=None)
    return {
        "stage": stage,
        "attempts": str(len(attempts)),
        "hours": _summed(times, 3600),
        "gpu_hours": _summed(gpu_times, 3600),
        "memory": UNKNOWN if memory is None else f"{memory / GB:.1f}",
        "gpu_memory": "–" if not on_gpus else UNKNOWN if gpu_peak is None else f"{gpu_peak:.1f}",
        "energy": _summed([each.energy for each in metered], 3.6e6) if metered else "–",
    }


def _summed(values: list[float | None], unit: float) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    at_least = "at least " if len(known) < len(values) else ""
    return f"{at_least}{sum(known) / unit:.2f}"


def table(layout: Layout, run: Run) -> str:
    """The costs as aligned text; "" where nothing is known."""
    rows = of_run(layout, run)
    if not rows:
        return ""
    return "\n".join(aligned([HEADER, *(tuple(map(str, row.values())) for row in rows)], left=1))
