"""What all trackers say alike: the name of the experiment, and the commit."""

import subprocess
from pathlib import Path

EXPERIMENT = "glm-medvqa"


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
