"""What the trackers are told of a stage: one JSON object a line, only ever added to.

`results/tracking/{run}/{configuration}/{stage}.jsonl` outlives kills and outages: from it every tracker is brought up to date,
by the stage itself or later.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.paths import METRICS, Layout, Run
from workflow_scripts.tracking import names
from workflow_scripts.training import checkpoints

Event = dict[str, Any]  # "kind", "time" in ms since 1970, and what `tracker.Tracker` takes of that kind
RESUMED = ("sft", "dpo")  # stages that go on where they were killed


@dataclass(frozen=True)
class StageStart:
    """A stage begins, or goes on (`resumed`): then the `attempt`, which trackers know a run by, is that of before."""

    attempt: str
    resumed: bool
    run: Run
    stage: str
    configuration: str
    parameters: dict[str, Any]
    about: dict[str, Any]
    time: int


class Journal:
    """The journal of one stage of one configuration of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BufferedRandom | None = None
        known = [event for event, _ in self.read()]
        steps = (event["step"] for event in self._attempt(known) if event["kind"] == "curve")
        self.last_step = max(steps, default=-1)
        self.attempt: str | None = next(
            (event["attempt"] for event in reversed(known) if event["kind"] == "open"), None
        )
        ends = [event for event in known if event["kind"] in ("open", "close")]
        self.is_open = bool(ends) and ends[-1]["kind"] == "open"
        self.closed: Event | None = ends[-1] if ends and not self.is_open else None
        listed = [event["kept"] for event in self._attempt(known) if event["kind"] == "checkpoints"]
        self.kept: list[dict[str, Any]] = listed[-1] if listed else []

    def read(self, start: int = 0, end: int | None = None) -> Iterator[tuple[Event, int]]:
        """(event, where its line ends) of the lines between two places; a last one that a kill cut off is none."""
        if not self.path.is_file():
            return
        with open(self.path, "rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                if not line.endswith(b"\n") or (end is not None and start > end):
                    return
                yield json.loads(line), start

    def hold(self) -> bool:
        """Take it for this process, until `release`; False where another one has it: that one is alive."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "a+b")  # noqa: SIM115 - open as long as it is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        self._file = file
        return True

    def release(self) -> None:
        if self._file:
            self._file.close()
        self._file = None

    def append(self, kind: str, **values: Any) -> None:
        """Add a line; the file must be held."""
        assert self._file, "not held"
        event = {"kind": kind, "time": int(time.time() * 1000), **values}
        self._file.write(json.dumps(event, ensure_ascii=False, default=str).encode() + b"\n")
        self._file.flush()
        match kind:
            case "curve":
                self.last_step = values["step"]
            case "checkpoints":
                self.kept = values["kept"]
            case "open" | "close":
                self.is_open = kind == "open"
                self.closed = None if self.is_open else event

    def begin(self, resumed: bool, **start: Any) -> None:
        """The stage begins: as the attempt of before, or as a new one, which closes that."""
        if not resumed and self.kept:  # to start over is to have removed them
            self.append("checkpoints", kept=[])
        if self.is_open and not resumed:
            self.append("close", status="KILLED")
        if not (resumed and self.attempt):
            self.attempt, self.last_step, resumed = uuid.uuid4().hex, -1, False
        self.append("open", attempt=self.attempt, resumed=resumed, **start)

    @staticmethod
    def _attempt(events: list[Event]) -> list[Event]:
        """The events of the last attempt."""
        first = 0
        for number, event in enumerate(events):
            if event["kind"] == "open" and not event["resumed"]:
                first = number
        return events[first:]


def start_of(event: Event) -> StageStart:
    """The StageStart that an "open" line states."""
    values = {key: value for key, value in event.items() if key != "kind"}
    return StageStart(**{**values, "run": Run(*values["run"].split("_"))})


def path_of(layout: Layout, run: Run, configuration: str, stage: str) -> Path:
    """Where the journal of a stage lies."""
    return layout.journals() / str(run) / configuration / f"{stage}.jsonl"


def all_of(layout: Layout, run: Run | None = None) -> Iterator[Path]:
    """The journals that there are, or those of one run, oldest first."""
    found = (layout.journals() / str(run) if run else layout.journals()).glob("**/*.jsonl")
    return iter(sorted(found, key=lambda path: path.stat().st_mtime))


def settle(layout: Layout, run: Run | None = None) -> list[Path]:
    """Say of each stage whose process ended without a word that it was killed, and of checkpoints that they are gone.

    Those that another training removed, or a person. Returns the journals that have a new line.
    """
    settled = []
    for path in all_of(layout, run):
        journal = Journal(path)
        left = [entry for entry in journal.kept if is_there(layout.root, entry)]
        if (journal.is_open or left != journal.kept) and journal.hold():
            _settle(journal, left)
            journal.release()
            settled.append(path)
    return settled


def _settle(journal: Journal, left: list[dict[str, Any]]) -> None:
    ended = {"status": "KILLED"}
    if journal.closed:  # whoever reads on from before opens it again
        ended = {key: value for key, value in journal.closed.items() if key != "kind"}
    if left != journal.kept:
        journal.append("checkpoints", kept=left)
    journal.append("close", **ended)


def digest(path: Path) -> str | None:
    """Of a file, or of the model in a folder; None where it is not there."""
    file = path / METRICS if path.is_dir() else path
    return files.sha256(file) if file.is_file() else None


def entries(layout: Layout, folder: Path) -> list[dict[str, Any]]:
    """The checkpoints in `folder` as a line names them, each with the numbers of the validation at its step."""
    return [
        {
            "path": stored(layout, found.folder),
            "step": found.step,
            "fingerprint": found.fingerprint,
            "values": names.of_validation(found.history(), found.step),
        }
        for found in checkpoints.kept(folder)
    ]


def is_there(root: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the checkpoint that a line, or MLflow, names below `root` is on the disk, and no other in its place."""
    return bool(checkpoints.fingerprint(root / entry["path"]) == entry["fingerprint"])


def stored(layout: Layout, path: Path) -> str:
    """`path` as a line names it: relative to the results, which may be moved, where it lies in them or was fetched there."""
    whole = Path(os.path.abspath(path))
    moves_along = whole.is_relative_to(os.path.abspath(layout.fetched))
    return os.path.relpath(whole, layout.root) if moves_along else str(whole)
