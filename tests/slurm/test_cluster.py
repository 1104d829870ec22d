"""The workflow on a real SLURM, whose GPUs alone are simulated."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from cluster import jobs, nodes
from submitted import by_rule, of_rule, snakemake

from workflow_scripts.base import usage
from workflow_scripts.base.paths import Layout
from workflow_scripts.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("running_cluster")]

RUN = "slake_4.1v_base"
GPUS = {
    "download": 0, "download_model": 0, "convert": 0, "validate": 0,
    "sft": 2, "preferences": 1, "dpo": 4, "ask": 1, "evaluate": 0, "report": 0,
}  # fmt: skip

THREADS = 8  # of a process, of which there is one per GPU
CPU_THREADS = {"convert": 4, "validate": 4, "evaluate": 4}  # at most the cores of the machine that submits


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
        assert memory_mb(job) == pytest.approx(24_000 * gpus or 4000, rel=1e-3)


def test_small_stages_of_a_run_share_a_job_where_the_profile_groups_them(workdir, flags, tmp_path):
    """As its remark says it."""
    for name in ("config.yaml", "settings.yaml"):
        shutil.copy(workdir / name, tmp_path)
    text = (ROOT / "profiles/slurm/profile.yaml").read_text(encoding="utf-8")
    groups = yaml.safe_load(re.search(r"^# (groups: .*\])", text, re.M)[1])["groups"]
    flags = [tmp_path if flag == workdir else flag for flag in flags]
    target = f"results/data/{RUN}/validation.json"
    status, said = snakemake(tmp_path, *flags, "--groups", *groups, "--", target)
    assert status == 0, said
    submitted = [job["JobId"] for job in jobs() if job["WorkDir"] == str(tmp_path)]
    ledgers = (
        usage.ledger_of(Layout(tmp_path / "results").log(stage, RUN)) for stage in ("convert", "validate")
    )
    (converted,), (validated,) = map(usage.attempts, ledgers)
    assert len(submitted) == 3 and converted.slurm_job == validated.slurm_job in submitted
    assert converted.shared and validated.shared  # its time is that of both


def test_an_own_error_is_met_once_and_other_runs_go_on(workdir, flags, tmp_path):
    """The profile tries again what failed, but for what would fail again."""
    configuration = yaml.safe_load((workdir / "config.yaml").read_text(encoding="utf-8"))
    configuration["datasets"]["rad"] = {"reader": "rad", "embedded": 12}
    configuration["runs"] = [{"dataset": ["slake"], "sft": {"learning_rate": 1e30}}, {"dataset": ["rad"]}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    flags = [tmp_path if flag == workdir else flag for flag in flags]
    runs = ("slake_4.1v_base", "rad_4.1v_base")
    status, said = snakemake(tmp_path, *flags, "--", *(f"results/sft/{run}/metrics.json" for run in runs))
    assert status == 1, said
    assert (tmp_path / "results/sft/rad_4.1v_base/metrics.json").is_file()
    assert not (tmp_path / "results/logs/sft/rad_4.1v_base.json").exists()

    note = json.loads((tmp_path / "results/logs/sft/slake_4.1v_base.json").read_text(encoding="utf-8"))
    ill = [job for job in of_rule(tmp_path, "sft") if "slake" in job["Comment"]]
    assert [job["JobState"] for job in ill] == ["FAILED"]
    assert note["state"] == "failed" and "loss" in note["reason"]
    assert note["slurm_job"] == ill[0]["JobId"] and note["reason"] in said
    assert len([job for job in of_rule(tmp_path, "sft") if "rad" in job["Comment"]]) == 1
    last = (tmp_path / "results/logs/sft/slake_4.1v_base.log").read_text(encoding="utf-8")
    assert f"error: {note['reason']}" in last and "not tried again" not in last


def preflight(tmp_path, workdir, profile, **changed) -> tuple[int, list[str]]:
    """What it says of the profile with some keys changed: its status, and its lines."""
    folder = tmp_path / "profile"
    folder.mkdir(exist_ok=True)
    (folder / "profile.yaml").write_text(yaml.safe_dump({**profile, **changed}), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "workflow_scripts.preflight", "--profile", str(folder),
            "--config", str(workdir / "config.yaml"), str(workdir / "settings.yaml"),
            "--results", str(tmp_path / "results"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_preflight_passes_the_profile_and_names_what_does_not_fit(workdir, profile, tmp_path):
    before = len(jobs())
    status, lines = preflight(tmp_path, workdir, profile)
    assert status == 0 and all(line.startswith("ok ") for line in lines)
    assert any(line.startswith("ok   status       squeue: accounting is off") for line in lines)
    assert any(" sees " in line for line in lines)
    assert len(jobs()) == before + 2  # the looks from a node of each partition

    status, lines = preflight(tmp_path, workdir, profile, **{"slurm-status-command": "sacct"})
    assert status == 1
    assert [line[:4] for line in lines if "slurm-status-command: squeue" in line] == ["fail"]

    default = {**profile["default-resources"], "slurm_partition": "nowhere"}
    status, lines = preflight(tmp_path, workdir, profile, **{"default-resources": default})
    assert status == 1
    assert [line for line in lines if line.startswith("fail partition    nowhere") and "cpu gpu" in line]

    stages = {name: {**asked, "gpu_model": "h100"} for name, asked in profile["set-resources"].items()}
    status, lines = preflight(tmp_path, workdir, profile, **{"set-resources": stages})
    assert status == 1
    refused = [line.split(":")[0].split(maxsplit=2)[2] for line in lines if line.startswith("fail")]
    assert {stage for names in refused for stage in names.split(", ")} == {"sft", "preferences", "dpo", "ask"}


TIMED = """
import os, sys, time
from pathlib import Path
from workflow_scripts.base import cli

