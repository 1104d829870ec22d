"""Where a stage runs: machine, versions, memory."""

import getpass
import os
import platform
import resource
import socket
import sys
from typing import Any

import psutil

from workflow_scripts.base import environment
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
GIB = 2**30


def about() -> dict[str, Any]:
    """Commit, machine, job and versions, as plain values."""
    return {
        "git_commit": git_commit(),
        "command": " ".join(["python", "-m", *([main] if (main := _module()) else []), *sys.argv[1:]]),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
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
    process = _this_process()
    found = {
        "system/memory_gb": process.memory_info().rss / GIB,
        "system/cpu_percent": process.cpu_percent(),
    }
    if cuda := _cuda():
        found["system/gpu_memory_gb"] = cuda.memory_allocated() / GIB
        found["system/gpu_memory_peak_gb"] = cuda.max_memory_allocated() / GIB
    return found


def peaks() -> dict[str, float]:
    """The most memory that this process has taken, in GiB."""
    found = {"system/peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
    if cuda := _cuda():
        found["system/peak_gpu_memory_gb"] = cuda.max_memory_allocated() / GIB
    return found


def gpus() -> list[str]:
    """The names of the GPUs that this process uses."""
    cuda = _cuda()
    return [cuda.get_device_name(number) for number in range(cuda.device_count())] if cuda else []


_processes: dict[int, psutil.Process] = {}


def _this_process() -> psutil.Process:
    """Kept, for `cpu_percent` counts from the last call on."""
    return _processes.setdefault(os.getpid(), psutil.Process())


def _cuda() -> Any:
    """torch.cuda, where this process has loaded torch and a GPU is there."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
