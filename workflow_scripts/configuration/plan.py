"""What the Snakefile asks: the validated configuration, the runs, and what each job depends on."""

import inspect
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from workflow_scripts.base import gpus, scratch
from workflow_scripts.base.paths import MANIFEST, Run
from workflow_scripts.configuration import dependencies, reading, runs, text
from workflow_scripts.configuration.flags import CONFIG_VARIABLE
from workflow_scripts.configuration.settings import Combination, Config, EvaluationSettings, Training

# The section of the configuration with a rule's threads, GPUs and nodes.
_RESOURCES = {
    "convert": "data",
    "validate": "data",
    "sft": "sft",
    "preferences": "evaluation",
    "dpo": "dpo",
    "ask": "evaluation",
    "evaluate": "data",
}

MACHINE = 100  # `models` of a machine, as profiles/default states
GPU_RESOURCES = ("gpu", "nodes", "gres", "cpus_per_gpu")
ROOT = Path(__file__).parents[2]  # of the package
# Files of a set that hold rows: an edited one is noticed by its time.
TABLES = {".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xlsx", ".xml", ".pkl", ".txt"}
Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])


class Wildcards(Protocol):
    """Snakemake's wildcards of a job: parts of its paths, by name."""

    def __getattr__(self, name: str) -> str: ...

    def get(self, name: str, default: str = "") -> str: ...


