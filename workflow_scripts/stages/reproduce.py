"""Say which configuration and commit make an evaluation again, and what differs from them here: code, data, machine."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.base import environment, files
from workflow_scripts.base.environment import Made
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST, Layout, Run
from workflow_scripts.configuration.settings import Config
from workflow_scripts.stages.provenance import Provenance

_SHORT = 12  # digits of a digest that a person compares


def reproduce(path: Path, folder: Path | None) -> str:
    """What to print about the evaluation in `path`; `folder` gets its configuration and the commands."""
    evaluation = files.read_object(path, "run")
    if "provenance" not in evaluation:
        raise UserError(
            f"{path}: says nothing of how it was made; `snakemake --forcerun evaluate -- {path}` makes it anew"
        )
    run, told = Run(*str(evaluation["run"]).split("_")), evaluation["provenance"]
    place = folder or Path(".")
    if folder:
        files.write_text(folder / "config.yaml", configuration(told))
        files.write_text(
            folder / "reproduce.sh", "#!/bin/sh\nset -e\n" + "\n".join(steps(run, told, place)) + "\n"
        )
    found = list(differences(run, told, _layout(path, evaluation), environment.made()))
    return "\n".join(
        [
            f"{run}: {told['made']['date']}, {told['protocol']} protocol, {told['splits']} splits, seed {told['seed']}",
            *(["", f"Written: {folder / 'config.yaml'}, {folder / 'reproduce.sh'}"] if folder else []),
            "",
            "To make it again:" if folder else "To make it again (--write FOLDER writes the configuration):",
            *(f"  {line}" for line in steps(run, told, place)),
            "",
            "What is other here:" if found else "Nothing that was recorded is other here.",
            *(f"  {line}" for line in found),
        ]
    )


def _layout(path: Path, evaluation: Mapping[str, Any]) -> Layout:
    """The results that the evaluation in `path` lies among."""
    root = path.parent.parent
    return Layout(root, shared=root.parent if "limit" in evaluation else None)


def _target(configuration: Mapping[str, Any], run: Run) -> Path:
    """Where the configuration puts the evaluation; its other keys may be those of another version of the package."""
    results, limit = Path(configuration["results"]), configuration.get("limit")
    return Config.model_construct(results=results, limit=limit).layout().evaluation(run)


def configuration(told: Provenance) -> str:
    """The configuration as YAML, every key stated, whatever this version of the package takes for a default."""
    head = f"# The configuration {told['configuration_fingerprint']}, of {told['made']['date']}.\n"
    whole = told["configuration"]
    for below in _below(told["made"]["commit"]):
        whole = _over(below, whole)
    return head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=110)


def _below(commit: str | None) -> Iterator[dict[str, Any]]:
    """What Snakemake may lay the configuration over: the config.yaml of the commit, and that of this folder."""
    if commit and (text := environment.git("show", f"{commit}:config.yaml")):
        yield yaml.safe_load(text) or {}
    here = Path("config.yaml")
    if here.is_file():
        yield files.read_yaml(here)


def _over(below: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, with null for each key that `below` has besides, which a merge of the two would keep."""
    stated = {
        key: _over(below[key], value)
        if isinstance(value, dict) and isinstance(below.get(key), dict)
        else value
        for key, value in values.items()
    }
    return stated | {key: None for key in below if key not in values}


def steps(run: Run, told: Provenance, folder: Path) -> list[str]:
    """The commands, in a checkout of the project."""
    made = told["made"]
    outside = (
        f"# made by version {made['package']} of the package, outside of git: take that version's checkout"
    )
    code = [f"git checkout {made['commit']}" if made["commit"] else outside]
    if made["dirty"]:
        code.insert(0, "# the code had been changed since that commit: the result may be another")
    target = _target(told["configuration"], run)
    name = shlex.quote(str((folder / "config.yaml").absolute()))
    return [*code, "make setup", f"snakemake --configfile {name} -- {shlex.quote(str(target))}"]


def differences(run: Run, told: Provenance, layout: Layout, here: Made) -> Iterator[str]:
    """What is other in the present checkout, and in the results folder of the evaluation, a line each."""
    stages: dict[str, Made | None] = {**told["stages"], "evaluate": told["made"]}
    yield from _code(stages, here)
    for name in environment.LIBRARIES:
        used = {made["libraries"].get(name, "none") for made in stages.values() if made}
        now = here["libraries"].get(name, "none")
        if used and used != {now}:
            yield f"{name}: {' and '.join(sorted(used))}, here {now}"
    for name, made in stages.items():
        if made and made["hardware"] != here["hardware"]:
            yield f"{name} ran on {_machine(made)}; here: {_machine(here)}"
    yield from _data(run, told, layout)


def _code(stages: Mapping[str, Made | None], here: Made) -> Iterator[str]:
    for name, made in stages.items():
        if made is None:
            yield f"{name}: of a time when its code and machine were not recorded"
        elif made["commit"] != here["commit"] or made["package"] != here["package"]:
            yield f"{name}: by {_version(made)}, here {_version(here)}"
        elif made["dirty"]:
            yield f"{name}: by code changed since {_version(made)}"
    if here["dirty"]:
        yield "the code here has changes that are not committed"


def _version(made: Made) -> str:
    return f"commit {made['commit'][:_SHORT]}" if made["commit"] else f"version {made['package']}"


def _machine(made: Made) -> str:
    own = made["hardware"]
    return ", ".join([*own["gpus"], own["cpu"], f"{own['cores']} cores", f"{own['memory_gib']} GiB"])


def _data(run: Run, told: Provenance, layout: Layout) -> Iterator[str]:
    fetched = {f"source {name}": (layout.raw(name), origin) for name, origin in told["sources"].items()}
    fetched["checkpoint"] = layout.model(run.model_version, run.mode), told["checkpoint"]
    for name, (folder, origin) in fetched.items():
        found = _fingerprint(folder / MANIFEST)
        if found != origin["fingerprint"]:
            yield _other(name, found, origin["fingerprint"])
    for split, rows in told["records"].items():
        path = layout.split(run, split)
        digest = files.sha256(path) if path.is_file() else None
        if digest != rows["sha256"]:
            yield _other(f"{split} records", digest, rows["sha256"])


def _other(name: str, found: str | None, then: str) -> str:
    return f"{name}: not here" if found is None else f"{name}: {then[:_SHORT]}, here {found[:_SHORT]}"


def _fingerprint(manifest: Path) -> Any:
    return files.read_value(manifest, "fingerprint") if manifest.is_file() else None
