"""A cluster that keeps accounts: Snakemake asks `sacct` for its jobs, and each attempt's cost is known."""

import subprocess
import sys
from collections.abc import Iterator
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
def folder(tmp_path_factory) -> Path:
    """A folder with validated data and the model."""
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION), encoding="utf-8")
    validated = f"results/data/{RUN}/validation.json"
    status, said = snakemake(folder, *WHERE, "--executor", "local", "--cores", "2", "--", validated)
    assert status == 0, said
    return folder


def starts(*numbers: str) -> list[list[str]]:
    """State, seconds and resources of each start of these jobs, as sacct tells them."""
    told = answer(
        "sacct", "-X", "--noheader", "--parsable2", "--duplicates", "--format=State,ElapsedRaw,AllocTRES",
        f"--jobs={','.join(numbers)}",
    )  # fmt: skip
    return [line.split("|") for line in told.splitlines()]


def test_what_attempts_took_that_were_put_back_and_cancelled_is_known(folder):
    done = folder / f"results/checkpoints/sft/{RUN}.steps"
    started = start(folder, *BY_SACCT, "--", f"results/sft/{RUN}/metrics.json", **SLOW)

    def computed() -> int:
        return len(done.read_text().splitlines()) if done.exists() else 0

    until(lambda: computed() > 3, 400, started)
    (first,) = of_rule(folder, "sft")
    before = computed()
    subprocess.run(["scontrol", "requeue", first["JobId"]], check=True)
    until(lambda: computed() > before, 400, started)
    subprocess.run(["scancel", first["JobId"]], check=True)
    until(lambda: any(job["JobId"] != first["JobId"] for job in of_rule(folder, "sft")), 400, started)
    (second,) = {job["JobId"] for job in of_rule(folder, "sft")} - {first["JobId"]}
    said = started.communicate(timeout=600)[0]
    assert started.returncode == 0, said

    known = starts(first["JobId"], second)
    assert [state.split()[0] for state, _, _ in known] == ["REQUEUED", "CANCELLED", "COMPLETED"]
    assert all(f"gres/gpu={GPUS}" in resources for _, _, resources in known)
    cost, _ = costs.of_run(Layout(folder / "results"), RUN)[-2:]
    hours = sum(int(seconds) for _, seconds, _ in known) / 3600
    assert cost["stage"] == "sft" and cost["attempts"] == "2"
    assert (cost["hours"], cost["gpu_hours"]) == (f"{hours:.2f}", f"{GPUS * hours:.2f}")
    assert float(cost["memory"]) > 0.3

    assert not {first["JobId"], second} & {
        job["JobId"] for job in jobs()
    }  # the controller has forgotten them
    assert (slurm.state_of(first["JobId"]), slurm.state_of(second)) == ("CANCELLED", "COMPLETED")


@pytest.mark.parametrize(("command", "verdict"), [("sacct", "ok"), ("squeue", "fail")])
def test_preflight_wants_sacct_where_the_controller_forgets(folder, profile, tmp_path, command, verdict):
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump({**profile, "slurm-status-command": command}))
    done = subprocess.run(
        [
            sys.executable, "-m", "workflow_scripts.preflight", "--profile", tmp_path,
            "--config", folder / "config.yaml", "--results", tmp_path / "results",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if line[5:].startswith("status ")]
    assert line.startswith(verdict) and "sacct" in line
    assert done.returncode == (command == "squeue")
