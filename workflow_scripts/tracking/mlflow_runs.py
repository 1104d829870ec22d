"""MLflow: a parent run per configuration of (dataset, model version, mode), a child run per attempt of a stage."""

import json
import logging
from pathlib import Path

from workflow_scripts.base import job_log
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.settings import Config
from workflow_scripts.tracking import (
    mlflow_checkpoints,
    mlflow_models,
    mlflow_parent,
    question_sample,
    surroundings,
)
from workflow_scripts.tracking.journal import StageStart
from workflow_scripts.tracking.mlflow_store import prepare_store, store, tracking_uri
from workflow_scripts.tracking.tracker import Dataset, KeptCheckpoint, Tracker

logger = logging.getLogger(__name__)

MOST = 100  # parameters or tags that MLflow takes at once


class MlflowTracker(Tracker):
    """The runs of stages. Whatever is sent twice, after a kill between sending and noting it, is there once."""

    run_id: str
    parent: str

    def __init__(self, settings: Config, layout: Layout) -> None:
        super().__init__(settings, layout)
        from mlflow import MlflowClient

        uri = tracking_uri(settings, layout)
        self.experiment = prepare_store(uri, layout)
        self.client = MlflowClient(uri)
        self._uri = uri

    @classmethod
    def load(cls) -> None:
        import mlflow.models.utils
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        import pandas  # noqa: F401

    @property
    def destination(self) -> str:
        """The store under results/ stays the same where these are moved."""
        return "results" if self._uri == f"sqlite:///{store(self.layout)}" else self._uri

    def refuses(self, error: Exception) -> bool:
        return getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"

    def knows(self, start: StageStart) -> bool:
        return self._found(start) is not None

    def _found(self, start: StageStart) -> str | None:
        found = self.client.search_runs([self.experiment], f"tags.attempt = '{start.attempt}'", max_results=1)
        return found[0].info.run_id if found else None

    def open(self, start: StageStart, fresh: bool) -> None:
        before, self.start = getattr(self, "start", None), start
        self.parent = mlflow_parent.find_or_create(self.client, self.experiment, start)
        known = self._found(start)
        self.run_id = known or self._create(start)
        if known and not fresh:
            if before:
                self._keep_log(before)  # it was killed
            self.client.update_run(self.run_id, status="RUNNING")
        self.client.update_run(self.parent, status="RUNNING")

    def _create(self, start: StageStart) -> str:
        from mlflow.entities import Param

        about = start.about
        tags = {
            "mlflow.parentRunId": self.parent,
            "mlflow.user": about["user"],
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": about["command"],
            "mlflow.source.git.commit": about["git_commit"].removesuffix("-dirty"),
            "stage": start.stage,
            "run": str(start.run),
            "configuration": start.configuration,
            "git_commit": about["git_commit"],
            "host": about["host"],
            **({"slurm_job": about["slurm_job"]} if about["slurm_job"] else {}),
            **{f"manifest.{name}": digest for name, digest in about["manifests"].items()},
        }
        name = f"{start.run} {start.stage}"
        # The tag by which it is found comes last: one that lacks anything is not found, and made anew.
        run_id: str = self.client.create_run(
            self.experiment, start_time=start.time, run_name=name, tags=tags
        ).info.run_id
        params = [Param(key, str(value)[:6000]) for key, value in start.parameters.items()]
        for first in range(0, len(params), MOST):
            self.client.log_batch(run_id, params=params[first : first + MOST])
        self.client.log_text(run_id, about["settings"], "config.yaml")
        environment = {key: about[key] for key in surroundings.ENVIRONMENT}
        self.client.log_dict(run_id, environment, "environment/environment.json")
        self.client.set_tag(run_id, "attempt", start.attempt)
        return run_id

    def curve(self, step: int, values: dict[str, float], time: int) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(
            self.run_id, [Metric(_safe(key), value, time, step) for key, value in values.items()]
        )

    def metrics(self, values: dict[str, float], time: int) -> None:
        known = self.client.get_run(self.run_id).data.metrics
        changed = {key: value for key, value in values.items() if known.get(_safe(key)) != value}
        if changed:
            self.curve(0, changed, time)

    def artifact(self, path: Path, folder: str) -> None:
        self.client.log_artifact(self.run_id, str(path), folder or None)

    def table(self, path: Path, name: str) -> None:
        import mlflow
        import pandas

        artifact = f"{name}.json"
        if artifact in {entry.path for entry in self.client.list_artifacts(self.run_id)}:
            return  # MLflow would add the rows to it
        if rows := question_sample.rows(path, self.settings, mlflow.Image):
            self.client.log_table(self.run_id, pandas.DataFrame(rows), artifact)

    def dataset(self, dataset: Dataset) -> None:
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        source = json.dumps({"uri": dataset.source})
        entity = Entity(dataset.name, dataset.digest, source_type="local", source=source)
        found = DatasetInput(entity, [InputTag("mlflow.data.context", dataset.context)])
        for run_id in (self.run_id, self.parent):
            self.client.log_inputs(run_id, [found])

    def checkpoints(self, kept: list[KeptCheckpoint], time: int) -> None:
        mlflow_checkpoints.match(
            self.client, self.experiment, self.run_id, self.start, kept, self.layout, time
        )

    def model(self, folder: Path, step: int, time: int) -> None:
        runs = self.run_id, self.parent
        mlflow_models.log(self.client, self.experiment, runs, self.start, folder, self.layout, step, time)

    def _keep_log(self, start: StageStart) -> None:
        number = start.about.get("job_attempt")  # None outside a job of Snakemake's
        if number and (said := job_log.said(self.layout.log(start.stage, str(start.run)), number)):
            self.client.log_text(self.run_id, said, f"logs/attempt-{number}.log")

    def close(self, status: str, reason: str, time: int) -> None:
        self._keep_log(self.start)
        if reason != self.client.get_run(self.run_id).data.tags.get("reason", ""):
            self.client.set_tag(self.run_id, "reason", reason)
        self.client.set_terminated(self.run_id, status, end_time=time)
        mlflow_models.evaluated(self.client, self.start, self.layout, time)
        mlflow_parent.describe(self.client, self.experiment, self.parent, self.start, self.layout, time)
        self.client.set_terminated(self.parent, status, end_time=time)


def _safe(name: str) -> str:
    """MLflow allows letters, digits and _-./ and spaces in metric names."""
    return "".join(character if character.isalnum() or character in "_-./ " else "_" for character in name)