def main(arguments):
    checkpoint = Path("checkpoint")
    if not checkpoint.exists():
        checkpoint.touch()
        time.sleep(600)
    Path("done").touch()
    return 0

sys.exit(cli.run(main, []))
"""


def test_what_ran_out_of_time_is_tried_again_with_more(tmp_path, profile, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "timed.py").write_text(TIMED, encoding="utf-8")
    (tmp_path / "Snakefile").write_text(
        "from workflow_scripts.base import attempts\n"
        "if workflow.is_main_process:\n"
        "    attempts.new_invocation()\n"
        "rule timed:\n"
        "    output: 'done'\n"
        "    log: 'logs/timed.log'\n"
        f"    resources: slurm_partition='{profile['default-resources']['slurm_partition']}', mem_mb=400,\n"
        "        runtime=lambda wildcards, attempt: attempt\n"
        f"    shell: 'MEDVQA_LOG={{log}} {sys.executable} timed.py 2>&1 | tee {{log}}'\n",
        encoding="utf-8",
    )
    flags = ("--executor", "slurm", "--slurm-status-command", "squeue", "--jobs", "1", "--retries", "2")
    status, said = snakemake(tmp_path, *flags)
    assert status == 0, said
    assert [(job["JobState"], job["TimeLimit"]) for job in of_rule(tmp_path, "timed")] == [
        ("TIMEOUT", "00:01:00"),
        ("COMPLETED", "00:02:00"),
    ]
    assert not (tmp_path / "logs/timed.json").exists()


GOING_ON = """
import sys, time
from pathlib import Path
from workflow_scripts.base import cli

def main(arguments):
    with open("begun", "a") as file:
        print(time.time(), file=file)
    time.sleep(160)
    with open("ended", "a") as file:
        print(time.time(), file=file)
    Path("done").touch()
    return 0