def quickly_asked(function: Function) -> Function:
    """`function` with its parameters at hand, for Snakemake looks for them at each job, a fifth of the time of a plan."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


class Plan:
    """The plan of a workflow from Snakemake's merged configuration; a UserError lists all that is wrong in it.

    As a module of another workflow it may have a `prefix`, which Snakemake sets before each relative path of a rule.
    """

    def __init__(self, raw: dict[str, Any], where: list[Path], prefix: str | None = None) -> None:
        self.config = reading.validate(raw, where=", ".join(map(str, where)))
        self._prefix = prefix
        self.layout = self.config.layout()
        self.terms = self._outside(self.config.terms)
        self.sources = [
            name for name, entry in self.config.datasets.items() if not isinstance(entry, Combination)
        ]
        self.evaluations = [str(self.layout.evaluation(run)) for run in runs.chosen(self.config)]
        # Jobs find the package wherever they run, and read their own copy of the configuration, named by its
        # content: a change made while one runs does not reach it.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        if self.config.cluster.scratch:
            os.environ[scratch.VARIABLE] = self.config.cluster.scratch
        here = self.config.model_copy(update={"results": Path(prefix or "") / self.config.results})
        os.environ[CONFIG_VARIABLE] = str(text.write_copy(here, here.layout()))

    def _outside(self, paths: Iterable[Path]) -> list[str]:
        """Files of the user's, before which no prefix is set."""
        return [os.path.abspath(path) if self._prefix else str(path) for path in paths]

    def settings(self, stage: str) -> Callable[[Wildcards], dict[str, Any]]:
        """The values whose change reruns `stage` of a run."""
        return quickly_asked(
            lambda wildcards: dependencies.stage_settings(self._settings_of(wildcards), stage)
        )

    def threads(self, rule: str) -> int | Callable[[Wildcards], int]:
        """The CPU cores of a job of `rule`, which Snakemake tells it as OMP_NUM_THREADS."""
        return self._by_run(rule, lambda section: section.threads) if rule in _RESOURCES else 1

    def resources(self, rule: str) -> dict[str, Any]:
        """What else a job of `rule` takes: its GPUs and, where it holds a model, its share of the machine.

        Values, or functions of a job's wildcards that return None where the run asks for none of it.
        """
        if _RESOURCES.get(rule, "data") == "data":
            return {}
        asked = {"models": self._by_run(rule, _share)} | {
            name: self._by_run(rule, partial(_gpu_resource, name)) for name in GPU_RESOURCES
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _by_run(self, rule: str, value: Callable[[Any], Value]) -> Value | Callable[[Wildcards], Value]:
        """`value` of the section that has the resources of `rule`, for the run of a job.

        Not a function where it is alike for all runs: Snakemake would ask it for each of thousands of jobs.
        """
        section = _RESOURCES[rule]
        if not self.config.runs:
            return value(getattr(self.config, section))

        def of_job(wildcards: Wildcards) -> Value:
            return value(getattr(self._settings_of(wildcards), section))

        return quickly_asked(of_job)

    def _settings_of(self, wildcards: Wildcards) -> Config:
        return runs.settings_of(self.config, _run(wildcards))

    def raw_manifests(self, wildcards: Wildcards) -> list[str]:
        """The raw files of every source that a data set is made of."""
        return [str(self.layout.raw_manifest(name)) for name in self.config.sources(wildcards.dataset)]

    def source(self, wildcards: Wildcards) -> dict[str, Any]:
        """The values whose change fetches a source again."""
        return dependencies.source_settings(self.config, wildcards.source)

    def local_files(self, wildcards: Wildcards) -> list[str]:
        """The tables and folders of a source on this machine, whose change fetches it again; images by their folders."""
        source = self.config.dataset(wildcards.source)
        if isinstance(source, Combination) or source.embedded:
            return []
        given = [path for path in (source.path, source.images) if path and path.exists()]
        beside = [file for folder in given if folder.is_dir() for file in folder.iterdir() if file.is_file()]
        tables = sorted(file for file in beside if file.suffix.lower() in TABLES)
        return self._outside([*given, *tables])

    def conversion(self, wildcards: Wildcards) -> dict[str, Any]:
        """The values whose change converts a data set again."""
        return dependencies.convert_settings(self.config, wildcards.dataset)

    def preference_files(self, wildcards: Wildcards) -> list[str]:
        """The user's own preference files for a data set."""
        preferences = self._settings_of(wildcards).preferences
        return self._outside(preferences.files.get(wildcards.dataset, []))

    def asked_model(self, wildcards: Wildcards) -> list[str]:
        """What says that the model of an `ask` job is there; the final one is chosen by the answers of two."""
        run = _run(wildcards)
        if wildcards.model == "untrained":
            return [str(self.layout.model(run.model_version, run.mode) / MANIFEST)]
        if wildcards.model == "final":
            return [str(self.layout.answers(run, stage, "original")) for stage in ("sft", "dpo")]
        return [str(self.layout.metrics(wildcards.model, run))]

    def answers(self, wildcards: Wildcards) -> list[str]:
        """The answers that the evaluation of a run is of."""
        asked = self._settings_of(wildcards).evaluation.asked.values()
        return [str(self.layout.answers(_run(wildcards), *source)) for source in asked]

    def checkpoint(self, wildcards: Wildcards) -> dict[str, Any]:
        """The values whose change fetches a model again."""
        return self.config.checkpoint(wildcards.model_version, wildcards.mode).model_dump(mode="json")


def _run(wildcards: Wildcards) -> Run:
    return Run(wildcards.dataset, wildcards.model_version, wildcards.mode)


def _share(section: Training | EvaluationSettings) -> int:
    """Hundredths of this machine, for a job that asks for so many GPUs; all without one: models fill its memory."""
    here = len(gpus.visible())
    share = MACHINE * max(1, section.gpus) // here if here else MACHINE
    return max(1, min(MACHINE, share))


def _gpu_resource(name: str, section: Training | EvaluationSettings) -> int | str | None:
    """What a job asks of one of GPU_RESOURCES."""
    nodes = section.nodes if isinstance(section, Training) else 1
    asked: dict[str, int | str] = {"nodes": nodes}
    if nodes > 1:
        asked["gres"] = f"gpu:{section.gpus}"
    elif section.gpus:
        asked["gpu"] = section.gpus
    if section.gpus:
        # Threads count once for a job here, and not above the cores of the machine that submits it.
        asked["cpus_per_gpu"] = section.threads
    return asked.get(name)
