"""Whether the processes of one training have the same environment: nodes may have other modules, or another disk."""

import platform
import socket
from dataclasses import dataclass

from accelerate.utils import gather_object

from workflow_scripts import __version__
from workflow_scripts.base import environment
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import processes


@dataclass(frozen=True)
class Environment:
    """What one process runs in: versions by name."""

    host: str
    versions: dict[str, str]


def here() -> Environment:
    """That of this process."""
    own = {"medvqa": __version__, "python": platform.python_version()}
    return Environment(socket.gethostname(), own | _code() | environment.libraries())


def _code() -> dict[str, str]:
    """The commit of the checkout, and whether the code is that still; without what git does not tell."""
    commit, dirty = environment.code()
    found = {"commit": commit[:12]} if commit else {}
    return found if dirty is None else {**found, "code": "changed since" if dirty else "as committed"}


def check() -> None:
    """A UserError in all processes where two of them run other versions of something."""
    if processes().count == 1:
        return
    first, *others = gather_object([here()])
    for other in others:
        # A node may have no git, or too slow a disk for it, and yet the same code.
        unknown = {"commit", "code"} - (first.versions.keys() & other.versions.keys())
        names = sorted((first.versions.keys() | other.versions.keys()) - unknown)
        differ = [name for name in names if first.versions.get(name) != other.versions.get(name)]
        if differ:
            told = ", ".join(
                f"{name} {other.versions.get(name, 'missing')} instead of {first.versions.get(name, 'none')}"
                for name in differ
            )
            raise UserError(
                f"{other.host} has another environment than {first.host}: {told}; let all nodes use one environment, on a "
                "disk that they share or in one container"
            )
