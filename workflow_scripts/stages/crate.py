"""Pack a run as an RO-Crate, by the profile for runs of workflows: results, configuration and where they come from.

The profile is Workflow Run Crate 0.5, https://w3id.org/ro/wfrun/workflow/0.5.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from workflow_scripts.base import files, shipped
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.evaluation.table import Evaluation, named, tried
from workflow_scripts.stages import reproduce
from workflow_scripts.stages.provenance import Origin, Provenance

_PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
_FORMATS = {
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
}


def export(layout: Layout, name: str, output: Path, pages: bool, snakemake_report: bool) -> None:
    """Write the crate of the run `name` to `output`, a zip file by its name or else a folder.

    `pages` packs what shows images of the data, `snakemake_report` the report of the workflow besides.
    """
    if (
        len(name.split("_")) != 3
        or not (evaluation := layout.evaluation(run := Run(*name.split("_")))).is_file()
    ):
        raise UserError(
            f"--run {name}: has no evaluation in {layout.root / 'eval'}; make {layout.root}/eval/{name}.json"
        )
    found: Any = files.read_object(evaluation)
    told: Provenance | None = found.get("provenance")
    if told is None:
        raise UserError(f"{evaluation}: says nothing of how it was made; let `evaluate` make it anew")
    with tempfile.TemporaryDirectory() as made:
        configuration = Path(made) / "config.yaml"
        configuration.write_text(reproduce.configuration(told), encoding="utf-8")
        packed = {path: path.relative_to(layout.root) for path in _results(layout, run, pages)}
        if snakemake_report:
            packed[_snakemake_report(configuration, evaluation, Path(made))] = Path("snakemake-report.html")
        _write(_crate(found, told, configuration, packed), output)


def _results(layout: Layout, run: Run, pages: bool) -> Iterator[Path]:
    """The files of a run that are small, and of `pages` those with images; the models stay where they are."""
    yield layout.evaluation(run)
    yield layout.predictions(run)
    yield layout.scores(run)
    yield layout.validation(run)
    yield layout.data_summary(run)
    yield layout.pairs_summary(run)
    for stage in ("sft", "dpo"):
        yield layout.metrics(stage, run)
    if pages:
        yield layout.evaluation_page(run)
        yield layout.validation_page(run)


def _snakemake_report(configuration: Path, evaluation: Path, folder: Path) -> Path:
    """Snakemake's report on what the evaluation came of; from the folder in which the workflow has run."""
    report = folder / "report.html"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped.snakefile()), "--configfile"]
    done = subprocess.run(
        [*command, str(configuration), "--report", str(report), "--", str(evaluation)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not report.is_file():
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(
            f"Snakemake makes no report of {evaluation} ({last}); run this where the workflow has run"
        )
    return report


def _crate(
    evaluation: Evaluation, told: Provenance, configuration: Path, packed: dict[Path, Path]
) -> ROCrate:
    """A crate of the files `packed`, each with its path inside, and of the workflow that made them."""
    made = told["made"]
    crate = ROCrate()
    run, trying = named(evaluation), tried(evaluation)
    crate.name = f"{run}: fine-tuned and evaluated on medical visual question answering"
    crate.description = (
        f"Scores by the {told['protocol']} protocol on {told['splits']} splits with seed {told['seed']}, the answers behind "
        "them, the curves of training, and the configuration that makes them again. Models are not packed."
        + (f" This is {trying}." if trying else "")
    )
    crate.datePublished = made["date"]
    crate.license = (
        "The licence of each source applies to what was made of it; the workflow is under Apache-2.0."
    )
    profiles = [
        crate.add(ContextEntity(crate, url, properties={"@type": "CreativeWork"})) for url in _PROFILES
    ]
    crate.root_dataset["conformsTo"] = profiles
    version = {
        "version": made["commit"] or made["package"],
        "license": "https://spdx.org/licenses/Apache-2.0",
    }
    workflow = crate.add_workflow(
        shipped.snakefile(), "Snakefile", main=True, lang="snakemake", lang_version=made["libraries"].get("snakemake"),
        properties={"name": "medvqa", **version},
    )  # fmt: skip
    used = [
        crate.add_file(
            configuration, "config.yaml", properties=_properties(configuration, "the whole configuration")
        ),
        *(_source(crate, f"data set {name}", told["sources"][name]) for name in told["sources"]),
        _source(crate, "checkpoint", told["checkpoint"]),
    ]
    results = [
        crate.add_file(path, str(inside), properties=_properties(path)) for path, inside in packed.items()
    ]
    properties = {"name": f"Run {run}", "endTime": made["date"]}
    crate.add_action(workflow, object=used, result=results, properties=properties)
    return crate


def _source(crate: ROCrate, name: str, origin: Origin) -> ContextEntity:
    """What was fetched and is not packed: where it lies, and the digest by which it is known again."""
    properties: dict[str, Any] = {"@type": "Dataset", "name": name, "identifier": origin["fingerprint"]}
    stated = {key: value for key, value in origin["origin"].items() if value}
    properties["description"] = ", ".join(f"{key}: {value}" for key, value in stated.items())
    return crate.add(ContextEntity(crate, f"#{name.replace(' ', '-')}", properties=properties))


def _properties(path: Path, description: str = "") -> dict[str, str]:
    found = {"name": path.name, "encodingFormat": _FORMATS[path.suffix], "sha256": files.sha256(path)}
    return found | ({"description": description} if description else {})


def _write(crate: ROCrate, output: Path) -> None:
    """Write the crate, whole or not at all."""
    if output.suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder, files.replacing(output) as temporary:
            shutil.move(crate.write_zip(Path(folder) / "crate.zip"), temporary)
    else:
        with files.replacing_folder(output) as temporary:
            crate.write(temporary)
