"""How far each run is, by the files under results/ and, where there is one, SLURM's queue."""

import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.columns import aligned
from workflow_scripts.base.errors import UserError, unknown
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.base.processes import is_running
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.settings import Config

TAIL = 2**16  # bytes of a log that are looked at for progress
WIDEST = 100  # characters of a reason
HEADER = ("run", "stage", "state", "reason", "log", "how to go on")
# The lines of training/progress.py and evaluation/asking.py.
PROGRESS = re.compile(
    r"step (?P<step>\d+/\d+)  loss (?P<loss>\S+).*?(?P<rows>[\d.]+) rows/s.*?  (?P<left>\S+) left"
    r"|(?P<asked>\d+ of \d+ questions), (?P<rate>[\d.]+) a second, (?P<minutes>\d+) minutes left"
)


@dataclass(frozen=True)
class Job:
    """A job of a run: what it writes, its log, and what SLURM's plugin for Snakemake calls it."""

    stage: str
    outputs: tuple[Path, ...]
    log: Path
    comment: str


@dataclass(frozen=True)
class StatusLine:
    """A line of the table."""

    run: str
    stage: str
    state: str
    reason: str = ""
    log: str = ""
    go_on: str = ""


def command(settings: Config, layout: Layout, names: Iterable[str] = ()) -> None:
    """Print the table of all runs, or of those named."""
    known = {str(run): run for run in runs.chosen(settings)}
    if strange := [name for name in names if name not in known]:
        raise UserError(f"RUN: {unknown(strange[0], known)}")
    queue = SlurmQueue()
    chosen = [known[name] for name in names] or list(known.values())
    print(table([row for run in chosen for row in rows(settings, layout, run, queue)]))


class SlurmQueue:
    """The user's jobs in SLURM's queue: asked once, and only where there may be one."""

    def __init__(self) -> None:
        jobs = slurm.queued(slurm.ask(*slurm.QUEUE).text)
        self._by_number = {job.number: job for job in jobs}
        self._by_comment = {job.comment: job for job in jobs if job.folder == os.getcwd()}

    def waiting(self, comment: str) -> slurm.QueuedJob | None:
        """The job of this comment, if it waits for a node."""
        found = self._by_comment.get(comment)
        return found if found and (found.state == "PENDING" or found.held) else None

    def lives(self, number: str) -> bool:
        """Whether a job has not ended."""
        found = self._by_number.get(number)
        return found is not None and found.state not in slurm.ENDED


def jobs(settings: Config, layout: Layout, run: Run) -> Iterator[Job]:
    """The jobs that make the evaluation of a run, in the order of the chain."""

    def job(stage: str, name: str, *outputs: Path, rule: str = "") -> Job:
        comment = f"rule_{rule or stage}_wildcards_{name}".replace("/", "_")
        return Job(stage, outputs, layout.log(stage, name), comment)

    for source in settings.sources(run.dataset):
        yield job("download", source, layout.raw_manifest(source))
    model = f"{run.model_version}_{run.mode}"
    manifest = layout.model(run.model_version, run.mode) / MANIFEST
    yield job("download", model, manifest, rule="download_model")
    yield job("convert", str(run), layout.data_summary(run))
    yield job("validate", str(run), layout.validation(run))
    yield job("sft", str(run), layout.metrics("sft", run))
    yield job("preferences", str(run), layout.pairs_summary(run))
    yield job("dpo", str(run), layout.metrics("dpo", run))
    asked = runs.settings_of(settings, run).evaluation.asked.values()
    for kind, variant in dict.fromkeys(asked):
        answers = layout.answers(run, kind, variant)
        named = job("ask", f"{run}/{kind}.{variant}", answers)
        yield Job(named.stage, named.outputs, named.log, f"rule_ask_wildcards_{run}_{kind}_{variant}")
    yield job("evaluate", str(run), layout.evaluation(run))


def rows(settings: Config, layout: Layout, run: Run, queue: SlurmQueue) -> list[StatusLine]:
    """The table of one run; jobs of which there is nothing to say share a line."""
    limited = f"--config limit={settings.limit} -- " if settings.limit else ""
    again = f"snakemake {limited}{layout.evaluation(run)}"
    found = [_row(layout, run, job, queue, again) for job in jobs(settings, layout, run)]
    if all(row.state == "done" for row in found):
        return [StatusLine(str(run), "all", "done", log=str(layout.evaluation(run)))]
    result: list[StatusLine] = []
    for (state, plain), group in groupby(found, key=lambda row: (row.state, not row.log)):
        if plain:
            stages = ", ".join(dict.fromkeys(row.stage for row in group))
            result.append(StatusLine(str(run), stages, state))
        else:
            result += group
    return result


def _row(layout: Layout, run: Run, job: Job, queue: SlurmQueue, again: str) -> StatusLine:
    note = attempts.read(attempts.note_of(job.log))
    waiting = queue.waiting(job.comment)
    if waiting:
        before = f", after {note.reason or note.state}" if note else ""
        return StatusLine(str(run), job.stage, "queued", waiting.reason + before, str(job.log))
    if note is None:
        return StatusLine(
            str(run), job.stage, "done" if all(path.exists() for path in job.outputs) else "waiting"
        )
    state, reason = note.state, note.reason
    if state == "running" and (ended := _ended(note, queue)):
        state, reason = "stopped", ended
    if state == "running":
        return StatusLine(str(run), job.stage, state, progress(job.log), str(job.log))
    return StatusLine(
        str(run), job.stage, state, _short(reason), str(job.log), _go_on(again, layout, run, job, state)
    )


def _ended(note: attempts.Note, queue: SlurmQueue) -> str:
    """How an attempt that has said nothing of its end has ended; "" where it runs, or where nobody can tell."""
    if note.slurm_job:
        if queue.lives(note.slurm_job):
            return ""
        if note.end:
            return note.end
        state = slurm.state_of(note.slurm_job)
        if state == "":
            return f"SLURM does not know job {note.slurm_job} any more"
        return state if state in slurm.ENDED else ""
    if note.host == socket.gethostname() and not is_running(note.process):
        return "killed"
    return ""


def _go_on(again: str, layout: Layout, run: Run, job: Job, state: str) -> str:
    if state == "failed":
        return f"mend that, then {again}"
    steps = [path.name.partition("-")[2] for path in layout.checkpoints(job.stage, run).glob("checkpoint-*")]
    newest = max((int(step) for step in steps if step.isdigit()), default=None)
    return again + ("" if newest is None else f" (goes on from step {newest})")


def progress(log: Path) -> str:
    """The last that a training or a model that is asked has said of its progress; "" before it has."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    *_, last = (None, *PROGRESS.finditer(text))
    if last is None:
        return ""
    if last["asked"]:
        return f"{last['asked']}, {last['rate']} a second, {last['minutes']} min left"
    return f"step {last['step']}, loss {last['loss']}, {last['rows']} rows/s, {last['left']} left"


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def table(found: list[StatusLine]) -> str:
    """The rows below a header, in columns."""
    lines = [HEADER, *((row.run, row.stage, row.state, row.reason, row.log, row.go_on) for row in found)]
    return "\n".join(line.rstrip() for line in aligned(lines, left=len(HEADER)))
