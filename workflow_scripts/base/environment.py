"""What makes a result besides settings and data: the code, the libraries and the machine, as a result records them."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import workflow_scripts
from workflow_scripts.base import gpus

_CHECKOUT = Path(__file__).parents[2]
# Of the checkout, what results depend on; the configuration is recorded by itself.
_CODE = ("workflow_scripts", "rules", "Snakefile")
LIBRARIES = (
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "liger-kernel", "numpy", "peft", "pillow", "pydicom", "python-gdcm",
    "safetensors", "scipy", "snakemake", "tokenizers", "torch", "torchvision", "transformers", "trl", "vllm",
)  # fmt: skip


class Hardware(TypedDict):
    """The machine: what kind of CPU, its cores, GiB of memory, and its GPUs by name with their driver."""

    cpu: str
    cores: int
    memory_gib: float
    gpus: list[str]
    driver: str | None


class Made(TypedDict):
    """When, by which code and where something was made.

    `commit` and `dirty` are None where the code lies in no checkout, as that of a wheel; `dirty` says that it was not
    quite that of the commit. No name of a machine or a person is in it.
    """

    date: str
    package: str
    commit: str | None
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    hardware: Hardware


def made() -> Made:
    """What a result of this process, written now, records."""
    commit, dirty = code()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": workflow_scripts.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "libraries": libraries(),
        "hardware": hardware(),
    }


def code() -> tuple[str | None, bool | None]:
    """The commit of the checkout, and whether the code there is another than the commit's; None where git does not tell."""
    if git("ls-files", "--error-unmatch", "workflow_scripts/__init__.py") is None:
        return None, None  # no checkout, or somebody else's around an installed package
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", *_CODE)
    return commit, None if changes is None else bool(changes)


def git(*arguments: str) -> str | None:
    """What git prints in the checkout; None where it fails."""
    command = ["git", "-C", str(_CHECKOUT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def libraries() -> dict[str, str]:
    """The installed versions of those of LIBRARIES that are installed."""
    return {name: found for name in LIBRARIES if (found := version(name))}


def version(package: str) -> str | None:
    """The installed version of `package`; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def hardware() -> Hardware:
    """This machine."""
    drivers = gpus.described("driver_version")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus.described("name"),
        "driver": drivers[0] if drivers else None,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
