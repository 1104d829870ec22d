"""Reading a configuration, with every error of it at once."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from workflow_scripts.base import credentials
from workflow_scripts.base.errors import UserError, unknown
from workflow_scripts.base.files import read_yaml
from workflow_scripts.configuration import runs
from workflow_scripts.configuration.overlay import merge, without_null
from workflow_scripts.configuration.settings import (
    OVERRIDDEN,
    Combination,
    Config,
    Dataset,
    Section,
    Source,
)
from workflow_scripts.datasets import readers
from workflow_scripts.models.catalogue import MODES, VERSIONS


def load(paths: list[Path]) -> Config:
    """Read configuration files, later over earlier ones, and validate the result."""
    raw: dict[str, Any] = {}
    for path in paths:
        raw = merge(raw, read_yaml(path))
    return validate(raw, where=", ".join(map(str, paths)))


def validate(raw: dict[str, Any], where: str) -> Config:
    """Build the configuration from plain values, of which null removes a key; a UserError lists every problem at once."""
    problems = []
    config = None
    values = without_null(_numbers(raw))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += [credentials.without(_describe(item)) for item in error.errors()]
    problems += _cross_checks(values)
    if config:
        problems += dict.fromkeys(_run_checks(config))
    if config and config.terms:
        from workflow_scripts.datasets import terminology

        try:
            terminology.load(tuple(config.terms))
        except UserError as error:
            problems.append(f"terms: {error}")
    if config is None or problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{where}: {len(problems)} error(s) in the configuration\n{lines}")
    return config


def _numbers(value: Any) -> Any:
    """Snakemake's own YAML reader gives 1e-5 as text; make it the number it means."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value


def _cross_checks(raw: dict[str, Any]) -> Iterator[str]:
    """What pydantic cannot see field by field: names that must fit together."""
    datasets: Any = raw.get("datasets")
    for name, entry in datasets.items() if isinstance(datasets, dict) else ():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", str(name)):
            yield f"datasets.{name}: a name has letters, digits, '.' and '-' only, since '_' separates names in paths"
        if not isinstance(entry, dict):
            continue
        for key in ("images", "columns"):
            if entry.get(key) and entry.get("reader") != "custom":
                yield f"datasets.{name}.{key}: is for the reader custom only"
        if members := entry.get("members"):
            sources = [
                key for key, value in datasets.items() if isinstance(value, dict) and not value.get("members")
            ]
            for member in members if isinstance(members, list) else ():
                if member not in sources:
                    yield f"datasets.{name}.members: {unknown(member, sources)}"
            yield from _mixture_checks(f"datasets.{name}", entry)
        elif not any(entry.get(key) for key in ("repository", "path", "embedded")):
            yield f"datasets.{name}: needs one of repository, path or embedded"
        elif entry.get("reader") == "custom" and not (entry.get("repository") or entry.get("path")):
            yield f"datasets.{name}: a custom set has no phantoms; give its path or repository"
        elif entry.get("embedded") and not _has_phantoms(entry.get("reader")):
            yield f"datasets.{name}.embedded: there are no phantoms in the layout of {entry['reader']}"
        elif entry.get("repository") and not entry.get("revision"):
            yield f"datasets.{name}.revision: missing; give the commit of {entry['repository']} to be read"
    data = raw.get("data")
    if isinstance(data, dict):
        removing = data.get("near_duplicates") == "remove"
        if removing and data.get("splits") != "image_disjoint":
            yield "data.near_duplicates: remove needs data.splits: image_disjoint; official splits stay as they are"
    models = raw.get("models")
    for version, modes in models.items() if isinstance(models, dict) else ():
        if version not in VERSIONS:
            yield f"models.{version}: {unknown(version, VERSIONS)}"
        for mode, entry in modes.items() if isinstance(modes, dict) else ():
            if isinstance(entry, dict) and not any(
                entry.get(key) for key in ("repository", "path", "embedded")
            ):
                yield f"models.{version}.{mode}: needs one of repository, path or embedded"
    known = datasets if isinstance(datasets, dict) else Config.model_fields["datasets"].default
    preferences = raw.get("preferences")
    own_files = preferences.get("files") if isinstance(preferences, dict) else None
    for name in own_files if isinstance(own_files, dict) else ():
        if name not in known:
            yield f"preferences.files.{name}: {unknown(name, known)}"


def _run_checks(config: Config) -> Iterator[str]:
    """What is wrong in `runs`: unknown names, and settings that do not fit the sections that they are laid over."""
    known: dict[str, Collection[str]] = {
        "dataset": config.datasets,
        "model_version": config.models,
        "mode": MODES,
    }
    belonging = {run: runs.entries(config, run) for run in runs.possible(config)}
    for number, choice in enumerate(config.runs):
        stated = [(key, name, names) for key, names in known.items() for name in getattr(choice, key)]
        wrong = [
            f"runs.{number}.{key}: {unknown(name, names)}" for key, name, names in stated if name not in names
        ]
        yield from wrong
        if not wrong and not any(number in numbers for numbers in belonging.values()):
            yield f"runs.{number}: no run has these names; models: has no such version in this mode"
    together = [[number] for number in range(len(config.runs))] + list(belonging.values())
    for name in OVERRIDDEN:
        for numbers in together:
            choices = [config.runs[number] for number in numbers]
            try:
                runs.overridden(config, name, choices)
            except ValidationError as error:
                last = max(number for number in numbers if getattr(config.runs[number], name))
                for item in error.errors():
                    found = _describe({**item, "loc": (name, *item["loc"])})
                    yield credentials.without(f"runs.{last}.{found}")


def _mixture_checks(where: str, entry: dict[str, Any]) -> Iterator[str]:
    weights, members = entry.get("weights"), entry["members"]
    if not weights or not isinstance(weights, dict) or not isinstance(members, list):
        return
    if entry.get("temperature") is not None:
        yield f"{where}: has both weights and temperature; keep one"
    for name in weights:
        if name not in members:
            yield f"{where}.weights: {unknown(name, members)}"
    for member in members:
        if member not in weights:
            yield f"{where}.weights.{member}: missing; give each member a weight"


def _describe(error: ErrorDetails) -> str:
    location = [part for part in error["loc"] if part not in ("source", "combination", "[key]")]
    path = ".".join(map(str, location))
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        dataset = Combination if "combination" in error["loc"] else Source
        return f"{path}: {unknown(location[-1], _fields(location[:-1], dataset))}"
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"{path}: {unknown(error['input'], allowed)}"
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "value_error":
        return f"{path}: {error['input']!r}: {context['error']}"
    return f"{path}: {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _fields(location: list[int | str], dataset: type[Section]) -> list[str]:
    """The keys allowed in the section at `location`, where a data set is a `dataset`."""
    section: Any = Config
    for key in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(key)].annotation
        else:
            section = get_args(section)[-1]
        if section == Dataset:
            section = dataset
    return list(section.model_fields)


def _has_phantoms(reader: object) -> bool:
    if reader not in readers.NAMES:
        return True  # that is an error of its own
    from workflow_scripts.datasets.phantoms import layouts

    return reader in layouts.WRITERS
