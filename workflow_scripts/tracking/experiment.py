"""What all trackers say alike: the experiment's name, flat parameters, the commit."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "glm-medvqa"


def flatten(value: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, f"{name}.") if isinstance(item, dict) else {name: item}
    return flat


def git_commit() -> str:
    """The commit of this package's checkout, with "-dirty" where files differ from it; "unknown" outside git."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changes else "")
