"""Snakemake as a job, with stand-ins for SLURM's commands; tests/slurm has the real ones."""

import os
import sys

import pytest

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.errors import UserError
from workflow_scripts.stages import submit


@pytest.fixture
def command(command, tmp_path, monkeypatch):
    """The same, in a folder of the test's own, where no job is queued."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    command("squeue", "exit 0")
    return command


def test_what_sbatch_is_given(command, tmp_path):
    command("sbatch", 'printf "%s\\n" "$@" > asked; echo "17;here"')
    assert submit.submit(["--profile", "profiles/my slurm"], 60, {"partition": "cpu"}) == "17"
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert {"--requeue", "--time=60", "--partition=cpu", "--signal=B:USR1@120"} <= set(asked)
    assert asked[-1] == (
        f"--wrap=exec {sys.executable} -m workflow_scripts.submit --inside -- --profile 'profiles/my slurm'"
    )


def test_a_refusal_is_one_line(command):
    command("sbatch", "echo 'Invalid account' >&2; exit 1")
    with pytest.raises(UserError, match="Invalid account"):
        submit.submit([], 60, {})


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_inside_it_waits_for_the_jobs_of_this_folder_alone(command, tmp_path, monkeypatch, restarts):
    here = os.getcwd()
    command(
        "squeue",
        "echo >> looks\n"
        "[ $(wc -l < looks) = 1 ] && { echo the controller is away >&2; exit 1; }\n"
        f"[ $(wc -l < looks) -lt 3 ] && echo '5|x|RUNNING|None|{here}|rule_sft_wildcards_x'\n"
        "echo '6|x|RUNNING|None|/elsewhere|rule_sft_wildcards_x'\n"
        f"echo '7|x|RUNNING|None|{here}|another program'\necho '8|x|RUNNING|None|{here}|(null)'",
    )
    command(
        "python", f'echo "$@" >> called; env | grep -E "^(SLURM|{attempts.MAIN_VARIABLE})" > told; exit 3'
    )
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert submit.inside(["--jobs", "1"]) == 3
    assert len((tmp_path / "looks").read_text().splitlines()) == 3  # away, a job, none
    called = (tmp_path / "called").read_text().splitlines()
    assert called == ["-m snakemake --jobs 1 --unlock", "-m snakemake --jobs 1"][restarts == "0" :]
    assert (tmp_path / "told").read_text() == f"{attempts.MAIN_VARIABLE}=job 17\n"


def test_a_snakemake_that_goes_on_keeps_its_invocation(monkeypatch):
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "")
    monkeypatch.delenv(attempts.MAIN_VARIABLE, raising=False)
    seen = set()
    for _ in range(2):
        attempts.new_invocation()
        seen.add(os.environ[attempts.INVOCATION_VARIABLE])
    assert len(seen) == 2
    monkeypatch.setenv(attempts.MAIN_VARIABLE, "job 17")
    attempts.new_invocation()
    assert os.environ[attempts.INVOCATION_VARIABLE] == "job 17"
