"""Where a stage runs: machine, versions, memory."""

import getpass
import os
import platform
import socket
import sys
from typing import Any

import psutil

from workflow_scripts.base import environment, footprint, job_log
from workflow_scripts.base.footprint import GIB
from workflow_scripts.tracking.experiment import git_commit

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "deepspeed",
    "mlflow",
    "snakemake",
)
# Those of `about` that results may depend on, or their time.
ENVIRONMENT = ("python", "system", "cpu_cores", "memory_gb", "host", "slurm_job", "versions")


def about() -> dict[str, Any]:
    """Commit, machine, job and versions, as plain values."""
    return {
        "git_commit": git_commit(),
        "command": " ".join(["python", "-m", *([main] if (main := _module()) else []), *sys.argv[1:]]),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "job_attempt": job_log.attempt(),
        "user": _user(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / GIB, 1),
        "versions": {name: found for name in PACKAGES if (found := environment.version(name))},
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return str(os.getuid())


def _module() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name if spec else ""


def usage() -> dict[str, float]:
    """What this process takes at present: memory in GiB, of a GPU too where it uses one, and CPU in per cent."""
    found = {
        "system/memory_gb": footprint.memory(),
        "system/cpu_percent": _this_process().cpu_percent(),
    }
    if cuda := footprint.cuda():
        found["system/gpu_memory_gb"] = cuda.memory_allocated() / GIB
        found["system/gpu_memory_peak_gb"] = cuda.max_memory_allocated() / GIB
    return found


def peaks() -> dict[str, float]:
    """The most memory that this process has taken, in GiB."""
    found = {"system/peak_memory_gb": footprint.peak_memory()}
    if (gpu := footprint.peak_gpu_memory()) is not None:
        found["system/peak_gpu_memory_gb"] = gpu
    return found


_processes: dict[int, psutil.Process] = {}


def _this_process() -> psutil.Process:
    """Kept, for `cpu_percent` counts from the last call on."""
    return _processes.setdefault(os.getpid(), psutil.Process())
