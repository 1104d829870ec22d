"""MLflow: a parent run per (dataset, model version, mode), a child run per stage."""

import fcntl
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration import text
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking.experiment import EXPERIMENT, flatten, git_commit

logger = logging.getLogger(__name__)


class MlflowTracker:
    """A parent run per (dataset, model version, mode), a child run per stage."""

    def __init__(
        self, settings: Config, layout: Layout, run: Run, name: str, parameters: Mapping[str, object]
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
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        manifests = [layout.raw_manifest(source) for source in settings.sources(run.dataset)]
        manifests.append(layout.model(run.model_version, run.mode) / MANIFEST)
        for manifest in manifests:
            if manifest.is_file():
                self.client.log_artifact(self.run_id, str(manifest), f"manifests/{manifest.parent.name}")
                fingerprint = files.read_value(manifest, "fingerprint")
                self.client.set_tag(self.run_id, f"manifest.{manifest.parent.name}", fingerprint)
        self.client.log_text(self.run_id, text.to_yaml(settings), "config.yaml")
        self.client.log_batch(parent, tags=[RunTag("git_commit", commit)])

    def _parent(self, experiment: str, run: Run, commit: str) -> str:
        found = self.client.search_runs(
            [experiment], f"tags.level = 'run' and tags.run = '{run}'", max_results=1
        )
        if found:
            known: str = found[0].info.run_id
            return known
        tags = {"level": "run", "run": str(run), "git_commit": commit}
        created: str = self.client.create_run(experiment, run_name=str(run), tags=tags).info.run_id
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

    def table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        import pandas

        self.client.log_table(self.run_id, pandas.DataFrame(rows), f"{name}.json")

    def close(self, failed: bool) -> None:
        status = "FAILED" if failed else "FINISHED"
        self.client.set_terminated(self.run_id, status)
        self.client.set_terminated(self.parent, status)


def tracking_uri(settings: Config, layout: Layout) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else the store under results/."""
    return (
        settings.tracking_uri
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{layout.root / 'mlflow.db'}"
    )


def prepare_store(uri: str, layout: Layout) -> str:
    """The id of our experiment at `uri`, made where it is not there, and restored where somebody deleted it.

    A lock lets one process at a time create the store's tables: MLflow's own creation fails when two race.
    A server that does not answer is given up on within seconds, not MLflow's minutes.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient
    from mlflow.entities import LifecycleStage

    layout.root.mkdir(parents=True, exist_ok=True)
    with open(layout.root / ".mlflow.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(uri)
        existing = client.get_experiment_by_name(EXPERIMENT)
        if existing:
            known: str = existing.experiment_id
            if existing.lifecycle_stage == LifecycleStage.DELETED:  # its name is taken all the same
                client.restore_experiment(known)
                logger.warning("experiment %s was deleted in MLflow; restored, with its runs", EXPERIMENT)
            return known
        local = uri.startswith("sqlite:")
        created: str = client.create_experiment(
            EXPERIMENT, artifact_location=(layout.root / "mlartifacts").resolve().as_uri() if local else None
        )
        return created


def _safe(name: str) -> str:
    """MLflow allows letters, digits and _-./ and spaces in metric names."""
    return "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)
