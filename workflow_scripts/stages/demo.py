"""The workflow with profiles/demo, told in a few lines: what each stage is for, how long it will take and took."""

import contextlib
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from workflow_scripts.base import files

PROFILE = Path("profiles/demo")
LOGGER = "demo"
_TAIL = 8  # lines of a failed stage's log


class Narrator:
    """Tells somebody who looks on, in a few lines, what the log records of Snakemake mean."""

    def __init__(self, stages: dict[str, dict[str, Any]], stream: TextIO) -> None:
        self._stages = stages
        self._stream = stream
        self._left: dict[str, int] = {}  # jobs of each stage that have not ended
        self._started: dict[str, float] = {}
        self._names: dict[int, str] = {}  # of the rules, by job
        self._failed: set[str] = set()
        self._stopping = False

    def hear(self, record: Any) -> None:
        """Say of `record` what is worth saying."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            self._plan(record.stats)
        elif event == LogEvent.JOB_INFO:
            self._start(record.jobid, record.rule_name, record.created)
        elif event == LogEvent.JOB_FINISHED:
            self._end(self._names[record.job_id], record.created)
        elif self._stopping:
            pass  # what was stopped has failed
        elif event == LogEvent.JOB_ERROR:
            self._fail(record.rule_name, [Path(path) for path in record.log])
        elif record.getMessage().startswith("Terminating processes"):
            self._stopping = True
            self._say("Stopping. `make demo` will go on from here.")
        elif record.getMessage().startswith("Nothing to be done"):
            self._say("All results are there already; `make clean` deletes them.")
        elif getattr(record, "exception", None) == "RuleException":
            pass  # its JOB_ERROR says more
        elif record.levelno >= logging.ERROR and not self._failed:
            self._say(f"error: {record.getMessage()}")

    def _plan(self, jobs: dict[str, int]) -> None:
        self._left = {name: count for name, count in jobs.items() if name in self._stages}
        seconds = sum(self._stages[name]["seconds"] for name in self._left)
        self._say(
            f"{len(self._left)} stages on drawn images and a tiny model, about {_spoken(seconds)} on two cores"
        )

    def _start(self, job: int, name: str, time: float) -> None:
        self._names[job] = name
        if name in self._left and name not in self._started:
            self._started[name] = time
            stage = self._stages[name]
            count = f"{len(self._started)}/{len(self._left)}"
            self._say(f"{count}  {name:<14}  {stage['what']}, about {_spoken(stage['seconds'])}")

    def _end(self, name: str, time: float) -> None:
        if name in self._left:
            self._left[name] -= 1
            if not self._left[name]:
                self._say(f"     {name:<14}  done in {_spoken(time - self._started[name])}")

    def _fail(self, name: str, logs: list[Path]) -> None:
        if name in self._failed:
            return
        self._failed.add(name)
        for log in filter(Path.is_file, logs):
            end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
            self._say(f"error: {name} failed; {log} ends with", *(f"     {line}" for line in end))
        self._say("`make demo` will go on from here once that is mended.")

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._stream, flush=True)


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


class LogHandler(LogHandlerBase):
    """The narrator as a logger plugin of Snakemake, in place of its own messages."""

    # Plain values serve for the base's properties.
    writes_to_stream = has_filter = has_formatter = True  # pyright: ignore[reportAssignmentType]
    writes_to_file = needs_rulegraph = False  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        stream = sys.__stderr__ or sys.stderr  # `main` keeps what Snakemake itself writes to the latter
        self._narrator = Narrator(files.read_yaml(PROFILE / "stages.yaml"), stream)

    def emit(self, record: logging.LogRecord) -> None:
        self._narrator.hear(record)


def run(targets: list[str]) -> int:
    """Make the targets; returns Snakemake's status. What the stages print, which is in their logs as well, is not shown.

    From the project's folder, and once in a process: its stdout is closed for good.
    """
    if not PROFILE.is_dir():
        print(
            f"error: {PROFILE}: not in this folder; the demo runs in a checkout of the project",
            file=sys.stderr,
        )
        return 1
    from snakemake import cli as snakemake  # takes a second

    # Snakemake looks for plugins among the packages that are installed; this module is one without being a package.
    LoggerPluginRegistry().register_plugin(f"snakemake_logger_plugin_{LOGGER}", sys.modules[__name__])
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    unlogged = io.StringIO()
    status = 0
    try:
        with contextlib.redirect_stderr(unlogged):
            snakemake.main(["--profile", str(PROFILE), "--logger", LOGGER, "--", *targets])
    except SystemExit as end:
        status = int(end.code or 0)
    if status:
        lines = unlogged.getvalue().splitlines(keepends=True)
        sys.stderr.writelines(line for line in lines if not line.startswith("Using profile"))
    return status
