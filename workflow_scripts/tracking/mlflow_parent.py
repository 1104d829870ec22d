"""The run that stands for a configuration of (dataset, model version, mode): which is best, and can it be trusted?"""

from typing import TYPE_CHECKING, Any

from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.tracking import run_row
from workflow_scripts.tracking.journal import StageStart

if TYPE_CHECKING:
    from mlflow import MlflowClient


def find_or_create(client: "MlflowClient", experiment: str, start: StageStart) -> str:
    """The id of the parent of `start`; a new one is linked to that of the configuration before."""
    of_run = f"tags.level = 'run' and tags.run = '{start.run}'"
    found = client.search_runs(
        [experiment], f"{of_run} and tags.configuration = '{start.configuration}'", max_results=1
    )
    if found:
        known: str = found[0].info.run_id
        return known
    earlier = client.search_runs([experiment], of_run, max_results=1)  # newest first
    about = start.about
    tags = {
        "level": "run",
        "run": str(start.run),
        "configuration": start.configuration,
        "git_commit": about["git_commit"],
        "mlflow.user": about["user"],
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": "snakemake",
        "mlflow.source.git.commit": about["git_commit"].removesuffix("-dirty"),
    }
    if limit := start.parameters.get("limit"):  # of a try
        tags["limit"] = str(limit)
    if earlier:
        tags["previous_run"] = earlier[0].info.run_id
        tags["previous_configuration"] = earlier[0].data.tags.get("configuration", "")
    created: str = client.create_run(
        experiment, start_time=start.time, run_name=f"{start.run} {start.configuration[:6]}", tags=tags
    ).info.run_id
    for key in ("dataset", "model_version", "mode"):
        client.log_param(created, key, getattr(start.run, key))
    client.log_param(created, "configuration", start.configuration)
    if about["whole_settings"]:
        client.log_text(created, about["whole_settings"], "config.yaml")
    return created


def describe(
    client: "MlflowClient", experiment: str, parent: str, start: StageStart, layout: Layout, time: int
) -> None:
    """Let the parent's numbers, tags and description say what the results are now."""
    from mlflow.entities import Metric, RunTag

    found = run_row.of_run(layout, start.run, start.configuration)
    children = _children(client, experiment, parent)
    before = client.get_run(parent)
    changed = {key: value for key, value in found.numbers.items() if before.data.metrics.get(key) != value}
    note = run_row.description(found, links(experiment, children, before.data.tags, layout, start.run))
    tags = {**found.tags, "git_commit": start.about["git_commit"], "mlflow.note.content": note}
    client.log_batch(
        parent,
        metrics=[Metric(key, value, time, 0) for key, value in changed.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    if not before.data.params.get("method") and found.method:
        client.log_param(parent, "method", found.method)


def _children(client: "MlflowClient", experiment: str, parent: str) -> dict[str, Any]:
    """The newest child of each stage."""
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")
    return {run.data.tags["stage"]: run for run in reversed(found) if "stage" in run.data.tags}


def links(
    experiment: str, children: dict[str, Any], tags: dict[str, str], layout: Layout, run: Run
) -> list[str]:
    """Markdown links to the stages' runs, their pages and the configuration before."""
    base = f"#/experiments/{experiment}/runs"
    found = [f"[{stage}]({base}/{run.info.run_id})" for stage, run in children.items()]
    pages = {"evaluate": layout.evaluation_page(run).name, "validate": layout.validation_page(run).name}
    for stage, page in pages.items():
        if stage in children:
            found.append(f"[{page}]({base}/{children[stage].info.run_id}/artifacts/pages/{page})")
    if "previous_run" in tags:
        found.append(f"[the configuration before]({base}/{tags['previous_run']})")
    return found
