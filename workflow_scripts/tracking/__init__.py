"""Mirrors of a stage's numbers: MLflow, TensorBoard, Weights & Biases.

The JSON files under results/ are the truth. What trackers are told is written to a journal first, and sent from there: a
tracker that fails, or comes back after a kill, misses nothing and gets nothing twice. It never fails the stage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow_scripts.base import credentials, files, versions
from workflow_scripts.base.errors import Terminated, brief
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration import dependencies, text
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import journal, names, surroundings
from workflow_scripts.tracking.journal import RESUMED, Journal
from workflow_scripts.tracking.mlflow_runs import MlflowTracker
from workflow_scripts.tracking.mlflow_store import prepare_store, tracking_uri
from workflow_scripts.tracking.tensorboard_events import TensorboardTracker
from workflow_scripts.tracking.tracker import Dataset, Outbox, Sender, Tracker, warn
from workflow_scripts.tracking.wandb_runs import WandbTracker

if TYPE_CHECKING:
    from transformers import TrainerCallback

logger = logging.getLogger(__name__)

LOCK_FILE = Path(__file__).parents[2] / "requirements.lock"
TRACKERS: dict[str, type[Tracker]] = {
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
}


class Recorder:
    """One stage of one run, as every switched-on tracker will see it; without a journal, nothing is kept."""

    def __init__(
        self,
        layout: Layout,
        lines: Journal | None = None,
        start: Mapping[str, Any] | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout, self._journal, self._start = layout, lines, start or {}
        self._settle = settle
        self._senders: list[Sender] = []
        self._trains = False
        self._before: list[tuple[str, dict[str, Any]]] = []  # what was said before a training began

    def send_to(self, outboxes: list[Outbox]) -> None:
        """Send what is recorded, from now on and what has been."""
        self._senders = [Sender(outbox) for outbox in outboxes]

    @property
    def records(self) -> bool:
        return self._journal is not None

    def begin(self, resumed: bool) -> None:
        """The stage begins, or goes on as the attempt of before."""
        if self._journal:
            self._journal.begin(resumed, **self._start)
        self._notify()

    def train_from(self, step: int) -> None:
        """A training begins after `step`: at 0 it starts over, and the curve that there is was of another attempt."""
        self._trains = True
        if self._journal and step == 0 and self._journal.last_step > 0:
            self.begin(resumed=False)
            for kind, values in self._before:
                self._add(kind, **values)
        self._settle()  # it has removed the checkpoints of another configuration

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the curves; a step that is known already, from before a kill, is left out."""
        if self._journal and step > self._journal.last_step and values:
            self._add("curve", step=step, values={**values, **surroundings.usage()})

    def metrics(self, values: Mapping[str, object]) -> None:
        """The stage's numbers, named by the way to them; what is no number is left out."""
        self._add("metrics", values=names.numbers(values))

    def artifact(self, path: Path, folder: str = "", pictures: bool = False) -> None:
        """A file; one that has `pictures` of the data is sent only where trackers may have these."""
        self._add_file("artifact", path, folder=folder, pictures=pictures)

    def table(self, path: Path, name: str) -> None:
        """The predictions of a JSONL file, a sample of which is shown as a table where the tracker can."""
        self._add_file("table", path, name=name)

    def dataset(self, path: Path, digest: str, context: str, part: str = "") -> None:
        """A file of records that the stage reads, or a `part` of it, for `context`: training, validation, evaluation."""
        name = "/".join(filter(None, (path.parent.name, path.stem, part)))
        found = Dataset(name, digest, journal.stored(self._layout, path), context)
        self._add("dataset", dataset=asdict(found))

    def checkpoints(self, folder: Path) -> None:
        """The checkpoints of a training are those in `folder` now."""
        if self._journal:
            kept = journal.entries(self._layout, folder)
            if kept != self._journal.kept:
                self._add("checkpoints", kept=kept)

    def model(self, folder: Path, step: int) -> None:
        """A model that was trained, after `step`."""
        self._add_file("model", folder, step=step)

    def close(self, status: str, reason: str = "") -> None:
        """The stage has ended: FINISHED, FAILED or KILLED; `reason` is its error."""
        if self._journal:
            self._add("metrics", values=surroundings.peaks())
            self._add("close", status=status, reason=reason)
            for sender in self._senders:
                sender.close()
            self._journal.release()

    def callbacks(self) -> list["TrainerCallback"]:
        """Trainer callbacks that record the curve while the training runs."""
        if not self.records:
            return []
        from workflow_scripts.tracking.trainer_callback import Mirror

        return [Mirror(self)]

    def _add_file(self, kind: str, path: Path, **values: Any) -> None:
        """A line about what lies at `path` now; the same place may have another before the line is sent."""
        if self._journal:
            self._add(kind, path=journal.stored(self._layout, path), digest=journal.digest(path), **values)

    def _add(self, kind: str, **values: Any) -> None:
        if not self._trains:
            self._before.append((kind, values))
        if self._journal:
            try:
                self._journal.append(kind, **values)
            except OSError as error:  # a full disk, of which the stage itself will tell
                warn("tracking", error)
                self._journal = None
            self._notify()

    def _notify(self) -> None:
        for sender in self._senders:
            sender.notify()


