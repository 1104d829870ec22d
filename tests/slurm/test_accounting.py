"""A cluster that keeps accounts: Snakemake asks `sacct` for its jobs, and each attempt's cost is known."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from accounting import accounts
from cluster import Cluster, answer, jobs, wait
from submitted import ROOT, of_rule, snakemake, start, steps, until

from workflow_scripts.base import slurm
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.stages import costs

pytestmark = pytest.mark.slurm

RUN = Run("slake", "4.1v", "base")
GPUS = 2
WAITS = 600  # seconds that a job stays in the queue after SLURM has put it back there
CONFIGURATION = {
    "datasets": {"slake": {"reader": "slake", "embedded": 12}},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
    "sft": {
        "gpus": GPUS, "threads": 1, "max_steps": 24, "batch_size": 4, "gradient_checkpointing": False,
        "save_steps": 3, "log_steps": 1,
    },
}  # fmt: skip
SLOW = {"PYTHONPATH": f"{ROOT}/tests/slurm/slow:{ROOT}", "SLOW_STEP": "1.5"}
WHERE = ("--snakefile", ROOT / "Snakefile")
BY_SACCT = (*WHERE, "--profile", ROOT / "profiles/slurm", "--slurm-status-command", "sacct")


@pytest.fixture(scope="module", autouse=True)
def accounted(running_cluster: Cluster) -> Iterator[None]:
    """The controller itself forgets a job five seconds after its end."""
    with accounts(running_cluster), running_cluster.configured(MinJobAge="5"):
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with validated data and the model."""
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
    validated = f"results/data/{RUN}/validation.json"
    status, said = snakemake(folder, *WHERE, "--executor", "local", "--cores", "2", "--", validated)
    assert status == 0, said
    return folder


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "run"))


@dataclass(frozen=True)
class Start:
    """One start of a job, as sacct tells it; times in ISO 8601."""

    job: str
    state: str
    seconds: str
    resources: str
    begin: str
    end: str


def starts(folder: Path) -> list[Start]:
    """Of all jobs that were submitted in `folder`, in their order."""
    told = answer(
        "sacct", "-X", "--noheader", "--parsable2", "--duplicates",
        "--format=WorkDir,JobID,State,ElapsedRaw,AllocTRES,Start,End",
    )  # fmt: skip
    lines = [line.split("|") for line in told.splitlines()]
    return sorted((Start(*rest) for where, *rest in lines if where == str(folder)), key=lambda one: one.begin)


def begin(folder: Path, output: Path | None = None, **variables: str) -> subprocess.Popen:
    target = f"results/sft/{RUN}/metrics.json"
    return start(folder, *BY_SACCT, "--", target, output=output, **SLOW, **variables)


def compute(folder: Path, started: subprocess.Popen) -> dict[str, str]:
    """Wait for four more steps of the training; the job that does them."""
    file = folder / f"results/checkpoints/sft/{RUN}.steps"
    before = len(steps(file))
    until(lambda: len(steps(file)) >= before + 4, 600, started)
    return of_rule(folder, "sft")[-1]


def test_what_attempts_took_that_were_put_back_and_cancelled_is_known(folder, running_cluster):
    started = begin(folder)
    subprocess.run(["scontrol", "requeue", compute(folder, started)["JobId"]], check=True)
    subprocess.run(["scancel", compute(folder, started)["JobId"]], check=True)
    said = started.communicate(timeout=600)[0]
    assert started.returncode == 0, said

    known = starts(folder)
    assert [each.state.split()[0] for each in known] == ["REQUEUED", "CANCELLED", "COMPLETED"]
    assert all(f"gres/gpu={GPUS}" in each.resources for each in known)
    cost, _ = costs.of_run(Layout(folder / "results"), RUN)[-2:]
    hours = sum(int(each.seconds) for each in known) / 3600
    assert cost["stage"] == "sft" and cost["attempts"] == "2"
    assert (cost["hours"], cost["gpu_hours"]) == (f"{hours:.2f}", f"{GPUS * hours:.2f}")
    assert float(cost["memory"]) > 0.3

    first, _, last = (each.job for each in known)

    def remembered() -> set[str]:
        return {first, last} & {job["JobId"] for job in jobs()}

    # The controller looks every ten seconds for what it may forget.
    wait(running_cluster.folder, "the controller's forgetting", lambda: not remembered())
    assert not remembered()
    assert (slurm.state_of(first), slurm.state_of(last)) == ("CANCELLED", "COMPLETED")


