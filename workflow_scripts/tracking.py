"""Mirrors of a stage's numbers: MLflow, TensorBoard, Weights & Biases.

The JSON files under results/ are the truth. A tracker that fails is warned about once and left alone for the
rest of the stage; it never fails the stage.
"""

import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow_scripts import cli, config, config_text, credentials, files
from workflow_scripts.errors import UserError
from workflow_scripts.paths import Layout, Run

logger = logging.getLogger(__name__)

EXPERIMENT = "glm-medvqa"


class Record:
    """One stage of one run, as every switched-on tracker sees it."""

    def __init__(self) -> None:
        self._trackers: dict[str, Any] = {}

    def open(self, name: str, start: Callable[[], Any]) -> None:
        try:
            self._trackers[name] = start()
        except UserError:  # the stage itself will not get further
            raise
        except Exception as error:  # a tracker may fail in any way; the stage goes on
            _warn(name, error)

    def curve(self, step: int, values: dict[str, float]) -> None:
        """One point of the training curve."""
        self._each(lambda tracker: tracker.curve(step, values))

    def metrics(self, values: dict) -> None:
        """The stage's numbers, nested ones by dotted names; what is no number is left out."""
        numbers = {name: value for name, value in flatten(values).items() if _is_number(value)}
        self._each(lambda tracker: tracker.metrics(numbers))

    def artifact(self, path: Path) -> None:
        self._each(lambda tracker: tracker.artifact(path))

    def table(self, rows: list[dict], name: str) -> None:
        """Rows with the same keys, shown as a table where the tracker can."""
        self._each(lambda tracker: tracker.table(rows, name))

    def close(self, failed: bool) -> None:
        self._each(lambda tracker: tracker.close(failed))

    def callbacks(self) -> list:
        """Trainer callbacks that mirror the curve while the training runs."""
        from transformers import TrainerCallback

        record = self

        class Mirror(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **kwargs):
                record.curve(
                    state.global_step, {key: float(value) for key, value in logs.items() if _is_number(value)}
                )

        return [Mirror()] if self._trackers else []

    def _each(self, action: Callable[[Any], None]) -> None:
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
def stage(settings: config.Config, layout: Layout, run: Run, name: str, parameters: dict) -> Iterator[Record]:
    """Record stage `name` of `run`; only the first of several processes does."""
    record = Record()
    if int(os.environ.get("RANK", 0)) == 0:
        for tracker in settings.tracking:
            record.open(
                tracker, lambda kind=_TRACKERS[tracker]: kind(settings, layout, run, name, parameters)
            )
    failed = True
    try:
        yield record
        failed = False
    finally:
        record.close(failed)


