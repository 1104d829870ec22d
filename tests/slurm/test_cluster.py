"""The workflow on a real SLURM, whose GPUs alone are simulated."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import Unavailable, cluster, jobs, nodes

from workflow_scripts.training import checkpoints

pytestmark = pytest.mark.slurm

RUN = "slake_4.1v_base"
GPUS = {
    "download": 0, "download_model": 0, "convert": 0, "validate": 0,
    "sft": 2, "preferences": 1, "dpo": 4, "ask": 1, "evaluate": 0, "report": 0,
}  # fmt: skip

THREADS = 8  # of a process, of which there is one per GPU
CPU_THREADS = {"convert": 4, "validate": 4, "evaluate": 4}  # at most the cores of the machine that submits


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


def start(folder, *flags) -> subprocess.Popen:
    """Start Snakemake in `folder`, which asks for the jobs' states after 10, 30, 60… seconds instead of 40, 90, 150…"""
    command = [sys.executable, "-m", "snakemake", "--slurm-init-seconds-before-status-checks", "10", *flags]
    # The simulated GPUs must not turn into real ones, where this machine has some.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def snakemake(folder, *flags) -> tuple[int, str]:
    """Run Snakemake to its end: its status, and what it said."""
    started = start(folder, *flags)
    said, _ = started.communicate()
    return started.returncode, said


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
    status, said = snakemake(tmp_path, *flags, "--retries", "0")
    assert status == 0, said
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
        cpus = gpus * THREADS if gpus else min(CPU_THREADS.get(stage, 1), os.cpu_count())
        assert job["NumCPUs"] == str(cpus)
        assert memory_mb(job) == (cpus * asked["mem_mb_per_cpu"] if gpus else asked["mem_mb"])


def test_a_training_on_two_nodes_is_saved_at_its_time_limit(workdir, flags, tmp_path):
    """Its processes meet over both nodes; at the limit, SLURM sends SIGTERM."""
    try:
        socket.gethostbyname(nodes()[0])
    except OSError as error:
        pytest.skip(f"processes find no node by this machine's name ({error})")
    settings = yaml.safe_load((workdir / "settings.yaml").read_text(encoding="utf-8"))
    settings["sft"] |= {"gpus": 1, "nodes": 2, "max_steps": None, "epochs": 1000, "micro_batch_size": 2}
    settings["sft"]["save_steps"] = 100_000
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    flags = [tmp_path / "settings.yaml" if flag == workdir / "settings.yaml" else flag for flag in flags]
    target = f"results/sft/{RUN}/metrics.json"
    started = start(tmp_path, *flags, "--set-resources", "sft:runtime=1", "--retries", "0", "--", target)
    deadline = time.monotonic() + 400
    while by_rule(workdir).get("sft", {}).get("JobState") != "TIMEOUT":
        assert started.poll() is None and time.monotonic() < deadline, started.communicate()[0]
        time.sleep(1)
    started.kill()  # by itself it would look at the job's state again in a minute
    started.communicate()
    job = by_rule(workdir)["sft"]
    assert (job["NumNodes"], job["TresPerNode"]) == ("2", "gres:gpu:1")
    (kept,) = (workdir / f"results/checkpoints/sft/{RUN}").glob("checkpoint-*")
    assert checkpoints.is_whole(kept)
    assert len(list(kept.glob("rng_state_*"))) == 2  # one of each process


def test_a_job_killed_for_memory_leaves_no_output(tmp_path, profile):
    (tmp_path / "Snakefile").write_text(
        "rule greedy:\n"
        "    output: 'half.json'\n"
        f"    resources: slurm_partition='{profile['default-resources']['slurm_partition']}', mem_mb=400\n"
        """    shell: "touch {output}; python -c 'import time; kept = b\\"x\\" * 900_000_000; time.sleep(60)'"\n"""
    )
    status, _ = snakemake(tmp_path, "--executor", "slurm", "--slurm-status-command", "squeue", "--jobs", "1")
    assert status != 0
    job = by_rule(tmp_path)["greedy"]
    assert job["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert "exceeded memory limit" in Path(job["StdOut"]).read_text(encoding="utf-8")
    assert not (tmp_path / "half.json").exists()
