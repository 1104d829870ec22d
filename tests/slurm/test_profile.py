"""What profiles/slurm asks for, without a cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CPU_STAGES = {"download", "download_model", "convert", "validate", "evaluate", "report"}
THREADS = 8  # of a process; config.yaml
GPU_STAGES = {"sft": 2, "preferences": 1, "dpo": 4, "ask": 1}

# Threads are left out: Snakemake cuts them to the cores of this machine here, and to those of the job in the job.
DRY_RUN = """
import json, logging
from snakemake.cli import main

class Requests(logging.Handler):
    def emit(self, record):
        if getattr(record, "event", None) == "job_info":
            print("asks", json.dumps({"rule": record.rule_name, **dict(record.resources)}), flush=True)

logging.getLogger("snakemake").addHandler(Requests())
main()
"""


@pytest.fixture(scope="module")
def requests(flags, tmp_path_factory) -> dict[str, dict]:
    """The resources of each rule."""
    command = [sys.executable, "-c", DRY_RUN, *flags, "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path_factory.mktemp("elsewhere"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.removeprefix("asks ") for line in done.stdout.splitlines() if line.startswith("asks ")]
    jobs = [json.loads(line) for line in lines]
    return {job.pop("rule"): job for job in jobs}


def test_every_rule_is_covered(requests, profile):
    assert requests.keys() - {"all"} == CPU_STAGES | GPU_STAGES.keys()
    assert profile["set-resources"].keys() <= CPU_STAGES | GPU_STAGES.keys()
    jobs = [job for rule, job in requests.items() if rule != "all"]
    assert all(job["slurm_partition"] and 20 <= job["runtime"] <= 60 and job["nodes"] == 1 for job in jobs)


@pytest.mark.parametrize("stage", sorted(CPU_STAGES))
def test_cpu_stages_ask_for_no_gpu(requests, profile, stage):
    assert "gpu" not in requests[stage]
    assert requests[stage]["slurm_partition"] == profile["default-resources"]["slurm_partition"]
    assert requests[stage]["mem_mb"] == 4000


@pytest.mark.parametrize(("stage", "gpus"), GPU_STAGES.items())
def test_gpu_stages_ask_for_the_gpus_of_the_configuration(requests, profile, stage, gpus):
    request = requests[stage]
    assert request["gpu"] == gpus
    assert request["slurm_partition"] == profile["set-resources"][stage]["slurm_partition"]
    assert request["mem_mb"] == 24_000 * gpus  # of the stand-in's weights nothing
    assert request["cpus_per_gpu"] == THREADS


# A dry run does not say which rules are local.
LOCAL = """
from snakemake.cli import main
from snakemake.workflow import Workflow

Workflow.list_rules = lambda self, *_, **__: print("local:", *sorted(self._localrules))
main()
"""


@pytest.mark.parametrize("here, local", [("false", []), ("true", ["download", "download_model"])])
def test_downloads_run_beside_snakemake_where_that_is_asked_for(flags, tmp_path, here, local):
    overlay = tmp_path / "here.yaml"
    overlay.write_text(f"cluster: {{download_here: {here}}}")
    at = flags.index("--profile")
    command = [sys.executable, "-c", LOCAL, *flags[:at], overlay, "--list-rules"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split("local:")[1].split() == ["all", *local], done.stderr