@contextmanager
def stage(
    settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
) -> Iterator[Recorder]:
    """Record stage `name` of `run`; only the first of several processes does."""
    record = _recorder(settings, layout, run, name, parameters)
    status, reason = "FINISHED", ""
    try:
        yield record
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"
        reason = f"{type(error).__name__}: {credentials.hidden(brief(error))}"
        raise
    finally:
        record.close(status, reason)


def _recorder(
    settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
) -> Recorder:
    if processes().rank or not settings.tracking:
        return Recorder(layout)
    configuration = dependencies.run_fingerprint(settings, run)
    lines = Journal(journal.path_of(layout, run, configuration, name))
    if not lines.hold():
        logger.warning("%s: another process records this stage; this one is not recorded", lines.path)
        return Recorder(layout)
    manifests = [layout.raw_manifest(source) for source in settings.sources(run.dataset)]
    manifests = [*manifests, layout.model(run.model_version, run.mode) / MANIFEST]
    digests = {
        path.parent.name: files.read_value(path, "fingerprint") for path in manifests if path.is_file()
    }
    opened = {
        "run": str(run),
        "stage": name,
        "configuration": configuration,
        "parameters": names.flatten({**parameters, "version": versions.RESULTS.get(name)}),
        "about": {
            **surroundings.about(),
            "manifests": digests,
            "settings": text.to_yaml(settings),
            "whole_settings": settings.of_run[1],
        },
    }
    record = Recorder(layout, lines, opened, partial(_settle, settings, layout, run))
    record.begin(resumed=name in RESUMED)
    for path in filter(Path.is_file, manifests):
        record.artifact(path, f"manifests/{path.parent.name}")
    if LOCK_FILE.is_file():
        record.artifact(LOCK_FILE, "environment")
    record.send_to(_outboxes(settings, layout, lines))
    _settle(settings, layout, run)
    return record


def _outboxes(settings: Config, layout: Layout, lines: Journal) -> list[Outbox]:
    """One for each tracker that is switched on and can be imported."""
    found = []
    for name in settings.tracking:
        try:
            TRACKERS[name].load()
        except Exception as error:  # not installed, or broken in any way
            warn(name, error)
        else:
            found.append(Outbox(lines, name, partial(TRACKERS[name], settings, layout), layout))
    return found


def _send(settings: Config, layout: Layout, path: Path) -> dict[str, int | Exception]:
    """Send what waits in a journal, by tracker: how many lines, or what went wrong."""
    lines, found = Journal(path), dict[str, int | Exception]()
    if not lines.hold():
        return {}  # its stage is at work, and sends it
    for outbox in _outboxes(settings, layout, lines):
        try:
            found[outbox.name] = outbox.send()
        except Exception as error:  # as in Sender
            found[outbox.name] = error
    lines.release()
    return found


def prepare(settings: Config, layout: Layout) -> None:
    """Create the MLflow store once, before jobs start that would race for it, and close what was killed."""
    if "mlflow" in settings.tracking:
        try:
            prepare_store(tracking_uri(settings, layout), layout)
        except Exception as error:  # as in Sender
            warn("mlflow", error)
            return
    _settle(settings, layout)


def _settle(settings: Config, layout: Layout, run: Run | None = None) -> None:
    """Say, of a run or of all, what was killed and which checkpoints are gone."""
    for path in journal.settle(layout, run):
        _send(settings, layout, path)


def sync(settings: Config, layout: Layout) -> dict[str, dict[str, int | Exception]]:
    """Send what trackers have missed: by journal and tracker how many lines, or what went wrong."""
    journal.settle(layout)
    return {
        str(path.relative_to(layout.journals())): _send(settings, layout, path)
        for path in journal.all_of(layout)
    }
