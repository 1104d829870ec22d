"""What each stage depends on: the plain values whose change makes its result another one."""

from typing import Any

from workflow_scripts.configuration.settings import Combination, Config, Source

_WITHOUT_EFFECT = {
    "gpus", "nodes", "threads", "oom_retries", "save_steps", "log_steps", "strategy", "vision_cache_gb"
}  # fmt: skip
STAGE_SECTIONS = {
    "convert": ("data",),
    "validate": ("data",),
    "sft": ("data", "sft"),
    "preferences": ("data", "preferences", "evaluation"),
    "dpo": ("data", "dpo"),
    "evaluate": ("data", "evaluation"),
}


def stage_settings(settings: Config, stage: str) -> dict[str, Any]:
    """The plain values that the result of a stage depends on.

    Snakemake reruns a stage when they change, and MLflow shows them.
    What changes how a stage runs but not what comes out is left out.
    """
    values: dict[str, Any] = {"seed": settings.seed}
    for name in STAGE_SECTIONS[stage]:
        values[name] = getattr(settings, name).model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return values


_FETCHED = {"reader", "repository", "revision", "files", "path", "embedded", "licence"}


def source_settings(settings: Config, name: str) -> dict[str, Any]:
    """The plain values that the raw files of a source and their manifest depend on."""
    source = settings.dataset(name)
    values = source.model_dump(mode="json", include=_FETCHED)
    if (
        isinstance(source, Source) and source.reader == "custom"
    ):  # which is rendered where others show it otherwise
        values["frames"] = settings.data.frames
    drawn = isinstance(source, Source) and source.embedded
    return values | {"seed": settings.seed} if drawn else values


def convert_settings(settings: Config, dataset: str) -> dict[str, Any]:
    """The plain values that the conversion of a data set depends on, besides its raw files."""
    made_of = {dataset, *settings.sources(dataset)}
    chosen = {
        name: settings.datasets[name].model_dump(mode="json", exclude=_FETCHED) for name in sorted(made_of)
    }
    return {**stage_settings(settings, "convert"), "datasets": chosen}


def mixture_settings(settings: Config, dataset: str) -> dict[str, Any]:
    """The plain values by which the train rows of a combination are mixed; {} for a single set."""
    entry = settings.dataset(dataset)
    included = {"weights", "temperature"}
    return entry.model_dump(mode="json", include=included) if isinstance(entry, Combination) else {}
