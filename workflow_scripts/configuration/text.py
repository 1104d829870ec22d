"""A configuration as text: config.yaml with a comment for each key, its schema, and a run's own copy."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout
from workflow_scripts.configuration.settings import Checkpoint, Combination, Config, Source


def to_yaml(config: Config) -> str:
    """`config` as YAML, each key under the comment that explains it."""
    lines = [
        "# The configuration of the workflow. Written by `python -m workflow_scripts.config --write` from the",
        "# defaults in workflow_scripts/configuration/settings.py; edit freely. A key left out has the value shown here.",
        "# yaml-language-server: $schema=config.schema.json",
    ]
    return "\n".join(lines + list(_section_lines(config, ""))) + "\n"


def _section_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, value in section:  # of what a stage is shown, the keys that it may read
        field = type(section).model_fields[name]
        top = not indent
        if top:
            yield ""
        note = field.description or (type(value).__doc__ if isinstance(value, BaseModel) else "")
        if isinstance(value, BaseModel):
            yield f"{indent}# {note}"
            yield f"{indent}{name}:"
            yield from _section_lines(value, indent + "  ")
        elif name in ("datasets", "models"):
            yield f"{indent}# {note}"
            for entry in (Source, Combination) if name == "datasets" else (Checkpoint,):
                yield f"{indent}# {str(entry.__doc__).splitlines()[0]}"
                for key, inner in entry.model_fields.items():
                    yield f"{indent}#   {key}: {inner.description}"
            plain = section.model_dump(mode="json", include={name}, exclude_defaults=False)[name]
            yield from yaml.safe_dump({name: _without_empty(plain)}, sort_keys=False, width=110).splitlines()
        else:
            plain = section.model_dump(mode="json", include={name})[name]
            text = (
                yaml.safe_dump(plain, default_flow_style=True, width=1000)
                .removesuffix("\n")
                .removesuffix("\n...")
            )
            yield f"{indent}{name}: {text}" + (f"  # {note}" if note else "")


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_empty(item)
            for key, item in value.items()
            if item not in (None, [], {}, "", False, "main")
        }
    return value


def to_schema() -> str:
    """The JSON schema of config.yaml, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_copy(settings: Config, layout: Layout) -> Path:
    """Keep `settings` under results/config/, in a file named by its content; returns the path."""
    text = to_yaml(settings)
    path = layout.root / "config" / f"{files.fingerprint(text)}.yaml"
    if not path.is_file():
        files.write_text(path, text)
    return path
