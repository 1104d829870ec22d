"""The workflow on a real SLURM, whose GPUs alone are simulated."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Unavailable, cluster, jobs

pytestmark = pytest.mark.slurm

RUN = "slake_4.1v_base"
GPUS = {
    "download": 0, "download_model": 0, "convert": 0, "validate": 0,
    "sft": 2, "preferences": 1, "dpo": 4, "evaluate": 1, "report": 0,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def running_cluster(profile):
    partitions = {
        entry["slurm_partition"]
        for entry in (profile["default-resources"], *profile["set-resources"].values())
        if "slurm_partition" in entry
    }
    try:
        with cluster(sorted(partitions)):
            yield
    except Unavailable as reason:
        pytest.skip(str(reason))


def snakemake(folder, *flags) -> subprocess.CompletedProcess:
    """Run Snakemake in `folder`, which asks for the jobs' states after 10, 30, 60… seconds instead of 40, 90, 150…"""
    command = [sys.executable, "-m", "snakemake", "--slurm-init-seconds-before-status-checks", "10", *flags]
    # The simulated GPUs must not turn into real ones, where this machine has some.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def by_rule(folder) -> dict[str, dict[str, str]]:
    """The jobs that `folder` submitted, by the rule that the plugin names in the comment."""
    return {
        re.match(r"rule_(.+?)(_wildcards_|$)", job["Comment"])[1]: job
        for job in jobs()
        if job["WorkDir"] == str(folder)
    }


def memory_mb(job) -> int:
    number, unit = re.search(r"mem=([\d.]+)([MG])", job["TRES"]).groups()
    return round(float(number) * {"M": 1, "G": 1024}[unit])


def test_one_run_from_download_to_report(workdir, flags, profile, tmp_path):
    done = snakemake(tmp_path, *flags, "--retries", "0")
    assert done.returncode == 0, done.stdout
    assert (workdir / f"results/eval/{RUN}.json").is_file()

    submitted = by_rule(workdir)
    assert submitted.keys() == GPUS.keys()
    for stage, gpus in GPUS.items():
        job = submitted[stage]
        asked = {**profile["default-resources"], **profile["set-resources"].get(stage, {})}
        assert job["JobState"] == "COMPLETED"
        assert job["Partition"] == asked["slurm_partition"]
        assert job["NumNodes"] == "1"
        assert job.get("TresPerJob") == (f"gres:gpu:{gpus}" if gpus else None)
        cpus = gpus * asked["cpus_per_gpu"] if gpus else 1
        assert job["NumCPUs"] == str(cpus)
        assert memory_mb(job) == (cpus * asked["mem_mb_per_cpu"] if gpus else asked["mem_mb"])


def test_a_job_killed_for_memory_leaves_no_output(tmp_path, profile):
    (tmp_path / "Snakefile").write_text(
        "rule greedy:\n"
        "    output: 'half.json'\n"
        f"    resources: slurm_partition='{profile['default-resources']['slurm_partition']}', mem_mb=400\n"
        """    shell: "touch {output}; python -c 'import time; kept = b\\"x\\" * 900_000_000; time.sleep(60)'"\n"""
    )
    done = snakemake(tmp_path, "--executor", "slurm", "--slurm-status-command", "squeue", "--jobs", "1")
    assert done.returncode != 0
    job = by_rule(tmp_path)["greedy"]
    assert job["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert "exceeded memory limit" in Path(job["StdOut"]).read_text(encoding="utf-8")
    assert not (tmp_path / "half.json").exists()
