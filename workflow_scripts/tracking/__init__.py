"""Mirrors of a stage's numbers: MLflow, TensorBoard, Weights & Biases.

The JSON files under results/ are the truth. A tracker that fails is warned about once and left alone for the
rest of the stage; it never fails the stage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflow_scripts.base import credentials, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import flatten
from workflow_scripts.tracking.mlflow_runs import MlflowTracker, prepare_store, tracking_uri
from workflow_scripts.tracking.tensorboard_events import TensorboardTracker
from workflow_scripts.tracking.wandb_runs import WandbTracker

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """A mirror of one stage of one run."""

    def curve(self, step: int, values: dict[str, float]) -> None: ...
    def metrics(self, values: dict[str, float]) -> None: ...
    def artifact(self, path: Path) -> None: ...
    def table(self, rows: Sequence[Mapping[str, object]], name: str) -> None: ...
    def close(self, failed: bool) -> None: ...


TRACKERS: dict[str, Callable[[Config, Layout, Run, str, Mapping[str, object]], Tracker]] = {
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
}


class Recorder:
    """One stage of one run, as every switched-on tracker sees it."""

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}

    def open(self, name: str, start: Callable[[], Tracker]) -> None:
        try:
            self._trackers[name] = start()
        except UserError:  # the stage itself will not get further
            raise
        except Exception as error:  # a tracker may fail in any way; the stage goes on
            _warn(name, error)

    def curve(self, step: int, values: dict[str, float]) -> None:
        """One point of the training curve."""
        self._each(lambda tracker: tracker.curve(step, values))

    def metrics(self, values: Mapping[str, object]) -> None:
        """The stage's numbers, nested ones by dotted names; what is no number is left out."""
        numbers = {name: value for name, value in flatten(values).items() if _is_number(value)}
        self._each(lambda tracker: tracker.metrics(numbers))

    def artifact(self, path: Path) -> None:
        self._each(lambda tracker: tracker.artifact(path))

    def table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        """Rows with the same keys, shown as a table where the tracker can."""
        self._each(lambda tracker: tracker.table(rows, name))

    def close(self, failed: bool) -> None:
        self._each(lambda tracker: tracker.close(failed))

    def callbacks(self) -> list["TrainerCallback"]:
        """Trainer callbacks that mirror the curve while the training runs."""
        from transformers import TrainerCallback

        record = self

        class Mirror(TrainerCallback):
            def on_log(
                self,
                args: "TrainingArguments",
                state: "TrainerState",
                control: "TrainerControl",
                logs: dict[str, Any] | None = None,
                **kwargs: Any,
            ) -> None:
                numbers = {key: float(value) for key, value in (logs or {}).items() if _is_number(value)}
                record.curve(state.global_step, numbers)

        return [Mirror()] if self._trackers else []

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                action(tracker)
            except Exception as error:  # as in `open`
                _warn(name, error)
                del self._trackers[name]


def _warn(name: str, error: Exception) -> None:
    text = credentials.without(" ".join(str(error).split()))[:200]
    logger.warning("%s is not recording (%s: %s); results/ has everything", name, type(error).__name__, text)


@contextmanager
def stage(
    settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
) -> Iterator[Recorder]:
    """Record stage `name` of `run`; only the first of several processes does."""
    record = Recorder()
    recorded = {**parameters, "version": versions.RESULTS.get(name)}
    if processes().rank == 0:
        for tracker in settings.tracking:
            record.open(tracker, partial(TRACKERS[tracker], settings, layout, run, name, recorded))
    failed = True
    try:
        yield record
        failed = False
    finally:
        record.close(failed)


def prepare(settings: Config, layout: Layout) -> None:
    """Create the MLflow store once, before jobs start that would race for it."""
    if "mlflow" in settings.tracking:
        try:
            prepare_store(tracking_uri(settings, layout), layout)
        except Exception as error:  # as in Recorder.open
            _warn("mlflow", error)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
