"""The structured log of a job of Snakemake's: JSON lines beside the readable log, for programs that look what happened.

A retry adds its lines to those of the attempts before. A line is one write to the end of the file, so that a kill leaves
whole lines, and the processes of a training write between each other's lines. Network disks append so from one machine
only: other nodes of a job have a file of their own, `{name}.node1.jsonl`.
"""

import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workflow_scripts.base import attempts, credentials, footprint
from workflow_scripts.base.paths import job_of
from workflow_scripts.base.processes import processes, started_by_torchrun

# Tells the processes that a job starts which attempt they are of.
ATTEMPT_VARIABLE = "MEDVQA_ATTEMPT"
DIGITS = 3  # of a GiB

_step: int | None = None


def at_step(number: int | None) -> None:
    """The optimiser step that a training is in, from 1; None: no training goes on."""
    global _step
    _step = number


class Lines(logging.Formatter):
    """A record as a JSON object in one line, with the memory of this process in GiB at that moment."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__()
        self._job = job

    def format(self, record: logging.LogRecord) -> str:
        error = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        gpu = footprint.peak_gpu_memory()
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._job,
            "step": _step,
            "process": os.getpid(),
            "memory_gib": round(footprint.memory(), DIGITS),
            "peak_memory_gib": round(footprint.peak_memory(), DIGITS),
            "peak_gpu_memory_gib": None if gpu is None else round(gpu, DIGITS),
            "logger": record.name,
            "message": credentials.hidden(record.getMessage()),
            "error": error and credentials.hidden(error),
        }
        return json.dumps(values, ensure_ascii=False).encode("utf-8", "replace").decode()


class JobLog(logging.Handler):
    """Adds lines to a file."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        super().__init__()
        self.setFormatter(Lines(job))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._torn = _ends_torn(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = ("\n" if self._torn else "") + self.format(record) + "\n"
            written = line.encode()
            self._torn = os.write(self._file, written) < len(written)
        except OSError:  # a full disk, of which the command itself speaks
            self._torn = True
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        os.close(self._file)
        super().close()


def _ends_torn(path: Path) -> bool:
    """Whether the disk, or a machine that went down, has left half a line at the end."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def recorded(call: Callable[[], int], arguments: list[str]) -> int:
    """`call()`, with what is logged in it and how it ends in the structured log; outside a job of Snakemake's nothing is."""
    with kept() as log:
        if log is None:
            return call()
        _say(log, logging.INFO, f"begins: {' '.join(arguments)}")
        status = call()
        _say(log, logging.ERROR if status else logging.INFO, f"ends with status {status}")
        return status


@contextmanager
def kept() -> Iterator[JobLog | None]:
    """Let the structured log have what is logged in the block, and the error that ends it; None outside a job.

    A process that this one starts in the block is of the same attempt.
    """
    readable = os.environ.get(attempts.LOG_VARIABLE)
    if not readable:
        yield None
        return
    path = _path(Path(readable))
    is_first = ATTEMPT_VARIABLE not in os.environ
    attempt = _attempts(path) + 1 if is_first else int(os.environ[ATTEMPT_VARIABLE])
    os.environ[ATTEMPT_VARIABLE] = str(attempt)
    log = JobLog(path, _job(Path(readable), attempt))
    logging.getLogger().addHandler(log)
    try:
        yield log
    except BaseException as error:
        _say(log, logging.ERROR, f"{type(error).__name__}: {error}", with_error=True)
        raise
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
        at_step(None)
        if is_first:
            del os.environ[ATTEMPT_VARIABLE]


def attempt() -> int | None:
    """Which attempt at its job this process is of; None outside a job."""
    number = os.environ.get(ATTEMPT_VARIABLE)
    return int(number) if number else None


def said(readable: Path, attempt: int) -> str:
    """What an attempt at the job with this log has said, to be read; "" where nothing of it is left.

    The readable log itself has only what the last one said.
    """
    lines = map(_parsed, _lines(readable.with_suffix(".jsonl")))
    return "".join(_to_be_read(line) for line in lines if line.get("attempt") == attempt)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n") if path.is_file() else []


def _parsed(line: bytes) -> dict[str, Any]:
    """A line; empty where a full disk or a machine that went down has torn it."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _to_be_read(line: dict[str, Any]) -> str:
    error = f"{line['error'].rstrip()}\n" if line["error"] else ""
    return f"{line['time']} {line['level']:7} {line['message']}\n{error}"


def _path(readable: Path) -> Path:
    """Where this process writes."""
    node = os.environ.get("GROUP_RANK", "0") if started_by_torchrun() else "0"
    return readable.with_suffix(".jsonl" if node == "0" else f".node{node}.jsonl")


def _job(readable: Path, attempt: int) -> dict[str, Any]:
    """What is alike in all lines of this process."""
    stage, name = job_of(readable)
    return {
        "stage": stage,
        "run": name.partition("/")[0] or None,  # or the source or model that is fetched
        "part": name.partition("/")[2] or None,
        "attempt": attempt,
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "rank": processes().rank,
    }


def _attempts(path: Path) -> int:
    """The number of the last attempt that left a line; 0 where none has."""
    numbers = (_parsed(line).get("attempt") for line in reversed(_lines(path)))
    return next((number for number in numbers if isinstance(number, int)), 0)


def _say(log: JobLog, level: int, message: str, with_error: bool = False) -> None:
    """A line that the readable log does not have."""
    values = {"name": __name__, "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
    log.handle(logging.makeLogRecord({**values, "exc_info": sys.exc_info() if with_error else None}))
