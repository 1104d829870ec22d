"""What an evaluation says about itself: by what it was measured, from which data, configuration, code and machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from workflow_scripts.base import environment, files
from workflow_scripts.base.environment import Made
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration import dependencies, text
from workflow_scripts.configuration.settings import Config
from workflow_scripts.datasets.records import SPLITS
from workflow_scripts.evaluation import protocols


class Origin(TypedDict):
    """Where files came from, and a digest of all of them; of `manifest.json`."""

    origin: dict[str, Any]
    fingerprint: str


class SplitRows(TypedDict):
    """A split of a run: its rows, and the SHA-256 of the file."""

    rows: int
    sha256: str


class Leak(TypedDict):
    """Of the images and rows of split `tested`, how many `held` has the image of, and how many rows it has wholly."""

    held: str
    tested: str
    set: str
    language: str
    images: int
    rows: int
    exact: int


class Provenance(TypedDict):
    """`configuration` is the whole of it, and `configuration_fingerprint` the name of its copy in results/config/.

    `run_fingerprint` tells the configurations of this run apart whose results differ: trackers name them by it.
    """

    made: Made
    protocol: str
    seed: int
    splits: str
    records: dict[str, SplitRows]
    sources: dict[str, Origin]
    checkpoint: Origin
    leaks: list[Leak]
    stages: dict[str, Made | None]  # None: made before this was recorded
    run_fingerprint: str
    configuration_fingerprint: str
    configuration: dict[str, Any]


def provenance(settings: Config, layout: Layout, run: Run, asked: Mapping[str, Any]) -> Provenance:
    """That of the evaluation of `run`, which is being made now; `asked` is the summary of its SFT model's answers."""
    checked = files.read_object(layout.validation(run), "splits", "leaks")
    configuration = settings.recorded()
    trained = {stage: files.read_object(layout.metrics(stage, run)) for stage in ("sft", "dpo")}
    return {
        "made": environment.made(),
        "protocol": protocols.DEFAULT.NAME,
        "seed": settings.seed,
        "splits": checked["splits"],
        "records": {split: _records(layout.split(run, split)) for split in SPLITS},
        "sources": {name: _origin(layout.raw(name)) for name in settings.sources(run.dataset)},
        "checkpoint": _origin(layout.model(run.model_version, run.mode)),
        "leaks": [leak for matrix in checked["leaks"] for leak in leaks(matrix)],
        "stages": {stage: found.get("made") for stage, found in {**trained, "ask": asked}.items()},
        "run_fingerprint": dependencies.run_fingerprint(settings, run),
        "configuration_fingerprint": fingerprint(configuration),
        "configuration": configuration,
    }


def fingerprint(configuration: dict[str, Any]) -> str:
    """The name of the copy in results/config/ of a configuration in plain values."""
    return files.fingerprint(text.to_yaml(Config.model_validate(configuration)))


def leaks(matrix: dict[str, Any]) -> list[Leak]:
    """For each set and language of the tested split, what the whole of the other one has of it."""
    whole = matrix["rows"][-1:]  # over all sets and languages, or the only one
    return [
        {
            "held": matrix["held"],
            "tested": matrix["tested"],
            "set": column["set"],
            "language": column["language"],
            "images": cell["images"],
            "rows": cell["rows"],
            "exact": cell["exact"],
        }
        for row in whole
        for column, cell in zip(matrix["columns"], row["cells"], strict=True)
    ]


def _records(path: Path) -> SplitRows:
    return {"rows": sum(1 for _ in files.read_jsonl(path)), "sha256": files.sha256(path)}


def _origin(folder: Path) -> Origin:
    manifest = files.read_object(folder / MANIFEST, "origin", "fingerprint")
    return {"origin": manifest["origin"], "fingerprint": manifest["fingerprint"]}