class MlflowTracker:
    """A parent run per (dataset, model version, mode), a child run per stage."""

    def __init__(
        self, settings: config.Config, layout: Layout, run: Run, name: str, parameters: dict
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        self.Metric = Metric
        uri = tracking_uri(settings, layout)
        experiment = prepare_store(uri, layout)
        self.client = MlflowClient(uri)
        commit = git_commit()
        parent = self._parent(experiment, run, commit)
        tags = {"mlflow.parentRunId": parent, "stage": name, "run": str(run), "git_commit": commit}
        child = self.client.create_run(experiment, run_name=f"{run} {name}", tags=tags)
        self.run_id, self.parent = child.info.run_id, parent
        params = [Param(key, str(value)[:6000]) for key, value in flatten(parameters).items()]
        self.client.log_batch(self.run_id, params=params[:100])
        manifests = [layout.raw(source) / "manifest.json" for source in settings.sources(run.dataset)]
        manifests.append(layout.model(run.model_version, run.mode) / "manifest.json")
        for manifest in manifests:
            if manifest.is_file():
                self.client.log_artifact(self.run_id, str(manifest), f"manifests/{manifest.parent.name}")
                fingerprint = files.read_json(manifest)["fingerprint"]
                self.client.set_tag(self.run_id, f"manifest.{manifest.parent.name}", fingerprint)
        self.client.log_text(self.run_id, config_text.to_yaml(settings), "config.yaml")
        self.client.log_batch(parent, tags=[RunTag("git_commit", commit)])

    def _parent(self, experiment: str, run: Run, commit: str) -> str:
        found = self.client.search_runs(
            [experiment], f"tags.level = 'run' and tags.run = '{run}'", max_results=1
        )
        if found:
            return found[0].info.run_id
        tags = {"level": "run", "run": str(run), "git_commit": commit}
        created = self.client.create_run(experiment, run_name=str(run), tags=tags).info.run_id
        for key in ("dataset", "model_version", "mode"):
            self.client.log_param(created, key, getattr(run, key))
        return created

    def curve(self, step: int, values: dict[str, float]) -> None:
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self.client.log_batch(
            self.run_id, [self.Metric(_safe(key), value, now, step) for key, value in values.items()]
        )

    def metrics(self, values: dict[str, float]) -> None:
        self.curve(0, values)

    def artifact(self, path: Path) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def table(self, rows: list[dict], name: str) -> None:
        import pandas

        self.client.log_table(self.run_id, pandas.DataFrame(rows), f"{name}.json")

    def close(self, failed: bool) -> None:
        status = "FAILED" if failed else "FINISHED"
        self.client.set_terminated(self.run_id, status)
        self.client.set_terminated(self.parent, status)


class TensorboardTracker:
    """Curves and numbers under results/tensorboard/{run}/{stage}."""

    def __init__(
        self, settings: config.Config, layout: Layout, run: Run, name: str, parameters: dict
    ) -> None:
        # TensorBoard's own writer: torch's would import torch into the stages that have no need of it.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.scalar = Event, scalar_pb
        self.writer = EventFileWriter(str(layout.root / "tensorboard" / str(run) / name))
        lines = [f"- {key}: {value}" for key, value in flatten(parameters).items()]
        self._add(0, text_pb("parameters", "\n".join(lines)))

    def _add(self, step: int, summary) -> None:
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))

    def curve(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._add(step, self.scalar(key, value))

    def metrics(self, values: dict[str, float]) -> None:
        self.curve(0, {f"final/{key}": value for key, value in values.items()})

    def artifact(self, path: Path) -> None:
        """TensorBoard keeps no files."""

    def table(self, rows: list[dict], name: str) -> None:
        """TensorBoard keeps no tables."""

    def close(self, failed: bool) -> None:
        self.writer.close()


class WandbTracker:
    """One W&B run per stage, grouped by run; offline unless the user is logged in."""

    def __init__(
        self, settings: config.Config, layout: Layout, run: Run, name: str, parameters: dict
    ) -> None:
        import wandb

        self.wandb = wandb
        folder = layout.root / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        online = os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline"
        self.run = wandb.init(
            project=EXPERIMENT,
            group=str(run),
            job_type=name,
            name=f"{run} {name}",
            config={**parameters, "git_commit": git_commit()},
            dir=str(folder),
            mode="online" if online else "offline",
            settings=wandb.Settings(silent=True),
        )

    def curve(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def metrics(self, values: dict[str, float]) -> None:
        self.run.summary.update(values)

    def artifact(self, path: Path) -> None:
        self.run.save(str(path), base_path=str(path.parent), policy="now")

    def table(self, rows: list[dict], name: str) -> None:
        columns = list(rows[0]) if rows else []
        self.run.log(
            {name: self.wandb.Table(columns=columns, data=[[row[key] for key in columns] for row in rows])}
        )

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


_TRACKERS = {"mlflow": MlflowTracker, "tensorboard": TensorboardTracker, "wandb": WandbTracker}


def tracking_uri(settings: config.Config, layout: Layout) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else the store under results/."""
    return (
        settings.tracking_uri
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{layout.root / 'mlflow.db'}"
    )


def prepare_store(uri: str, layout: Layout) -> str:
    """The id of our experiment at `uri`, made where it is not there.

    A lock lets one process at a time create the store's tables: MLflow's own creation fails when two race.
    A server that does not answer is given up on within seconds, not MLflow's minutes.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    layout.root.mkdir(parents=True, exist_ok=True)
    with open(layout.root / ".mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(uri)
        existing = client.get_experiment_by_name(EXPERIMENT)
        if existing:
            return existing.experiment_id
        local = uri.startswith("sqlite:")
        return client.create_experiment(
            EXPERIMENT, artifact_location=(layout.root / "mlartifacts").resolve().as_uri() if local else None
        )


def flatten(value: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, f"{name}.") if isinstance(item, dict) else {name: item}
    return flat


def git_commit() -> str:
    """The commit of this package's checkout, with "-dirty" where files differ from it; "unknown" outside git."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changes else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _safe(name: str) -> str:
    """MLflow allows letters, digits and _-./ and spaces in metric names."""
    return "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)


def main(arguments: list[str] | None = None) -> int:
    """Create the MLflow store once, before jobs start."""
    options = cli.stage_parser(main.__doc__).parse_args(arguments)
    settings, layout = config.load(options.config), Layout(options.results)
    if "mlflow" in settings.tracking:
        try:
            prepare_store(tracking_uri(settings, layout), layout)
        except Exception as error:  # as in Record.open
            _warn("mlflow", error)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
