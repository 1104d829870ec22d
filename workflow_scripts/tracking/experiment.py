"""What all trackers say alike: the name of the experiment, and the commit."""

from workflow_scripts.base import environment

EXPERIMENT = "glm-medvqa"


def git_commit() -> str:
    """The commit of this package's checkout, with "-dirty" where files differ from it; "unknown" outside git."""
    commit = environment.git("rev-parse", "HEAD")
    changes = environment.git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return "unknown"
    return commit + ("-dirty" if changes else "")
