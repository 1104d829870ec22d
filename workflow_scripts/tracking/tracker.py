"""The interface of a tracker, and how a journal is sent to one: each line once."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.base import credentials, files
from workflow_scripts.base.errors import brief
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.journal import Event, Journal, StageStart, digest, is_there, start_of

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0  # seconds, after which a tracker that failed is tried again
LAST_WAIT = 60.0  # seconds that a stage which has ended waits for a tracker


@dataclass(frozen=True)
class Dataset:
    """What a stage reads: `source` is a path, relative to the results, and `context` what it serves for."""

    name: str
    digest: str
    source: str
    context: str


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint of a training, with the numbers of the validation at its `step`."""

    folder: Path
    step: int
    fingerprint: str
    values: dict[str, float]


class Tracker:
    """A mirror of stages. What it has no place for it leaves out: it overrides what it keeps.

    What is handed over lies where it lay when the stage told of it, and is the same. `time` is in milliseconds since 1970.
    """

    def __init__(self, settings: Config, layout: Layout) -> None:
        self.settings, self.layout = settings, layout

    @classmethod
    def load(cls) -> None:
        """Import its libraries: in the main thread, for two threads that import at once may meet half a module."""

    @property
    def destination(self) -> str:
        """Where it sends things; another destination is sent everything."""
        return ""

    def knows(self, start: StageStart) -> bool:
        """Whether what was sent of this attempt is still there."""
        return True

    def refuses(self, error: Exception) -> bool:
        """Whether what was sent is wrong, and would be another time."""
        return False

    def open(self, start: StageStart, fresh: bool) -> None:
        """The attempt that `start` names begins (`fresh`), or goes on."""

    def curve(self, step: int, values: dict[str, float], time: int) -> None:
        """A point of each named curve."""

    def metrics(self, values: dict[str, float], time: int) -> None:
        """Numbers of the whole stage, a later one in place of an earlier."""

    def artifact(self, path: Path, folder: str) -> None:
        """A file, to be kept in `folder`."""

    def table(self, path: Path, name: str) -> None:
        """The rows of a JSONL file of predictions, of which a sample is shown."""

    def dataset(self, dataset: Dataset) -> None:
        """What the stage reads."""

    def checkpoints(self, kept: list[KeptCheckpoint], time: int) -> None:
        """The checkpoints of the attempt that there are; those of before are gone."""

    def model(self, folder: Path, step: int, time: int) -> None:
        """A model that the stage has trained."""

    def close(self, status: str, reason: str, time: int) -> None:
        """The stage has ended, as FINISHED, FAILED or KILLED; `reason` is its error, "" where it ended without a word.

        An attempt that was killed may go on later.
        """


class Outbox:
    """Sends a journal to a tracker. How far it has come, in bytes, is kept in `{stage}.{name}.json` beside it."""

    def __init__(self, journal: Journal, name: str, make: Callable[[], Tracker], layout: Layout) -> None:
        self.name = name
        self._journal, self._make, self._layout = journal, make, layout
        self._cursor = journal.path.with_name(f"{journal.path.stem}.{name}.json")
        self._tracker: Tracker | None = None
        self._sent = 0
        self._goes_on: StageStart | None = None  # what is to be opened before the next line

    def waiting(self) -> int:
        """How many lines are not through, for all that is known here."""
        return sum(1 for _ in self._journal.read(int(self._kept().get("sent", 0))))

    def send(self) -> int:
        """Send what is not through; returns how many lines. An error leaves the rest for the next time."""
        try:
            if self._tracker is None:
                self._tracker = self._connect()
            count = 0
            for event, end in self._journal.read(self._sent):
                if self._goes_on:
                    self._tracker.open(self._goes_on, fresh=False)
                    self._goes_on = None
                try:
                    self._deliver(event)
                except Exception as error:
                    if not (self._tracker and self._tracker.refuses(error)):
                        raise
                    logger.warning(
                        "%s does not take a line of %s: %s", self.name, event["kind"], brief(error)
                    )
                self._sent = end
                self._keep()
                count += 1
            return count
        except BaseException:
            self._tracker = None
            raise

    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = files.read_json(self._cursor) if self._cursor.is_file() else {}
        return kept

    def _connect(self) -> Tracker:
        tracker, kept = self._make(), self._kept()
        sent = kept["sent"] if kept.get("destination") == tracker.destination else 0
        opened = [event for event, _ in self._journal.read(end=sent) if event["kind"] == "open"]
        start = start_of(opened[-1]) if opened else None
        self._goes_on = start if start and tracker.knows(start) else None
        self._sent = sent if self._goes_on else 0
        return tracker

    def _keep(self) -> None:
        assert self._tracker
        files.write_json(self._cursor, {"destination": self._tracker.destination, "sent": self._sent})

    def _deliver(self, event: Event) -> None:
        tracker, when = self._tracker, event["time"]
        assert tracker
        path = self._layout.root / event.get("path", "")  # an absolute one stays
        is_same = "path" in event and path.exists() and digest(path) == event.get("digest")
        match event["kind"]:
            case "open":
                tracker.open(start_of(event), fresh=not event["resumed"])
            case "curve":
                tracker.curve(event["step"], event["values"], when)
            case "metrics":
                tracker.metrics(event["values"], when)
            # By the present setting: the line may be older, and the destination another.
            case "artifact" if is_same and (tracker.settings.tracking_images or not _has_pictures(event)):
                tracker.artifact(path, event["folder"])
            case "table" if is_same:
                tracker.table(path, event["name"])
            case "dataset":
                tracker.dataset(Dataset(**event["dataset"]))
            case "checkpoints":
                tracker.checkpoints(self._left(event["kept"]), when)
            case "model" if is_same:
                tracker.model(path, event["step"], when)
            case "close":
                tracker.close(event["status"], event.get("reason", ""), when)

    def _left(self, entries: list[dict[str, Any]]) -> list[KeptCheckpoint]:
        """Those of a line that are there still: it may be sent late."""
        return [
            KeptCheckpoint(
                self._layout.root / entry["path"], entry["step"], entry["fingerprint"], entry["values"]
            )
            for entry in entries
            if is_there(self._layout.root, entry)
        ]


def _has_pictures(event: Event) -> bool:
    """Of an artifact's line; an older one does not say, but pages alone had some."""
    return bool(event.get("pictures", event["folder"] == "pages"))


class Sender:
    """Sends a journal from a thread of its own: whoever writes it never waits for the tracker."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self._news, self._ending = threading.Event(), False
        self._again, self._pause = 0.0, FIRST_PAUSE
        self._thread = threading.Thread(target=self._run, name=f"tracking-{outbox.name}", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """There is a new line."""
        self._news.set()

    def close(self) -> None:
        """Try once more, whatever came before, and wait for that a while."""
        self._ending = True
        self._news.set()
        self._thread.join(LAST_WAIT)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            ending = self._ending
            if ending or time.monotonic() >= self._again:
                self._try()
            if ending:
                return

    def _try(self) -> None:
        try:
            self.outbox.send()
            self._pause = FIRST_PAUSE
        except Exception as error:  # a tracker may fail in any way; the stage goes on
            if self._pause == FIRST_PAUSE:
                warn(self.outbox.name, error)
            self._again = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)


def warn(name: str, error: Exception) -> None:
    """Say in one line, without credentials, that a tracker fails and what becomes of what it misses."""
    text = credentials.hidden(" ".join(str(error).split()))[:200]
    logger.warning(
        "%s is not recording (%s: %s); results/ has everything, and "
        "`python -m workflow_scripts.tracking --sync` sends it later",
        name,
        type(error).__name__,
        text,
    )
