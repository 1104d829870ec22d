"""One process per GPU: a training starts itself again under torchrun, on one node or on each of several."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import processes, started_by_torchrun
from workflow_scripts.configuration.settings import Training
from workflow_scripts.training import memory, torchrun

logger = logging.getLogger(__name__)

JOIN_SECONDS = 600  # that nodes wait for each other at the start
# Of several nodes, where the environment does not say otherwise: NCCL names what it could not reach.
WIRES = {"NCCL_DEBUG": "WARN"}


def launch_or_run(
    module: str,
    arguments: list[str],
    settings: Training,
    checkpoints: Path,
    run: Callable[[], dict[str, Any]],
) -> int:
    """Call `run` here, or run `python -m module` once per GPU; returns the exit status.

    Several processes start again where they ran out of memory and left a smaller token budget in `checkpoints`.
    Comes before anything that touches CUDA, which looks at CUDA_VISIBLE_DEVICES once.
    """
    if not started_by_torchrun():
        if settings.nodes == 1 and settings.gpus <= 1 and settings.strategy == "ddp":
            # Of several visible GPUs the trainer would make a DataParallel, which TRL refuses.
            os.environ["CUDA_VISIBLE_DEVICES"] = first_gpu(os.environ)
        else:
            gpus = _gpus_here(settings)
            if gpus or settings.nodes > 1:
                return _launched(launcher(module, arguments, gpus, settings.nodes, os.environ), checkpoints)
    metrics = run()
    if processes().rank == 0:
        logger.info(
            "%d steps in %.0f s, loss %.4f", metrics["steps"], metrics["seconds"], metrics["final_loss"]
        )
    return 0


def first_gpu(environment: Mapping[str, str]) -> str:
    """CUDA_VISIBLE_DEVICES with the first of the visible GPUs alone."""
    return environment.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def launcher(
    module: str, arguments: list[str], gpus: int, nodes: int, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command that runs `module` in one process per GPU, and its environment; a node without GPUs gets one.

    Of several nodes in a SLURM allocation, srun starts torchrun on each, unless this runs on each already.
    Elsewhere this command is started on every node by hand, with MASTER_ADDR (and MASTER_PORT) naming one of them.
    """
    per_node = [
        sys.executable, "-m", torchrun.__name__, f"--nproc-per-node={max(1, gpus)}",
        f"--signals-to-handle={','.join(number.name for number in torchrun.HANDLED)}",
        f"--shutdown-timeout={torchrun.SHUTDOWN_SECONDS}",
    ]  # fmt: skip
    training = ["--module", module, *arguments]
    if nodes == 1:
        return [*per_node, "--standalone", *training], dict(environment)
    environment = {**WIRES, **environment}
    meeting = [
        f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={module}", f"--rdzv-conf=join_timeout={JOIN_SECONDS}",
    ]  # fmt: skip
    if "SLURM_JOB_ID" not in environment:
        return [*per_node, *meeting, f"--rdzv-endpoint={_master(nodes, environment)}", *training], dict(
            environment
        )
    command = [*per_node, *meeting, f"--rdzv-endpoint={_first_node(nodes, environment)}", *training]
    if int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1:
        return command, dict(environment)
    # A step beside the one that this process may be part of, whose settings must not reach it.
    own = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))
    }
    own |= {name: environment[name] for name in ("SLURM_JOB_ID", "SLURM_CONF") if name in environment}
    step = [
        "srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--cpu-bind=none",
        "--kill-on-bad-exit=1",
    ]  # fmt: skip
    return [*step, *([f"--gpus-per-node={gpus}"] if gpus else []), *command], own


def _gpus_here(settings: Training) -> int:
    """How many processes with a GPU a node gets; 0 where it has none, and stand-ins train on the CPU."""
    import torch

    visible = torch.cuda.device_count()
    if not settings.gpus or not visible:
        if settings.strategy != "ddp":
            raise UserError(
                f"strategy: {settings.strategy} is for GPUs, and gpus is 0 or none is visible; check nvidia-smi and "
                "CUDA_VISIBLE_DEVICES, or take strategy: ddp"
            )
        return 0
    if visible < settings.gpus:
        raise UserError(
            f"gpus: {settings.gpus} asked for, {visible} visible; check CUDA_VISIBLE_DEVICES or ask for fewer"
        )
    return settings.gpus


def _master(nodes: int, environment: Mapping[str, str]) -> str:
    if "MASTER_ADDR" not in environment:
        raise UserError(
            f"nodes: {nodes}: this is no SLURM allocation; start the same command on every node with "
            "MASTER_ADDR=(the name of one of them), or inside an allocation of as many nodes"
        )
    return f"{environment['MASTER_ADDR']}:{environment.get('MASTER_PORT', 29500)}"


def _first_node(nodes: int, environment: Mapping[str, str]) -> str:
    """host:port on the first node of the allocation; jobs that share a node meet at different ports."""
    job = environment["SLURM_JOB_ID"]
    # Below Snakemake's executor, what the environment says of the job is of its step on one node.
    names = _told_by("squeue", "--noheader", f"--jobs={job}", "--format=%N", environment=environment)
    hosts = _told_by("scontrol", "show", "hostnames", *names, environment=environment)
    if len(hosts) != nodes:
        raise UserError(
            f"nodes: {nodes} asked for, and the SLURM allocation has {len(hosts)}; give sbatch --nodes={nodes}"
        )
    return f"{hosts[0]}:{20000 + int(job) % 10000}"


def _told_by(*command: str, environment: Mapping[str, str]) -> list[str]:
    """The words that a command of SLURM prints."""
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{command[0]} does not tell the nodes of the allocation ({error})") from error
    return done.stdout.split()


def _launched(command: tuple[list[str], dict[str, str]], checkpoints: Path) -> int:
    """Run `command` until it ends for another reason than memory that ran out; returns its exit status."""
    while True:
        before = memory.retries(checkpoints)
        status = _wait_for(*command)
        if not status or memory.retries(checkpoints) <= before:
            return status
        logger.warning("starting all processes again")


def _wait_for(arguments: list[str], environment: dict[str, str]) -> int:
    with subprocess.Popen(arguments, env=environment) as process:
        try:
            return process.wait()
        except BaseException:
            # It ends its workers, and is waited for. At SIGTERM, srun would kill them.
            process.send_signal(signal.SIGUSR1)
            raise
