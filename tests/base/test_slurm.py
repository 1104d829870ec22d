"""What SLURM's commands tell, with stand-ins for them; tests/slurm has the real ones."""

import asyncio
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from workflow_scripts.base import attempts, slurm


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command("squeue", "echo 1")` puts a stand-in in the way."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")

    def install(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (folder / name).chmod(stat.S_IRWXU)

    return install


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("1-02:03:04|2-00:00:00", 93784),
        ("5:00|1:00:00", 300),
        ("2:10:00|2:00:00", 7200),  # this machine's clock is behind
        ("UNLIMITED|UNLIMITED", None),
        ("INVALID|1:00:00", None),
        ("", None),
    ],
)
def test_time_left(command, told, seconds):
    command("squeue", f'[ "$*" = "--noheader --jobs=7 --format=%L|%l" ] && echo "{told}"')
    assert slurm.seconds_left("7") == seconds


def test_a_container_is_told_when_its_job_ends(command, tmp_path, monkeypatch):
    monkeypatch.delenv(slurm.END_VARIABLE, raising=False)
    command("squeue", 'echo "5:00|1:00:00"')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.hand_on_end()
    monkeypatch.setenv("PATH", str(tmp_path))  # where no squeue is
    assert 298 <= slurm.seconds_left("7") <= 300
    assert slurm.seconds_left("8") is None  # not of a job that this one has submitted
    monkeypatch.setenv(slurm.END_VARIABLE, "")
    assert slurm.seconds_left("7") is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("slurmstepd-n1: error: StepId=7.0 exceeded memory limit (9 > 8), being killed", "OUT_OF_MEMORY"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", "OUT_OF_MEMORY"),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in step 7.0 cgroup.", "OUT_OF_MEMORY"),
        ("error: the disk exceeded memory limits of its own", "FAILED"),
    ],
)
def test_memory_that_ran_out_is_told_where_slurm_calls_it_failed(command, tmp_path, said, state):
    (tmp_path / "7.log").write_text(f"{said}\n", encoding="utf-8")
    command("scontrol", f"echo 'JobId=7 JobState=FAILED Restarts=2 StdOut={tmp_path}/7.log Power='")
    assert slurm.state_of("7") == state
    assert slurm.restarts("7") == 2


@pytest.mark.parametrize(
    ("recorded", "state"), [("TIMEOUT", "TIMEOUT"), ("RUNNING", "COMPLETING"), ("", "COMPLETING")]
)
def test_a_job_whose_processes_are_being_ended_has_its_end_in_the_accounting(command, recorded, state):
    """Snakemake hears of it there, and tries again at once with more of what lacked."""
    command("scontrol", "echo 'JobId=7 JobState=COMPLETING'")
    command("sacct", f"echo {recorded}")
    assert slurm.state_of("7") == state


def test_the_reason_of_a_job_is_in_its_note_or_is_slurms(command, tmp_path, monkeypatch):
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "now")
    command("scontrol", "echo 'JobState=TIMEOUT'")
    log = tmp_path / "a.log"
    assert attempts.reason_of([log], "7").startswith("TIMEOUT: give it more time")
    note = '{"invocation": "now", "command": "", "state": "failed", "reason": "bad rows", "before": []}'
    attempts.note_of(log).write_text(note, encoding="utf-8")
    assert attempts.reason_of([log], "7") == "bad rows"
    assert attempts.reason_of([tmp_path / "b.log"], "") == ""
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "later")  # whose job has left no note
    assert attempts.reason_of([log], "") == ""


def executor(monkeypatch, reported: list[str]):
    """One whose plugin has lost its jobs, as it does where nobody answers."""
    from workflow_scripts.base import slurm_executor

    async def loses(self, active_jobs):
        self._told.add(id(active_jobs[0]))  # of the first it has heard
        for job in ():
            yield job

    monkeypatch.setattr(slurm_executor.Executor, "check_active_jobs", loses)
    for name in ("report_job_success", "report_job_error"):
        told = name.rpartition("_")[2]
        monkeypatch.setattr(
            slurm_executor.Executor,
            name,
            lambda self, job, told=told, **given: reported.append(f"{told} {job.external_jobid}"),
        )
    made = object.__new__(slurm_executor.SteadyExecutor)
    made._told, made.run_uuid = set(), "uuid"
    return made


@pytest.mark.parametrize(
    ("squeue", "storage", "asks", "left", "told"),
    [
        ("echo away >&2; exit 1", "none", "squeue", ["2", "3", "4"], []),
        ("echo 1; echo 2", "none", "squeue", ["2"], ["success 3", "error 4"]),
        ("echo 1; echo 2", "none", "sacct", ["2"], ["success 3", "error 4"]),
        ("echo 1; echo 2", "slurmdbd", "squeue", ["2"], ["success 3", "error 4"]),
        ("echo 1; echo 2", "slurmdbd", "sacct", ["2", "3", "4"], []),
    ],
    ids=["away", "forgotten", "no accounting", "accounting that is not asked", "accounting"],
)
def test_no_job_is_lost_and_none_that_was_forgotten_is_waited_for(
    command, tmp_path, monkeypatch, squeue, storage, asks, left, told
):
    command("squeue", squeue)
    accounting = f"AccountingStorageType = accounting_storage/{storage}"
    command("scontrol", f'[ "$1 $2" = "show config" ] && echo "{accounting}"')
    (tmp_path / "4.json").write_text("{}", encoding="utf-8")  # the note of a job that did not end well
    reported: list[str] = []
    steady = executor(monkeypatch, reported)
    monkeypatch.setattr(steady, "get_status_command", lambda: asks)
    jobs = [
        SimpleNamespace(external_jobid=number, job=SimpleNamespace(log=[str(tmp_path / f"{number}.log")]))
        for number in ("1", "2", "3", "4")
    ]

    async def check() -> list[str]:
        return [job.external_jobid async for job in steady.check_active_jobs(jobs)]

    assert asyncio.run(check()) == left
    assert reported == told


def test_jobs_that_accounting_knows_to_have_ended_are_not_waited_for(command, tmp_path, monkeypatch):
    """The plugin knows no `CANCELLED by 0`, and takes what was preempted for waiting; 4 waits, and 5 is unknown yet."""
    command("sacct", "echo '2|CANCELLED by 0'; echo '3|PREEMPTED'; echo '4|REQUEUED'; echo '6|PREEMPTED'")
    command(
        "scontrol",
        'case "$*" in "show config") echo "AccountingStorageType = accounting_storage/slurmdbd";;'
        ' *" 6") echo "JobId=6 JobState=PENDING";; *) exit 1;; esac',
    )
    reported: list[str] = []
    steady = executor(monkeypatch, reported)
    monkeypatch.setattr(steady, "get_status_command", lambda: "sacct")
    jobs = [
        SimpleNamespace(external_jobid=number, job=SimpleNamespace(log=[str(tmp_path / "a.log")]))
        for number in ("1", "2", "3", "4", "5", "6")
    ]

    async def check() -> list[str]:
        return [job.external_jobid async for job in steady.check_active_jobs(jobs)]

    assert asyncio.run(check()) == ["4", "5", "6"]
    assert reported == ["error 2", "error 3"]


def test_a_job_that_slurm_starts_again_has_not_failed(command, tmp_path, monkeypatch):
    """The plugin says so of 1, which waits, 2, whose other nodes are being cleared, and 3, which is lost."""
    from workflow_scripts.base import slurm_executor

    command(
        "scontrol",
        'case "$*" in *" 1") echo "JobId=1 JobState=PENDING";; *" 2") echo "JobId=2 JobState=COMPLETING";;'
        ' *" 3") echo "JobId=3 JobState=NODE_FAIL";; esac',
    )
    command("sacct", "echo NODE_FAIL")
    command("squeue", "echo 1; echo 2; echo 3")
    reported: list[str] = []
    steady = executor(monkeypatch, reported)

    async def fails(self, active_jobs):
        for job in active_jobs:
            self.report_job_error(job, msg="SLURM status is: 'NODE_FAIL'")
        for job in ():
            yield job

    monkeypatch.setattr(slurm_executor.Executor, "check_active_jobs", fails)
    monkeypatch.setattr(steady, "get_status_command", lambda: "squeue")
    jobs = [
        SimpleNamespace(external_jobid=number, job=SimpleNamespace(log=[str(tmp_path / "a.log")]))
        for number in ("1", "2", "3")
    ]

    async def check() -> list[str]:
        return [job.external_jobid async for job in steady.check_active_jobs(jobs)]

    assert asyncio.run(check()) == ["1", "2"]
    assert reported == ["error 3"]


def test_the_thread_that_looks_after_jobs_may_begin_at_once(monkeypatch):
    """The plugin starts it before its own set-up is done; what fails in it there is told to nobody."""
    from workflow_scripts.base import slurm_executor

    seen = []

    def starts(self, workflow, logger):
        async def check() -> list:
            return [job async for job in self.check_active_jobs([])]

        self.workflow = workflow
        seen.append(asyncio.run(check()))

    monkeypatch.setattr(slurm_executor.Executor, "__init__", starts)
    settings = SimpleNamespace(init_seconds_before_status_checks=10)
    quiet = SimpleNamespace(debug=lambda text: None)
    monkeypatch.setattr(slurm_executor.Executor, "logger", quiet, raising=False)
    slurm_executor.SteadyExecutor(SimpleNamespace(executor_settings=settings), quiet)
    assert seen == [[]]


def test_what_is_submitted_waits_until_slurm_answers(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    command("scontrol", "echo >> asked; [ $(wc -l < asked) = 3 ] && echo up")
    assert slurm.wait_for_answer("scontrol", "show", "config") == "up\n"
    command("squeue", f"echo >> looks; [ $(wc -l < looks) = 1 ] && echo '5|{os.getcwd()}|rule_sft'; true")
    assert slurm.wait_for_earlier_jobs() and not slurm.wait_for_earlier_jobs()
    assert len(Path("looks").read_text().splitlines()) == 3
