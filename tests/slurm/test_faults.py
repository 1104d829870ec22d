"""What befalls jobs on a real SLURM: each goes on, and ends with the same weights."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import URGENT, Cluster, jobs, nodes
from submitted import ROOT, of_rule, snakemake, start, steps, until

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("running_cluster")]

STEPS, EVERY = 14, 4
SOURCE = {"reader": "slake", "embedded": 12}
ANY = ("first", "second", "third", "fourth", "fifth")
DATASETS = (*ANY, "timed", "greedy")
SFT = {
    "gpus": 1, "threads": 1, "max_steps": STEPS, "epochs": 100, "batch_size": 4, "gradient_checkpointing": False,
    "save_steps": EVERY, "log_steps": 1, "lora": {"rank": 4, "dropout": 0.1},
}  # fmt: skip
SLOW = {
    "PYTHONPATH": str(ROOT / "tests/slurm/slow"),
    "SLOW_STEP": "3",
    "SLOW_SAVE": "4",
    "SLOWEST": "timed",
}


def run(dataset: str) -> str:
    return f"{dataset}_4.1v_base"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the data and the model of all runs: those of one, under as many names."""
    folder = tmp_path_factory.mktemp("faults")
    configuration = {
        "datasets": dict.fromkeys(DATASETS, SOURCE),
        "models": {"4.1v": {"base": {"embedded": True}}},
        "tracking": ["tensorboard"],
        "sft": SFT,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
    status, said = snakemake(
        folder, "--snakefile", ROOT / "Snakefile", "--executor", "local", "--cores", "2",
        "--", f"results/data/{run(ANY[0])}/validation.json",
    )  # fmt: skip
    assert status == 0, said
    results = folder / "results"
    for dataset in DATASETS[1:]:
        shutil.copytree(results / "raw" / ANY[0], results / "raw" / dataset)
        shutil.copytree(results / "data" / run(ANY[0]), results / "data" / run(dataset))
        for split in (results / "data" / run(dataset)).glob("*.jsonl"):
            split.write_text(split.read_text("utf-8").replace(f"/raw/{ANY[0]}/", f"/raw/{dataset}/"), "utf-8")
        (results / "data" / run(dataset) / "validation.json").touch()
    return folder


def job_of(folder: Path, dataset: str) -> dict[str, str]:
    """The last job that trains on it; empty before there is one."""
    found = [job for job in of_rule(folder, "sft") if run(dataset) in job["Comment"]]
    return found[-1] if found else {}


def computed(folder: Path, dataset: str) -> list[int]:
    return steps(folder / f"results/checkpoints/sft/{run(dataset)}.steps")


def weights(folder: Path, dataset: str) -> bytes:
    (file,) = (folder / "results/sft" / run(dataset)).glob("*.safetensors")
    return file.read_bytes()


def tracked(folder: Path, dataset: str) -> tuple[set[str], list[int]]:
    """What trackers are told of a training: the runs that it is to them, and the steps of its curve."""
    (journal,) = (folder / "results/tracking" / run(dataset)).glob("*/sft.jsonl")
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    runs = {event["attempt"] for event in events if event["kind"] == "open"}
    return runs, [event["step"] for event in events if event["kind"] == "curve"]


def test_trainings_outlive_what_befalls_their_jobs(folder, running_cluster: Cluster):
    """At once: preemption, scancel, a warning, requeue, a node that is lost, a time limit and too little memory."""
    first, second = nodes()
    asked = (
        "sft:runtime=(3 if wildcards.dataset == 'timed' else 60) * attempt",
        "sft:mem_mb_per_cpu=500 if wildcards.dataset == 'greedy' and attempt == 1 else 4000",
        f"sft:slurm_partition='{URGENT}' if wildcards.dataset in ('timed', 'greedy') else 'gpu'",  # not preempted
    )
    targets = [f"results/sft/{run(dataset)}/metrics.json" for dataset in DATASETS]
    where = (
        "--snakefile",
        ROOT / "Snakefile",
        "--profile",
        ROOT / "profiles/slurm",
        "--allowed-rules",
        "sft",
    )
    with running_cluster.configured(KillWait="30"):  # as sites have it
        started = start(folder, *where, "--set-resources", *asked, "--", *targets, **SLOW)
        until(lambda: all(max(computed(folder, name), default=0) > EVERY for name in ANY), 900, started)
        urgent = ["sbatch", f"--partition={URGENT}", f"--nodelist={first}", "--gpus=1", "--output=/dev/null"]
        subprocess.run([*urgent, "--mem=100", "--wrap=sleep 1"], check=True)  # all four are in use there
        until(lambda: any(job["Restarts"] == "1" for job in of_rule(folder, "sft")), 200, started)
        running = [name for name in ANY if job_of(folder, name)["JobState"] == "RUNNING"]
        running.sort(key=lambda name: job_of(folder, name)["NodeList"] == second)
        cancelled, warned, requeued, *lost = running
        subprocess.run(["scancel", job_of(folder, cancelled)["JobId"]], check=True)
        subprocess.run(["scancel", "--signal=USR1", job_of(folder, warned)["JobId"]], check=True)
        until(
            lambda: all(job_of(folder, name)["JobState"] != "RUNNING" for name in (cancelled, warned)),
            200,
            started,
        )
        subprocess.run(["scontrol", "requeue", job_of(folder, requeued)["JobId"]], check=True)
        running_cluster.lose(second)
        until(lambda: all(job_of(folder, name)["Restarts"] == "1" for name in lost), 200, started)
        running_cluster.start_node(second)
        said = started.communicate(timeout=900)[0]
    assert started.returncode == 0, said

    submitted = {
        name: [job for job in of_rule(folder, "sft") if run(name) in job["Comment"]] for name in DATASETS
    }
    outcome = {name: [job["JobState"] for job in found] for name, found in submitted.items()}
    print(outcome, {name: computed(folder, name) for name in DATASETS}, cancelled, warned, requeued, lost)
    assert outcome[cancelled] == ["CANCELLED", "COMPLETED"]
    assert outcome[warned] == outcome["greedy"] == outcome["timed"] == ["FAILED", "COMPLETED"]
    # SLURM 22.05 puts the others back into the queue, and at times cannot start them a second time: Snakemake can.
    assert all(states[-1] == "COMPLETED" for states in outcome.values())
    assert "OUT_OF_MEMORY: give it more memory" in said
    assert "stopped before the time limit of the job after step" in said
    assert "stopped by SIGTERM after step" in said and "stopped by SIGUSR1 after step" in said
    assert [job["TimeLimit"] for job in submitted["timed"]] == ["00:03:00", "00:06:00"]

    assert len({weights(folder, name) for name in DATASETS}) == 1
    once = list(range(1, STEPS + 1))
    for name in (cancelled, warned, "timed", "greedy"):  # they were saved, or had not begun
        assert computed(folder, name) == once
    for name in DATASETS:
        done, again = computed(folder, name), sum(int(job["Restarts"]) for job in submitted[name])
        assert sorted(set(done)) == once
        assert len(done) <= STEPS + again * (EVERY + 1)  # from a checkpoint on
        attempts, points = tracked(folder, name)
        assert len(attempts) == 1 and points == once  # one run of a tracker's
    assert not list((folder / "results/logs/sft").glob("*.json"))
    assert not list((folder / "results/sft").glob(".*.lock"))


BRIEF = """
import sys, time
from pathlib import Path
from workflow_scripts.base import cli
from workflow_scripts.base.errors import UserError

name, seconds = sys.argv[1:]

def main(arguments):
    with open(f"{name}.begun", "a") as file:
        print(time.time(), file=file)
    time.sleep(int(seconds))
    if name == "wrong":
        raise UserError("train.jsonl:7: no answer; mend it")
    Path(name).touch()
    return 0

sys.exit(cli.run(main, [name]))
"""
SNAKEFILE = f"""
from workflow_scripts.base import attempts, slurm_executor
if workflow.is_main_process:
    attempts.new_invocation()
    slurm_executor.install()
SECONDS = {{"brief": 1, "wrong": 1, "long": 45, "longer": 90}}
rule makes:
    output: "{{name,brief|wrong|long|longer}}"
    log: "logs/{{name}}.log"
    params: seconds=lambda wildcards: SECONDS[wildcards.name]
    resources: mem_mb=400, runtime=10
    shell: "MEDVQA_LOG={{log}} {sys.executable} brief.py {{wildcards.name}} {{params.seconds}} 2>&1 | tee {{log}}"
"""
BRIEFLY = (
    "--executor", "slurm", "--jobs", "3", "--keep-going", "--retries", "1", "--rerun-incomplete",
    "--slurm-status-command", "squeue",
)  # fmt: skip


@pytest.fixture
def brief(tmp_path, profile, monkeypatch) -> tuple[Path, tuple[str, ...]]:
    """A folder with jobs of seconds, and what Snakemake is given."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "brief.py").write_text(BRIEF, encoding="utf-8")
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    partition = profile["default-resources"]["slurm_partition"]
    return tmp_path, (*BRIEFLY, "--default-resources", f"slurm_partition={partition}", "--")


def begun(folder: Path, name: str) -> int:
    file = folder / f"{name}.begun"
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def test_snakemake_outlives_a_slurm_that_forgets_and_does_not_answer(brief, running_cluster: Cluster):
    """MinJobAge is 5 s, the controller is away for 40 s, and the site puts what fails back into the queue."""
    folder, flags = brief
    with running_cluster.configured(MinJobAge="5", RequeueExit="1"):
        started = start(folder, *flags, "brief", "wrong", "long")
        until(lambda: begun(folder, "long"), 400, started)
        running_cluster.stop_controller()
        time.sleep(40)
        running_cluster.start_controller()
        said = started.communicate(timeout=400)[0]
    assert started.returncode == 1
    assert (folder / "brief").exists() and (folder / "long").exists()
    assert {name: begun(folder, name) for name in ("brief", "long", "wrong")} == {
        "brief": 1,
        "long": 1,
        "wrong": 1,
    }
    assert "train.jsonl:7: no answer; mend it" in said


def test_a_snakemake_that_was_killed_takes_over_when_its_jobs_have_ended(brief):
    folder, flags = brief
    first = start(folder, *flags, "longer")
    until(lambda: begun(folder, "longer"), 400, first)
    first.kill()
    first.communicate()
    assert snakemake(folder, "--unlock")[0] == 0
    status, said = snakemake(folder, *flags, "longer")
    assert status == 0, said
    assert "waiting for 1 jobs of an earlier Snakemake" in said and "planning anew" in said
    assert begun(folder, "longer") == 1


def test_a_snakemake_that_is_interrupted_ends_its_jobs_at_once(brief):
    folder, flags = brief
    started = start(folder, *flags, "long")
    until(lambda: begun(folder, "long"), 400, started)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=300)[0]
    assert started.returncode != 0, said
    states = [job["JobState"] for job in jobs() if job["WorkDir"] == str(folder)]
    assert states in (["CANCELLED"], ["COMPLETING"]), said
    assert not (folder / "long").exists()
