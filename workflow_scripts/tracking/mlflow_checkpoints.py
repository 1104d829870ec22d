"""Checkpoints in MLflow: a logged model for each that is on the disk, with the numbers of its validation."""

from typing import TYPE_CHECKING, Any

from workflow_scripts.base.paths import Layout
from workflow_scripts.tracking import mlflow_models
from workflow_scripts.tracking.journal import StageStart, is_there
from workflow_scripts.tracking.tracker import KeptCheckpoint

if TYPE_CHECKING:
    from mlflow import MlflowClient


def match(
    client: "MlflowClient",
    experiment: str,
    run_id: str,
    start: StageStart,
    kept: list[KeptCheckpoint],
    layout: Layout,
    time: int,
) -> None:
    """Log those of `kept` that are not, and delete what was logged of the attempt and is not on the disk any more.

    Nobody is to find one without its files. What is sent a second time finds all as it is.
    """
    known = client.search_logged_models([experiment], f"tags.checkpoint_of = '{start.attempt}'")
    models = {model.tags["fingerprint"]: model for model in known}
    for model in known:
        if not is_there(layout.fetched, model.tags):
            client.delete_logged_model(model.model_id)
    for checkpoint in kept:
        model = models.get(checkpoint.fingerprint) or _create(
            client, experiment, run_id, start, checkpoint, layout
        )
        if not mlflow_models.is_ready(model):
            mlflow_models.link_validation(
                client, run_id, model.model_id, checkpoint.step, checkpoint.values, time
            )
            mlflow_models.finish(client, [run_id], model, checkpoint.step)


def _create(
    client: "MlflowClient",
    experiment: str,
    run_id: str,
    start: StageStart,
    checkpoint: KeptCheckpoint,
    layout: Layout,
) -> Any:
    place = str(checkpoint.folder.relative_to(layout.fetched))
    tags = {
        "path": place,
        "fingerprint": checkpoint.fingerprint,
        "run": str(start.run),
        "checkpoint_of": start.attempt,
        "mlflow.model.isExternal": "true",
    }
    shown = {"path": place, "step": str(checkpoint.step)}  # MLflow's page of a model shows no tags
    # MLflow's table of models cuts a name after some twenty characters.
    name = f"{start.stage}_step_{checkpoint.step}_{start.run}".replace(".", "-")
    return client.create_logged_model(experiment, name, run_id, tags, shown, start.stage)
