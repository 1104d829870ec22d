"""Snakemake on the test cluster, and the jobs that it has submitted."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from cluster import jobs

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *flags, output: Path | None = None, **variables: str) -> subprocess.Popen:
    """Start Snakemake in `folder`, which asks for the jobs' states after 10, 30, 60… seconds instead of 40, 90, 150…

    What it says is added to the file `output`, or else it is for the caller to read.
    """
    command = [sys.executable, "-m", "snakemake", "--slurm-init-seconds-before-status-checks", "10", *flags]
    # The simulated GPUs must not turn into real ones, where this machine has some.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", **variables}
    with output.open("a") if output else nullcontext(subprocess.PIPE) as said:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True
        )


def snakemake(folder: Path, *flags, **variables: str) -> tuple[int, str]:
    """Run Snakemake to its end: its status, and what it said."""
    started = start(folder, *flags, **variables)
    said, _ = started.communicate()
    return started.returncode, said


def until(condition: Callable[[], object], seconds: float, running: subprocess.Popen) -> None:
    """Wait while Snakemake is `running`; what it said is shown where it ends before, or the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None and time.monotonic() < deadline, (
            running.kill() or running.communicate()[0]
        )
        time.sleep(1)


def steps(file: Path) -> list[int]:
    """Each step that slow/sitecustomize.py has seen a training compute, in their order; none before the first."""
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def rule_of(job: dict[str, str]) -> str:
    """The rule of a job, which the plugin names in its comment."""
    return re.match(r"rule_(.+?)(_wildcards_|$)", job["Comment"])[1]


def by_rule(folder: Path) -> dict[str, dict[str, str]]:
    """The jobs that `folder` submitted, by their rules."""
    return {rule_of(job): job for job in jobs() if job["WorkDir"] == str(folder)}


def of_rule(folder: Path, rule: str) -> list[dict[str, str]]:
    """All jobs of a rule that `folder` submitted, with those that were tried again."""
    return [job for job in jobs() if job["WorkDir"] == str(folder) and rule_of(job) == rule]
