"""The attempts at a job of Snakemake's: what failed by its own error is not tried again in the same invocation.

Snakemake tries every failed job again, and cannot tell why it failed. A command can: while it runs, a note lies beside
its log, as JSON. Success removes it; the command's own error stays in it; a process that was killed, for memory, time or
with its node, leaves it as it was. The next attempt of the same invocation reads it, and ends at once where the job
would fail for the same reason again.
"""

import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from workflow_scripts.base import files, slurm
from workflow_scripts.base.errors import OutOfTime, Terminated, UserError
from workflow_scripts.base.processes import processes, started_by_torchrun

# Rules name the job's log by this one, and the Snakemake that was started by hand names itself by that.
LOG_VARIABLE = "MEDVQA_LOG"
INVOCATION_VARIABLE = "MEDVQA_INVOCATION"
MAIN_VARIABLE = "MEDVQA_MAIN"  # names a Snakemake that is started again and goes on with its invocation

State = Literal["running", "failed", "stopped"]
# What SLURM calls an end that is not the command's fault, and what a person can do where it comes twice.
REMEDIES = {
    "TIMEOUT": "give it more time (cluster.runtime), or let it save more often (save_steps)",
    "OUT_OF_MEMORY": "give it more memory (cluster.mem_mb)",
    "NODE_FAIL": "leave out the node (slurm-exclude-failed-nodes in the profile), or ask the administrators",
}


@dataclass(frozen=True)
class Note:
    """One attempt at a job. `command` is its flags, `before` how earlier attempts of the invocation ended.

    `end` is how this one ended, in SLURM's words: by itself, before SLURM would, or as SLURM told Snakemake.
    """

    invocation: str
    command: str
    state: State = "running"
    reason: str = ""
    host: str = ""
    process: int = 0
    slurm_job: str = ""
    since: str = ""
    before: tuple[str, ...] = ()
    end: str = ""


def new_invocation() -> None:
    """Name this invocation of Snakemake to all jobs that it starts."""
    os.environ[INVOCATION_VARIABLE] = os.environ.get(MAIN_VARIABLE) or uuid.uuid4().hex


def goes_on() -> bool:
    """Whether this Snakemake may be a later one of an invocation, which counts the attempts anew."""
    return MAIN_VARIABLE in os.environ


def note_of(log: Path) -> Path:
    """Where the note of a job lies."""
    return log.with_suffix(".json")


def read(path: Path) -> Note | None:
    """The note at `path`; None where there is none, or where the disk has damaged it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Note(**{**values, "before": tuple(values["before"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def reason_of(logs: Iterable[Path], slurm_job: str) -> str:
    """Why the job with these logs failed, and what to do, by its note or by SLURM's own word; "" where neither tells.

    SLURM's word is kept in the note: it forgets it. A note of an earlier invocation is still there where this one's
    attempt has not even begun.
    """
    found = {path: read(path) for path in map(note_of, logs)}
    notes = {path: note for path, note in found.items() if note and _is_of_this_invocation(note)}
    failed = next((note.reason for note in notes.values() if note.state == "failed"), "")
    state = slurm.state_of(slurm_job) if slurm_job and not failed else ""
    if state not in REMEDIES:
        return failed or next((note.reason for note in notes.values()), "")
    for path, note in notes.items():
        if note.slurm_job == slurm_job:
            _write(path, replace(note, end=note.end or state), note.state, note.reason)
    return f"{state}: {REMEDIES[state]}"


def is_hopeless(log: Path) -> bool:
    """Whether another attempt at the job with this log would end at once, as `recorded` says."""
    note = read(note_of(log))
    if not note or not _is_of_this_invocation(note):
        return False
    return note.state == "failed" or bool(_met_twice(_ends(note, "")))


def _met_twice(ends: tuple[str, ...]) -> str:
    return next((end for end in REMEDIES if ends.count(end) > 1), "")


def ends(path: Path) -> tuple[str, ...]:
    """How the attempts of this invocation that the note at `path` tells of have ended, by SLURM's names."""
    note = read(path)
    if not note or note.state == "failed" or not _is_of_this_invocation(note):
        return ()
    return _ends(note, os.environ.get("SLURM_JOB_ID", ""))


