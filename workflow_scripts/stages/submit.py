"""Snakemake as a SLURM job that puts itself back into the queue and takes over the jobs that it has submitted."""

import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.errors import Terminated, UserError

logger = logging.getLogger(__name__)

LEAD_SECONDS = 120  # before the time limit; SLURM looks at it once a minute
LOG = Path(".snakemake/slurm_logs/submit.log")  # where the plugin keeps its own
MEMORY_MB = 4000


def submit(arguments: list[str], minutes: int, where: dict[str, str]) -> str:
    """Queue Snakemake with its `arguments`; returns the number of the job."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    inside = [sys.executable, "-m", "workflow_scripts.submit", "--inside", "--", *arguments]
    answer = slurm.ask(
        "sbatch", "--parsable", "--job-name=medvqa", "--ntasks=1", f"--mem={MEMORY_MB}", f"--time={minutes}",
        "--requeue", "--open-mode=append", f"--output={LOG}", f"--signal=B:USR1@{LEAD_SECONDS}",
        *(f"--{flag}={name}" for flag, name in where.items()),
        f"--wrap=exec {shlex.join(inside)}",
    )  # fmt: skip
    if answer.failed:
        raise UserError(f"{answer.failed}; see --help for partition, account and QOS")
    job = answer.text.strip().partition(";")[0]
    logger.info(
        "job %s runs Snakemake; it writes to %s, and `scancel --batch --signal=TERM %s` ends it",
        job,
        LOG,
        job,
    )
    return job


def inside(arguments: list[str]) -> int:
    """Run Snakemake in the job; returns its status, or never where SLURM starts the job again."""
    job = os.environ["SLURM_JOB_ID"]
    process = None
    try:
        slurm.wait_for_earlier_jobs()
        # The job's own settings must not reach those that Snakemake submits.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
        environment[attempts.MAIN_VARIABLE] = (
            f"job {job}"  # what failed is not tried again after a requeue either
        )
        command = [sys.executable, "-m", "snakemake", *arguments]
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            subprocess.run([*command, "--unlock"], env=environment, check=False)
        process = subprocess.Popen(command, env=environment)
        return process.wait()
    except Terminated as warning:
        if process and warning.number == signal.SIGUSR1:
            process.kill()  # to a gentler signal it would wait for its jobs, or cancel them
        elif process:
            process.terminate()
        if process:
            process.wait()
        if warning.number == signal.SIGUSR1:
            logger.info("back into the queue before the time is up; the jobs go on")
            if failed := slurm.ask("scontrol", "requeue", job).failed:
                logger.error("%s; start `submit` again", failed)
        raise
