"""Trained models in MLflow: where each lies, its scores by test set, and which one the gate has chosen."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from workflow_scripts.base import files
from workflow_scripts.base.paths import METRICS, Layout
from workflow_scripts.tracking import run_row
from workflow_scripts.tracking.journal import StageStart

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CANDIDATE = "champion", "candidate"


def log(
    client: "MlflowClient",
    experiment: str,
    runs: tuple[str, str],
    start: StageStart,
    folder: Path,
    layout: Layout,
    step: int,
    time: int,
) -> None:
    """Log the model in `folder`, which stays there, and register it as a version of the run's model and candidate.

    `runs` are the stage's and its parent. A model that was validated has its loss, linked to what it was validated on.
    """
    metrics = files.read_object(folder / METRICS)
    fingerprint = metrics["fingerprint"]
    name = registered_name(start, layout)
    if _version_of(client, name, fingerprint):
        return
    place = str(folder.relative_to(layout.fetched))
    tags = {
        "path": place,
        "fingerprint": fingerprint,
        "run": str(start.run),
        "mlflow.model.isExternal": "true",
    }
    shown = ("method", "steps", "train_rows", "precision")
    params = {"path": place, **{key: str(metrics[key]) for key in shown if key in metrics}}
    found = client.search_logged_models([experiment], f"tags.fingerprint = '{fingerprint}'", max_results=1)
    model = (
        found[0]
        if found
        else client.create_logged_model(experiment, name_of(start), runs[0], tags, params, start.stage)
    )
    if "best_step" in metrics:
        loss = {"validation/loss": metrics["validation_loss"]}
        link_validation(client, runs[0], model.model_id, metrics["best_step"], loss, time)
    finish(client, runs, model, step)
    version = _register(client, name, start, model, place, fingerprint)
    client.set_registered_model_alias(name, CANDIDATE, version)


def registered_name(start: StageStart, layout: Layout) -> str:
    """What the registered model of a run is named; that of a try apart, for a server has those of whole runs too."""
    return "_".join([str(start.run), *layout.root.relative_to(layout.fetched).parts])


def name_of(start: StageStart) -> str:
    """What the models of a stage are named; MLflow takes no dot in it."""
    return f"{start.run}_{start.stage}".replace(".", "-")


def is_ready(model: Any) -> bool:
    """Whether all was said of a logged model."""
    from mlflow.entities import LoggedModelStatus

    return bool(model.status == LoggedModelStatus.READY)


def finish(client: "MlflowClient", runs: Sequence[str], model: Any, step: int) -> None:
    """Name `model` among the outputs of `runs`, and declare it ready; whatever was done of it before a kill is there once."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec

    with TemporaryDirectory() as temporary:
        get_external_mlflow_model_spec(model).save(str(Path(temporary) / MLMODEL_FILE_NAME))
        client.log_model_artifacts(model.model_id, temporary)
    for run_id in runs:
        outputs = client.get_run(run_id).outputs
        if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def link_validation(
    client: "MlflowClient", run_id: str, model_id: str, step: int, values: dict[str, float], time: int
) -> None:
    """Give a model the `values` of the validation at `step`, linked to the data set that the run was validated on.

    MLflow adds them to the curves of the run too, where they are already: by the time of the point there it knows that
    it is the same one.
    """
    from mlflow.entities import Metric

    if not values:
        return
    points = client.get_metric_history(run_id, next(iter(values)))
    time = next((point.timestamp for point in points if point.step == step), time)
    name, digest = _validated_on(client, run_id)
    client.log_batch(
        run_id,
        [
            Metric(
                key,
                value,
                time,
                step,
                model_id=model_id,
                dataset_name=name,
                dataset_digest=digest,
                run_id=run_id,
            )
            for key, value in values.items()
        ],
    )


def _validated_on(client: "MlflowClient", run_id: str) -> tuple[str, str] | tuple[None, None]:
    """Name and digest of the data set of the run's validations, as it was told."""
    inputs = client.get_run(run_id).inputs
    for found in reversed(inputs.dataset_inputs if inputs else []):
        if "validation" in [tag.value for tag in found.tags]:
            return found.dataset.name, found.dataset.digest
    return None, None


def _register(
    client: "MlflowClient", name: str, start: StageStart, model: Any, place: str, fingerprint: str
) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name,
            description=f"The models of {name}; `{CHAMPION}` is the one that the evaluation chose, `{CANDIDATE}` the other "
            "one, or the newest that it has not seen.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
        # Of `model_id` MLflow 3.17 tells nothing in a search.
        tags={
            "path": place,
            "fingerprint": fingerprint,
            "stage": start.stage,
            "logged_model": model.model_id,
        },
        description=f"`{place}` in the results folder, configuration {start.configuration}",
    )
    return str(made.version)


def _version_of(client: "MlflowClient", name: str, fingerprint: str) -> Any:
    found = client.search_model_versions(f"name = '{name}'")
    return next((version for version in found if version.tags.get("fingerprint") == fingerprint), None)


def evaluated(client: "MlflowClient", start: StageStart, layout: Layout, time: int) -> None:
    """Give each model its scores, linked to the test sets; the one that was chosen is the champion, the other candidate.

    Nothing where there is no evaluation, or that of another configuration: it has not seen the models of this one.
    """
    from mlflow.entities import Metric

    evaluation = run_row.evaluation_of(layout, start.run, start.configuration)
    if evaluation is None:
        return
    name = registered_name(start, layout)
    versions: dict[str, str] = {}
    for stage in ("sft", "dpo"):
        version = _version_of(client, name, evaluation["model"][stage]["fingerprint"])
        if version is None:
            continue
        model = client.get_logged_model(version.tags["logged_model"])
        scores = [
            Metric(
                f"eval/{source}/accuracy",
                found["accuracy"],
                time,
                0,
                model_id=model.model_id,
                dataset_name=f"{start.run}/test",
                dataset_digest=evaluation["data_fingerprint"],
                run_id=model.source_run_id,
            )
            for source, found in evaluation["stages"][stage]["test_sets"].items()
            if found["accuracy"] is not None
        ]
        told = sorted(model.metrics or [], key=lambda metric: metric.timestamp)
        known = {metric.key: metric.value for metric in told}  # the newest
        if changed := [score for score in scores if known.get(score.key) != score.value]:
            client.log_batch(str(model.source_run_id), changed)
        versions[stage] = str(version.version)
    for stage, number in versions.items():
        alias = CHAMPION if stage == evaluation["final_stage"] else CANDIDATE
        client.set_registered_model_alias(name, alias, number)
