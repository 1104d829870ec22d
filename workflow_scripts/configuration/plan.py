"""What the Snakefile asks: the validated configuration, the runs, and what each job depends on."""

import os
from pathlib import Path
from typing import Any, Protocol

from workflow_scripts.base import gpus
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration import dependencies, reading, text
from workflow_scripts.configuration.flags import CONFIG_VARIABLE
from workflow_scripts.configuration.settings import Combination, Data, Evaluation, Training

# The section of the configuration with a rule's threads, GPUs and nodes.
_RESOURCES = {
    "convert": "data",
    "validate": "data",
    "sft": "sft",
    "preferences": "evaluation",
    "dpo": "dpo",
    "evaluate": "evaluation",
}

MACHINE = 100  # `models` of a machine, as profiles/default states

# Files of a set that hold rows: an edited one is noticed by its time.
TABLES = {".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xlsx", ".xml", ".pkl", ".txt"}


class Wildcards(Protocol):
    """Snakemake's wildcards of a job: parts of its paths, by name."""

    def __getattr__(self, name: str) -> str: ...


class Plan:
    """The plan of a workflow from Snakemake's merged configuration; a UserError lists all that is wrong in it."""

    def __init__(self, raw: dict[str, Any], where: list[Path], root: Path) -> None:
        self.config = reading.validate(raw, where=", ".join(map(str, where)))
        self.layout = Layout(Path("results"))
        self.gpus = len(gpus.visible())
        self.terms = list(map(str, self.config.terms))
        self.sources = [
            name for name, entry in self.config.datasets.items() if not isinstance(entry, Combination)
        ]
        self.runs = [
            Run(dataset, version, mode)
            for dataset in self.config.datasets
            for version, modes in self.config.models.items()
            for mode in modes
        ]
        self.evaluations = [str(self.layout.evaluation(run)) for run in self.runs]
        # Jobs find the package wherever they run, and read their own copy of the configuration, named by its
        # content: a change made while one runs does not reach it.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        os.environ[CONFIG_VARIABLE] = str(text.write_copy(self.config, self.layout))

    def settings(self, stage: str) -> dict[str, Any]:
        """The values whose change reruns `stage`."""
        return dependencies.stage_settings(self.config, stage)

    def threads(self, rule: str) -> int:
        """The CPU cores of a job of `rule`, which Snakemake tells it as OMP_NUM_THREADS."""
        section = self._section(rule)
        return section.threads if section else 1

    def resources(self, rule: str) -> dict[str, int | str]:
        """What else a job of `rule` takes: its GPUs and, where it holds a model, its share of the machine."""
        section = self._section(rule)
        if section is None or isinstance(section, Data):
            return {}
        found: dict[str, int | str] = {"models": self._share(section.gpus)}
        if isinstance(section, Training) and section.nodes > 1:
            found |= {"nodes": section.nodes, "gres": f"gpu:{section.gpus}"}
        elif section.gpus:
            found |= {"gpu": section.gpus}
        # Threads count once for a job here, and not above the cores of the machine that submits it.
        return found | ({"cpus_per_gpu": section.threads} if section.gpus else {})

    def _share(self, asked: int) -> int:
        """Hundredths of this machine, for a job that asks for so many GPUs; all without one: models fill its memory."""
        share = MACHINE * max(1, asked) // self.gpus if self.gpus else MACHINE
        return max(1, min(MACHINE, share))

    def _section(self, rule: str) -> Data | Training | Evaluation | None:
        """Where the configuration has the resources of `rule`: in one section; None takes one core and no more."""
        return getattr(self.config, _RESOURCES[rule]) if rule in _RESOURCES else None

    def raw_manifests(self, wildcards: Wildcards) -> list[str]:
        """The raw files of every source that a data set is made of."""
        return [
            str(self.layout.raw(name) / "manifest.json") for name in self.config.sources(wildcards.dataset)
        ]

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
        return list(map(str, [*given, *tables]))

    def conversion(self, wildcards: Wildcards) -> dict[str, Any]:
        """The values whose change converts a data set again."""
        return dependencies.convert_settings(self.config, wildcards.dataset)

    def preference_files(self, wildcards: Wildcards) -> list[str]:
        """The user's own preference files for a data set."""
        return [str(file) for file in self.config.preferences.files.get(wildcards.dataset, [])]

    def checkpoint(self, wildcards: Wildcards) -> dict[str, Any]:
        """The values whose change fetches a model again."""
        return self.config.checkpoint(wildcards.model_version, wildcards.mode).model_dump(mode="json")
