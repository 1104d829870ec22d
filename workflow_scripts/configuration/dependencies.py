"""What each stage depends on: the plain values whose change makes its result another one."""

from typing import Any

from workflow_scripts.base import files
from workflow_scripts.base.paths import Run
from workflow_scripts.configuration import runs, text
from workflow_scripts.configuration.settings import Combination, Config, Dpo, Preferences, Sft, Source

# The stages whose results depend on a key, besides by their input files.
_SEEN = ("validate", "sft", "preferences", "dpo", "ask")  # these show images to a model, or measure them
_HOW: dict[str, tuple[str, ...]] = dict.fromkeys(
    (
        "gpus",
        "nodes",
        "threads",
        "oom_retries",
        "gradient_checkpointing",
        "save_steps",
        "log_steps",
        "strategy",
        "vision_cache_gb",
    ),
    (),
)
READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {
        "thoughts": ("convert",),
        "terminology": ("convert",),
        "splits": ("convert", "validate"),
        "near_duplicates": ("convert",),
        "validation_share": ("convert",),
        "max_missing_images": (),
        "frames": ("convert", *_SEEN, "evaluate"),
        "max_image_side": _SEEN,
        "max_tokens": ("validate",),
        "decode_images": ("validate",),
        "threads": (),
    },
    "sft": {key: _HOW.get(key, ("sft",)) for key in Sft.model_fields},
    "preferences": dict.fromkeys(Preferences.model_fields, ("preferences",)),
    "dpo": {key: _HOW.get(key, ("dpo",)) for key in Dpo.model_fields},
    "evaluation": {
        "backend": ("ask",),
        "server": ("ask",),
        "engine": ("ask",),
        "tokens_per_batch": ("preferences",),  # in bf16, other neighbours may tip an answer
        "max_new_tokens": ("preferences", "ask"),
        "thought_budget": ("preferences", "ask"),
        "max_validation_rows": ("ask",),
        "blank_image": ("evaluate",),
        "shuffled_image": ("evaluate",),
        "judge": ("evaluate",),
        "gpus": (),
        "threads": (),
    },
}
# The stages that read a key by which their results do not change: it says how they run, when they stop, or which of
# their input files to read.
READ_BESIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {"max_missing_images": ("convert",), "max_tokens": ("sft", "dpo"), "splits": ("dpo",)},
    "sft": dict.fromkeys(_HOW, ("sft",)),
    "preferences": {"files": ("validate",)},
    "dpo": dict.fromkeys(_HOW, ("dpo",)),
    "evaluation": {"tokens_per_batch": ("ask",), "gpus": ("preferences", "ask")},
}
# What the answers of a server depend on: they are known by it, and another address is asked for missing ones alone.
_ANSWERED_BY = {"model", "parameters"}
_PARTS: dict[str, Any] = {"server": _ANSWERED_BY, "judge": _ANSWERED_BY}
# Sections and keys that all stages may read whole.
_SHARED = {
    "seed",
    "limit",
    "datasets",
    "models",
    "terms",
    "tracking",
    "tracking_uri",
    "tracking_images",
    "output_in_use",
    "cluster",
}
STAGES = ("convert", "validate", "sft", "preferences", "dpo", "ask", "evaluate")


def shown_to(stage: str, settings: Config, run: Run) -> Config:
    """What `stage` is given for `run`: the run's own settings, with the keys alone that the stage is declared to read.

    To read another is an UndeclaredKey.
    """
    whole, settings = settings, runs.settings_of(settings, run)
    shown = settings.shown_to(stage, _SHARED | READ_BY.keys()).part_of(whole)
    shown._of_run = run_fingerprint(settings, run), text.to_yaml(settings)
    for section in READ_BY:
        declared = [READ_BY[section].items(), READ_BESIDES[section].items()]
        keys = {key for readers in declared for key, stages in readers if stage in stages}
        setattr(shown, section, getattr(settings, section).shown_to(stage, keys, f"{section}."))
    return shown


def run_fingerprint(settings: Config, run: Run) -> str:
    """What tells the configurations of `run` apart whose results differ, alike for all of its stages."""
    known, _ = settings.of_run
    return known or files.fingerprint(
        {
            **{stage: stage_settings(settings, stage) for stage in STAGES},
            "data": convert_settings(settings, run.dataset),
            "model": settings.checkpoint(run.model_version, run.mode).model_dump(mode="json"),
        }
    )


def stage_settings(settings: Config, stage: str) -> dict[str, Any]:
    """The plain values that the result of a stage depends on.

    Snakemake reruns a stage when they change, and MLflow shows them.
    What changes how a stage runs but not what comes out is left out.
    """
    if stage not in STAGES:
        raise ValueError(f"{stage} is none of configuration/dependencies.STAGES")
    values: dict[str, Any] = {"seed": settings.seed}
    if settings.limit:
        values["limit"] = settings.limit
    for section, keys in READ_BY.items():
        if read := {key for key, stages in keys.items() if stage in stages}:
            include = {key: _PARTS.get(key, True) for key in read}
            values[section] = getattr(settings, section).model_dump(mode="json", include=include)
    return values


_FETCHED = {"reader", "repository", "revision", "files", "path", "images", "columns", "embedded"}
# `licence` is in neither: it is recorded when the set is fetched, and fetches nothing.
_MIXED = {"weights", "temperature"}
_CONVERTED = {"languages", "columns", "members", *_MIXED}


def source_settings(settings: Config, name: str) -> dict[str, Any]:
    """The plain values that the raw files of a source and their manifest depend on."""
    source = settings.dataset(name)
    values = source.model_dump(mode="json", include=_FETCHED)
    # Rendered where other tools would show it otherwise.
    if isinstance(source, Source) and source.reader == "custom":
        values["frames"] = settings.data.frames
    drawn = isinstance(source, Source) and source.embedded
    return values | {"seed": settings.seed} if drawn else values


def convert_settings(settings: Config, dataset: str) -> dict[str, Any]:
    """The plain values that the conversion of a data set depends on, besides its raw files."""
    made_of = {dataset, *settings.sources(dataset)}
    chosen = {
        name: settings.datasets[name].model_dump(mode="json", include=_CONVERTED) for name in sorted(made_of)
    }
    return {**stage_settings(settings, "convert"), "datasets": chosen}


def mixture_settings(settings: Config, dataset: str) -> dict[str, Any]:
    """The plain values by which the train rows of a combination are mixed; {} for a single set."""
    entry = settings.dataset(dataset)
    return entry.model_dump(mode="json", include=_MIXED) if isinstance(entry, Combination) else {}
