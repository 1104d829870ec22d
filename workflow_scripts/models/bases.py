"""Where the base model of an adapter lies whose configuration names it by its repository on the hub."""

import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError

DOWNLOADED = Path("results/models")


def of_repository(name: str) -> Path | None:
    """The folder of the model `name` on this machine: as `download` has put it there, or in the hub's cache.

    None where `name` is no repository's name; a UserError where it is one that is not here.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    for manifest in sorted(DOWNLOADED.glob("*/manifest.json")):
        if files.read_value(manifest, "origin").get("repository") == name:
            return manifest.parent
    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Path(cached).parent
    raise UserError(
        f"{name}: the base model of an adapter is neither in {DOWNLOADED}/ nor in the hub's cache; fetch it with "
        f"`python -m workflow_scripts.download`, or `hf download {name}`"
    )