sys.exit(cli.run(main, []))
"""


def test_snakemake_as_a_job_starts_again_and_takes_over_what_runs(tmp_path, profile, monkeypatch):
    """SLURM itself keeps a job that is requeued for two minutes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    partition = profile["default-resources"]["slurm_partition"]
    (tmp_path / "going_on.py").write_text(GOING_ON, encoding="utf-8")
    (tmp_path / "Snakefile").write_text(
        "rule going_on:\n"
        "    output: 'done'\n"
        f"    resources: slurm_partition='{partition}', mem_mb=400, runtime=10\n"
        f"    shell: '{sys.executable} going_on.py'\n",
        encoding="utf-8",
    )
    asked = ("--executor", "slurm", "--slurm-status-command", "squeue", "--jobs", "1", "--rerun-incomplete")
    command = [sys.executable, "-m", "workflow_scripts.submit", "--partition", partition, "--", *asked]
    submitted = subprocess.run(
        [*command, "--slurm-init-seconds-before-status-checks", "10"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    number = re.search(r"job (\d+) runs Snakemake", submitted.stderr)[1]

    def until(condition) -> None:
        deadline = time.monotonic() + 400
        log = tmp_path / ".snakemake/slurm_logs/submit.log"
        while not condition():
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(1)

    def main() -> dict[str, str]:
        return next(job for job in jobs() if job["JobId"] == number)

    until((tmp_path / "begun").exists)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)  # as before the time limit
    until(lambda: main()["JobState"] == "COMPLETED")
    assert main()["Restarts"] == "1"
    said = (tmp_path / ".snakemake/slurm_logs/submit.log").read_text(encoding="utf-8")
    assert "back into the queue" in said and "waiting for 1 jobs of an earlier Snakemake" in said
    (begun,), (ended,) = (
        [float(line) for line in (tmp_path / name).read_text().split()] for name in ("begun", "ended")
    )
    assert ended - begun >= 160  # neither cancelled nor begun a second time
    assert (tmp_path / "done").exists()


@pytest.fixture
def on_two_nodes(workdir, flags, tmp_path) -> list:
    """What Snakemake is given for a training without end, whose two processes meet over both nodes."""
    try:
        socket.gethostbyname(nodes()[0])
    except OSError as error:
        pytest.skip(f"processes find no node by this machine's name ({error})")
    settings = yaml.safe_load((workdir / "settings.yaml").read_text(encoding="utf-8"))
    settings["sft"] |= {"gpus": 1, "nodes": 2, "max_steps": None, "epochs": 1000, "micro_batch_size": 2}
    settings["sft"]["save_steps"] = 10
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    flags = [tmp_path / "settings.yaml" if flag == workdir / "settings.yaml" else flag for flag in flags]
    return [*flags, "--retries", "0"]


SLOW = {"PYTHONPATH": str(ROOT / "tests/slurm/slow"), "SLOW_SAVE": "8", "SLOW_STEP": "0.5"}
TRAINED = f"results/sft/{RUN}/metrics.json"


def test_a_training_on_two_nodes_saves_before_its_time_limit(workdir, on_two_nodes, tmp_path):
    """By itself, in time for a slow save, once one has been measured: SLURM has not ended it."""
    status, said = snakemake(
        tmp_path, *on_two_nodes, "--set-resources", "sft:runtime=3", "--", TRAINED, **SLOW
    )
    assert status == 1, said
    job = by_rule(workdir)["sft"]
    assert (job["NumNodes"], job["TresPerNode"]) == ("2", "gres:gpu:1")
    assert job["JobState"] == "FAILED" and job["RunTime"] < "00:03:00"
    step = re.search(r"stopped before the time limit of the job after step (\d+)", said)[1]
    kept = workdir / f"results/checkpoints/sft/{RUN}/checkpoint-{step}"
    assert checkpoints.is_whole(kept)
    assert len(list(kept.glob("rng_state_*"))) == 2  # one of each process


def test_a_process_that_dies_ends_those_of_the_other_node_and_says_why(
    workdir, on_two_nodes, tmp_path, running_cluster
):
    """Also one that hangs, as in a kernel of a GPU."""
    ranks = {"FAILING_RANK": "1", "HANGING_RANK": "0"}
    with running_cluster.configured(KillWait="30"):  # as sites have it
        status, said = snakemake(tmp_path, *on_two_nodes, "--", TRAINED, **SLOW, **ranks)
    assert status == 1, said
    log = (workdir / f"results/logs/sft/{RUN}.log").read_text(encoding="utf-8")
    assert "ZeroDivisionError: of process 1" in log
    note = json.loads((workdir / f"results/logs/sft/{RUN}.json").read_text(encoding="utf-8"))
    assert note["state"] == "failed" and note["reason"] == "ZeroDivisionError: of process 1"
    failed = float((workdir / "failed").read_text())
    ended = datetime.fromisoformat(by_rule(workdir)["sft"]["EndTime"]).timestamp()
    assert ended - failed < 60


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
