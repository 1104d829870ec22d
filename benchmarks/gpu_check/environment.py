"""What this machine is: card, versions, what is missing, and the rates that other figures are shares of."""

import platform
import subprocess
from importlib import metadata

import torch

from benchmarks import timing
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import Moment, Shape, on_gpu
from workflow_scripts.training import optional

PACKAGES = ("transformers", "trl", "peft", "accelerate", "datasets", "triton")
OPTIONAL = (optional.BITSANDBYTES, optional.LIGER)
COPIED_BYTES = 2**32


def check(shape: Shape, findings: Findings) -> None:
    """Card, driver, versions; the rate of a bf16 matrix product and of a copy."""
    findings.figure("python", platform.python_version())
    findings.figure("torch", f"{torch.__version__}, CUDA {torch.version.cuda}")
    findings.figure("packages", {name: version(name) for name in PACKAGES})
    findings.figure("optional packages", {name: version(name.split("==")[0]) for name in OPTIONAL})
    if not on_gpu():
        findings.figure("card", "none")
        return
    properties = torch.cuda.get_device_properties(0)
    findings.figure("card", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    findings.figure("driver", _driver())
    findings.figure("matrix product, TFLOP/s", timing.matrix_rate() / 1e12)
    findings.figure("copy, read and written, TB/s", copy_rate() / 1e12)


def version(package: str) -> str:
    """That of an installed package, or "missing"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({type(error).__name__})"


def copy_rate() -> float:
    """Bytes read and written a second by a copy on the GPU: the best of five."""
    source = torch.ones(COPIED_BYTES // 4, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    seconds = []
    for _ in range(5):
        start = Moment.now()
        target.copy_(source)
        seconds.append(start.until(Moment.now()))
    return 2 * COPIED_BYTES / min(seconds)