@dataclass(frozen=True)
class InTheWay:
    """Commands between Snakemake and SLURM's own: `squeue` counts how often Snakemake looks how its jobs are, and
    `sbatch` gives up on the first job, which the controller has taken."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        looks, taken, gave_up = (self.folder / name for name in ("looks", "taken", "gave_up"))
        self._install("squeue", f'case "$*" in *--states=all*) echo >> {looks};; esac; exec {{squeue}} "$@"')
        self._install(
            "sbatch",
            f'{{sbatch}} "$@" > {taken} || exit; [ -e {gave_up} ] && exec cat {taken}; touch {gave_up}\n'
            "echo 'Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
        )

    def _install(self, name: str, script: str) -> None:
        text = script.format(**{name: shutil.which(name)})
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def path(self) -> str:
        return f"{self.folder}:{os.environ['PATH']}"

    def wait_for_a_look(self, started: subprocess.Popen) -> None:
        """Until one has begun since; they come ever more rarely."""
        before = self._looks()
        until(lambda: self._looks() > before, 300, started)

    def _looks(self) -> int:
        file = self.folder / "looks"
        return len(file.read_text().splitlines()) if file.exists() else 0


def test_no_second_job_runs_beside_one_that_slurm_starts_again(folder, tmp_path, running_cluster):
    """A job that lost its node is NODE_FAIL in the accounts until it starts again; so it is where the controller, which
    knows better, does not answer. Nor is one submitted where sbatch only gave up."""
    waiting = f"socket={running_cluster.folder}/munge.socket,cred_expire={WAITS}"
    between, output = InTheWay(tmp_path / "bin"), tmp_path / "said"
    with running_cluster.configured(restart=True, AuthInfo=waiting):
        started = begin(folder, output, PATH=between.path())
        job = compute(folder, started)
        running_cluster.lose(job["NodeList"])
        until(lambda: starts(folder)[-1].state == "NODE_FAIL", 60, started)
        between.wait_for_a_look(started)
        running_cluster.stop_controller()
        until(lambda: "goes on when SLURM answers again" in output.read_text(), 300, started)
        running_cluster.start_controller()
        running_cluster.start_node(job["NodeList"])
        running_cluster.wait_for_nodes()
        assert [each.state for each in starts(folder)] == ["NODE_FAIL"]
        subprocess.run(["scontrol", "update", f"JobId={job['JobId']}", "StartTime=now"], check=True)
        started.wait(timeout=600)
    assert started.returncode == 0, output.read_text()
    assert f"SLURM has taken job {job['JobId']}, though sbatch says otherwise" in output.read_text()
    known = starts(folder)
    assert known[0].state == "NODE_FAIL" and known[-1].state == "COMPLETED" and len(known) > 1
    assert all(one.end <= other.begin for one, other in itertools.pairwise(known)), known


@pytest.mark.parametrize(("command", "verdict"), [("sacct", "ok"), ("squeue", "fail")])
def test_preflight_wants_sacct_where_the_controller_forgets(prepared, profile, tmp_path, command, verdict):
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump({**profile, "slurm-status-command": command}))
    done = subprocess.run(
        [
            sys.executable, "-m", "workflow_scripts.preflight", "--profile", tmp_path,
            "--config", prepared / "config.yaml", "--results", tmp_path / "results",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if line[5:].startswith("status ")]
    assert line.startswith(verdict) and "sacct" in line
    assert done.returncode == (command == "squeue")
