"""Where the base model of an adapter lies whose configuration names it by its repository on the hub."""

import re
from pathlib import Path

from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import MANIFEST

# By these transformers and peft know what a folder holds.
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
DOWNLOADED = Path("results/models")


def is_adapter(path: Path) -> bool:
    """Whether the folder holds an adapter, which needs a base model, rather than a whole model."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def is_model(path: Path) -> bool:
    """Whether the folder holds a whole model or an adapter."""
    return is_adapter(path) or (Path(path) / CONFIG).is_file()


def of_repository(name: str) -> Path | None:
    """The folder of the model `name` on this machine: as `download` has put it there, or in the hub's cache.

    None where `name` is no repository's name; a UserError where it is one that is not here.
    """
    # What is not to be sent home is set when a command begins, before this is imported.
    from huggingface_hub import try_to_load_from_cache

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    for manifest in sorted(DOWNLOADED.glob(f"*/{MANIFEST}")):
        if files.read_value(manifest, "origin").get("repository") == name:
            return manifest.parent
    cached = try_to_load_from_cache(name, CONFIG)
    if isinstance(cached, str):
        return Path(cached).parent
    raise UserError(
        f"{name}: the base model of an adapter is neither in {DOWNLOADED}/ nor in the hub's cache; fetch it with "
        f"`python -m workflow_scripts.download`, or `hf download {name}`"
    )