def _is_of_this_invocation(note: Note) -> bool:
    return note.invocation == os.environ.get(INVOCATION_VARIABLE, "")


def recorded(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """`main(arguments)` as one attempt at a job; a UserError where the one before says that it would fail again.

    Outside a job of Snakemake's, nothing is noted.
    """
    log = os.environ.get(LOG_VARIABLE)
    if not log:
        return main(arguments)
    path = note_of(Path(log))
    if started_by_torchrun():  # one process of the attempt
        note = read(path)
        if note and processes().rank == 0:
            _write(path, note, "running")  # where memory ran out, all processes start again
        return _noted(main, arguments, path, note)
    note = _begun(path, arguments)
    status = _noted(main, arguments, path, note)
    told = read(path)
    if not status:
        path.unlink(missing_ok=True)
    elif told and told.state == "running":
        _write(path, note, "stopped", f"ended with status {status}")
    return status


def _begun(path: Path, arguments: list[str]) -> Note:
    """Note that this attempt begins, after a look at the one before."""
    note = Note(
        invocation=os.environ.get(INVOCATION_VARIABLE, ""),
        command=" ".join(arguments),
        host=socket.gethostname(),
        process=os.getpid(),
        slurm_job=os.environ.get("SLURM_JOB_ID", ""),
        since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    )
    earlier = read(path)
    if earlier and (earlier.invocation, earlier.command) == (note.invocation, note.command):
        if earlier.state == "failed":
            _not_again(note.slurm_job)
            raise UserError(f"{earlier.reason} (so ended the attempt before, and this is not tried again)")
        note = Note(**{**asdict(note), "before": _ends(earlier, note.slurm_job)})
        if again := _met_twice(note.before):
            reason = f"ended by {again} twice; {REMEDIES[again]}"
            _write(path, note, "failed", reason)
            raise UserError(f"{reason}; this is not tried again")
    _write(path, note, "running")
    return note


def _not_again(job: str) -> None:
    """End this SLURM job where the cluster puts jobs that failed back into the queue, without end."""
    if job and slurm.restarts(job):
        slurm.ask("scancel", job)


def _ends(earlier: Note, job: str) -> tuple[str, ...]:
    """How the attempts up to `earlier` ended; one that the cluster itself put back into the queue has not ended."""
    if not earlier.end and (not earlier.slurm_job or earlier.slurm_job == job):
        return earlier.before
    return (*earlier.before, earlier.end or slurm.state_of(earlier.slurm_job) or "")


def _noted(main: Callable[[list[str]], int], arguments: list[str], path: Path, note: Note | None) -> int:
    """`main(arguments)`, with its own error in the note."""
    try:
        return main(arguments)
    except Exception as error:
        # Of several processes the first has the cause, and others the echo.
        told = read(path)
        if note and not _of_another(error) and not (told and told.state == "failed"):
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            _write(path, note, "failed", kind + " ".join(str(error).split())[:500])
        raise
    except (KeyboardInterrupt, Terminated) as error:
        if note and processes().rank == 0 and isinstance(error, OutOfTime):
            _write(path, replace(note, end="TIMEOUT"), "stopped", str(error))
        elif note and not started_by_torchrun():
            _write(path, note, "stopped", str(error) or "stopped")
        raise


def _of_another(error: Exception) -> bool:
    """Whether another attempt may do better: the machine's memory ran out, here or in a process that was killed for it,
    or another process of a training is gone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    lost = "DistError" in names or any(
        word in str(error) for word in ("NCCL", "gloo", "Connection closed by peer")
    )
    killed = isinstance(error, MemoryError) or "killed by signal" in str(error)
    return killed or (processes().count > 1 and lost)


def _write(path: Path, note: Note, state: State, reason: str = "") -> None:
    try:
        files.write_json(path, {**asdict(note), "state": state, "reason": reason})
    except OSError:  # a full disk is what the command itself speaks of
        pass
