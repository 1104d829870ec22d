"""A cluster that keeps accounts: Snakemake asks `sacct` for its jobs, and each attempt's cost is known."""

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from accounting import accounts
from cluster import Cluster, answer, jobs
from submitted import ROOT, of_rule, snakemake, start, until

from workflow_scripts.base import slurm
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.stages import costs

pytestmark = pytest.mark.slurm

RUN = Run("slake", "4.1v", "base")
GPUS = 2
WAITS = 45  # seconds that a job stays in the queue after SLURM has put it back there
CONFIGURATION = {
    "datasets": {"slake": {"reader": "slake", "embedded": 12}},
    "models": {"4.1v": {"base": {"embedded": True}}},
    "tracking": [],
    "sft": {
        "gpus": GPUS, "threads": 1, "max_steps": 12, "batch_size": 4, "gradient_checkpointing": False,
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


def begin(folder: Path) -> subprocess.Popen:
    return start(folder, *BY_SACCT, "--", f"results/sft/{RUN}/metrics.json", **SLOW)


def compute(folder: Path, started: subprocess.Popen) -> dict[str, str]:
    """Wait for four more steps of the training; the job that does them."""
    file = folder / f"results/checkpoints/sft/{RUN}.steps"

    def done() -> int:
        return len(file.read_text().splitlines()) if file.exists() else 0

    before = done()
    until(lambda: done() >= before + 4, 400, started)
    return of_rule(folder, "sft")[-1]


def test_what_attempts_took_that_were_put_back_and_cancelled_is_known(folder):
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
    assert not {first, last} & {job["JobId"] for job in jobs()}  # the controller has forgotten them
    assert (slurm.state_of(first), slurm.state_of(last)) == ("CANCELLED", "COMPLETED")


def test_no_second_job_runs_beside_one_that_slurm_starts_again(folder, running_cluster):
    """A job that lost its node is NODE_FAIL in the accounts until it starts again."""
    waiting = f"socket={running_cluster.folder}/munge.socket,cred_expire={WAITS}"
    with running_cluster.configured(restart=True, AuthInfo=waiting):
        started = begin(folder)
        node = compute(folder, started)["NodeList"]
        running_cluster.lose(node)
        time.sleep(20)  # SLURM knows after ten
        running_cluster.start_node(node)
        said = started.communicate(timeout=600)[0]
    assert started.returncode == 0, said
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
