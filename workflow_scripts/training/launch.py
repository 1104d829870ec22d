"""One process per GPU: a command that wants several GPUs starts itself again under torchrun."""

import os
import subprocess
import sys

import torch

from workflow_scripts.errors import UserError


def relaunch(module: str, arguments: list[str], gpus: int) -> int | None:
    """Run `python -m module` once per GPU and return its status; None where this process should do the work."""
    if "LOCAL_RANK" in os.environ or gpus <= 1 or not torch.cuda.is_available():
        return None
    visible = torch.cuda.device_count()
    if visible < gpus:
        raise UserError(
            f"gpus: {gpus} asked for, {visible} visible; check CUDA_VISIBLE_DEVICES or ask for fewer"
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
    with subprocess.Popen([*command, "--module", module, *arguments]) as launcher:
        try:
            return launcher.wait()
        except BaseException:
            launcher.terminate()  # it ends its workers, and is waited for
            raise
