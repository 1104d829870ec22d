"""What Snakemake does with what SLURM answers, with stand-ins for its commands; tests/slurm has the real ones."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from slurm_answers import AWAY, FORGOTTEN
from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from workflow_scripts.base import attempts, slurm, slurm_executor, usage

SACCT, SQUEUE = "sacct", "squeue"


def a_job(*logs: Path, is_group: bool = False, **given) -> SimpleNamespace:
    """What the executor knows of one of Snakemake's jobs, which may be tried twice again."""
    known = {"name": "sft", "wildcards": ["slake"], "resources": {}, "_attempt": 1, "restart_times": 2}
    return SimpleNamespace(
        **{**known, **given}, log=[str(log) for log in logs], is_group=lambda group=is_group: group
    )


JOB = a_job()


def executor(monkeypatch, reported: list[str], asks: str = SQUEUE):
    """One that has been set up; what it tells Snakemake of its jobs comes into `reported`."""
    for name in ("report_job_success", "report_job_error", "report_job_submission"):
        told = name.rpartition("_")[2]

        def report(self, job, *message, told=told, **given):
            reported.append(" ".join(filter(None, [told, job.external_jobid])))

        monkeypatch.setattr(slurm_executor.Executor, name, report)
    monkeypatch.setattr(slurm_executor.Executor, "__init__", lambda self: None)
    monkeypatch.setattr(slurm_executor.Executor, "shutdown", lambda self: None)
    made = slurm_executor.SteadyExecutor()
    made.run_uuid, made._main_event_loop, made._next_seconds_between_status_checks = "uuid", None, 10
    made.status_rate_limiter = nullcontext()
    made._has_accounting = asks == SACCT
    settings = {"status_command": asks, "keep_successful_logs": True, "init_seconds_before_status_checks": 40}
    made.workflow = SimpleNamespace(executor_settings=SimpleNamespace(**settings))
    return made


def looked_after(steady, folder: Path, numbers: str) -> str:
    """The numbers of those of these jobs that go on, by one look, after they were submitted."""
    steady._submitted |= set(numbers)
    jobs = [
        SubmittedJobInfo(
            a_job(folder / f"{number}.log"),
            number,
            {"slurm_logfile": folder / f"{number}.out"},
        )
        for number in numbers
    ]

    async def look() -> list[str]:
        return [job.external_jobid async for job in steady.check_active_jobs(jobs)]

    return "".join(asyncio.run(look()))


def shows(*jobs: str) -> str:
    """A stand-in for squeue that shows these jobs, each as NUMBER|STATE|REASON."""
    lines = (job.replace("|", "|uuid|", 1) + "|/somewhere|rule_sft_wildcards_slake" for job in jobs)
    return "; ".join(["true", *(f"echo '{line}'" for line in lines)])


def began(folder: Path, number: str, ended: bool = True) -> None:
    """As a job notes it."""
    (folder / f"{number}.usage.jsonl").write_text(
        f'{{"attempt": "a", "slurm_job": "{number}"}}\n'
        + ('{"attempt": "a", "seconds": 1}\n' if ended else "")
    )


@pytest.mark.parametrize("asks", [SQUEUE, SACCT])
@pytest.mark.parametrize(
    "state",
    ["PENDING", "RUNNING", "REQUEUED", "COMPLETING", "STAGE_OUT", "SPECIAL_EXIT", "A_STATE_OF_A_LATER_SLURM"],
)
def test_what_the_controller_does_not_call_ended_goes_on(command, tmp_path, monkeypatch, asks, state):
    """The accounting calls it NODE_FAIL for minutes, before its second start."""
    command(SQUEUE, shows(f"1|{state}|None"))
    command(SACCT, "echo '1|NODE_FAIL'")
    reported: list[str] = []
    assert looked_after(executor(monkeypatch, reported, asks), tmp_path, "1") == "1"
    assert not reported


@pytest.mark.parametrize("state", sorted(slurm.ENDED))
def test_what_the_controller_calls_ended_is_told(command, tmp_path, monkeypatch, state):
    command(SQUEUE, shows("1|RUNNING|None", f"2|{state}|None"))
    command("scontrol", f"echo 'JobId=2 JobState={state}'")
    reported: list[str] = []
    assert looked_after(executor(monkeypatch, reported), tmp_path, "12") == "1"
    assert reported == ["success 2" if state == "COMPLETED" else "error 2"]


@pytest.mark.parametrize("asks", [SQUEUE, SACCT])
def test_where_the_controller_does_not_answer_everything_goes_on(command, tmp_path, monkeypatch, asks):
    command(SQUEUE, "echo away >&2; exit 1")
    command("scontrol", AWAY)
    command(SACCT, "echo '1|COMPLETED'; echo '2|NODE_FAIL'; echo '3|PREEMPTED'")
    reported: list[str] = []
    assert looked_after(executor(monkeypatch, reported, asks), tmp_path, "1234") == "1234"
    assert not reported


def test_what_is_forgotten_has_succeeded_where_it_noted_begin_and_end(command, tmp_path, monkeypatch):
    """2 has left its note. 3 never began: its outputs, and the notes of its start, are of an earlier run. 5 was killed
    before its note. What squeue does not show is not forgotten before the controller says so: 6 it still knows."""
    command(SQUEUE, shows("4|RUNNING|None"))
    command("scontrol", f"case \"$*\" in *' 6') echo 'JobId=6 JobState=RUNNING';; *) {FORGOTTEN};; esac")
    for number in "12":
        began(tmp_path, number)
    (tmp_path / "2.json").write_text("{}", encoding="utf-8")
    (tmp_path / "3.usage.jsonl").write_text('{"attempt": "a", "slurm_job": "0"}\n')
    began(tmp_path, "5", ended=False)
    reported: list[str] = []
    assert looked_after(executor(monkeypatch, reported), tmp_path, "123456") == "46"
    assert reported == ["success 1", "error 2", "error 3", "error 5"]


def test_a_job_without_a_log_has_no_word_of_its_own():
    job = SubmittedJobInfo(a_job(), "1")
    assert slurm_executor._own_word(job) == ""


def test_where_the_notes_cannot_be_read_the_job_is_looked_at_again(command, tmp_path, monkeypatch):
    command(SQUEUE, shows())
    command("scontrol", FORGOTTEN)

    def stale(ledger):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(usage, "attempts", stale)
    assert looked_after(executor(monkeypatch, []), tmp_path, "1") == "1"


@pytest.mark.parametrize(
    ("storage", "has"),
    [("accounting_storage/none", False), ("(null)", False), ("accounting_storage/slurmdbd", True)],
)
def test_sacct_is_asked_where_the_cluster_keeps_accounts(command, monkeypatch, storage, has):
    command("scontrol", f"echo 'AccountingStorageType = {storage}'")
    command(SACCT, "true")
    steady = executor(monkeypatch, [], SACCT)
    submit(monkeypatch, steady, "1")
    assert steady._has_accounting == has


def test_the_accounting_tells_how_that_ended_which_the_controller_forgets(command, tmp_path, monkeypatch):
    """5 and 6 it tells nothing of, or that they run: they are waited for, as it may be late, and not for ever."""
    command(SQUEUE, shows())
    command("scontrol", FORGOTTEN)
    command(
        SACCT,
        "echo '1|COMPLETED'; echo '2|CANCELLED by 0'; echo '3|PREEMPTED'; echo '4|NODE_FAIL'; echo '6|RUNNING'",
    )
    began(tmp_path, "5")
    reported: list[str] = []
    steady = executor(monkeypatch, reported, SACCT)
    assert looked_after(steady, tmp_path, "123456") == "56"
    assert reported == ["success 1", "error 2", "error 3", "error 4"]
    reported.clear()
    for _ in range(slurm_executor.LOOKS - 2):
        assert looked_after(steady, tmp_path, "56") == "56"
    assert looked_after(steady, tmp_path, "56") == ""
    assert reported == ["success 5", "error 6"]


def test_where_the_accounting_does_not_answer_what_is_forgotten_waits(command, tmp_path, monkeypatch):
    command(SQUEUE, shows())
    command("scontrol", FORGOTTEN)
    command(SACCT, "exit 1")
    steady = executor(monkeypatch, [], SACCT)
    for _ in range(2 * slurm_executor.LOOKS):
        assert looked_after(steady, tmp_path, "1") == "1"


def test_that_slurm_holds_a_job_is_said_once_each_time(command, tmp_path, monkeypatch, caplog):
    held = ("1|PENDING|launch failed requeued held", "2|REQUEUE_HOLD|None", "3|PENDING|PartitionTimeLimit")
    steady = executor(monkeypatch, [])
    for _ in range(2):
        command(SQUEUE, shows(*held, "4|PENDING|Priority", "5|RUNNING|None"))
        for _ in range(2):
            assert looked_after(steady, tmp_path, "12345") == "12345"
        command(SQUEUE, shows("1|RUNNING|None", *held[1:]))  # until it is held again
        assert looked_after(steady, tmp_path, "123") == "123"
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" (")[0] for line in said] == [f"SLURM holds job {number}" for number in "1231"]
    assert "launch failed requeued held" in said[0] and "scontrol release 1" in said[0]


def test_looks_become_rarer_until_a_job_ends(command, tmp_path, monkeypatch):
    command(SQUEUE, shows("1|RUNNING|None", "2|RUNNING|None"))
    steady = executor(monkeypatch, [])
    pauses = []
    for _ in range(20):
        looked_after(steady, tmp_path, "12")
        pauses.append(steady.next_seconds_between_status_checks)
    assert pauses[:3] == [20, 30, 40] and max(pauses) == slurm_executor.LONGEST_PAUSE < slurm.REMEMBER_SECONDS
    command(SQUEUE, shows("1|RUNNING|None", "2|COMPLETED|None"))
    looked_after(steady, tmp_path, "12")
    assert steady.next_seconds_between_status_checks == 40


def submit(monkeypatch, steady, *outcomes: str | Exception) -> None:
    """Submit jobs of the same name, of which the plugin comes to a number, to an error of sbatch's, or to an exception."""
    left = list(outcomes)

    def plugin(self, job) -> None:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.isdigit():
            self._report_job_submission_threadsafe(SubmittedJobInfo(job, outcome))
        else:
            said = f"SLURM sbatch failed. The error message was '{outcome}'.\n    sbatch call:\n timed out"
            self._report_job_error_threadsafe(SubmittedJobInfo(job), said)

    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(slurm_executor.Executor, "run_job", plugin)
    while left:
        steady.run_job(JOB)


TIMED_OUT = "Batch job submission failed: Socket timed out on send/recv operation"


@pytest.mark.parametrize(
    ("outcomes", "reported"),
    [
        ([TIMED_OUT, TIMED_OUT, "3"], ["submission 3"]),
        (["AssocGrpSubmitJobsLimit Batch job submission failed: Job violates policy", "3"], ["submission 3"]),
        (["Batch job submission failed: Invalid partition"], ["error"]),
        ([WorkflowError("sacctmgr: Connection refused")], ["error"]),
        ([WorkflowError("no such log folder")], ["error"]),
        ([AttributeError("'GroupJob' object has no attribute 'rule'")], ["error"]),
    ],
    ids=["passes", "too many", "refused", "accounts", "workflow", "group"],
)
def test_what_cannot_be_submitted_is_told_and_what_passes_is_tried_again(
    command, monkeypatch, outcomes, reported
):
    """Of the same name the cluster has a job that was told of, and one of another rule."""
    command("scontrol", "echo up")
    command(SQUEUE, shows("1|RUNNING|None"))
    found: list[str] = []
    submit(monkeypatch, executor(monkeypatch, found), "1", *outcomes)
    assert found == ["submission 1", *reported]


def test_a_job_that_was_taken_though_sbatch_gave_up_is_not_submitted_twice(command, monkeypatch):
    command("scontrol", "echo 'JobId=2 StdOut=/somewhere/2.log'")
    command(
        SQUEUE,
        shows("1|RUNNING|None", "2|PENDING|Priority")
        + "; echo '9|another|RUNNING|None|/somewhere|rule_sft_wildcards_slake'",
    )
    found: list[str] = []
    submit(monkeypatch, executor(monkeypatch, found), "1", TIMED_OUT)
    assert found == ["submission 1", "submission 2"]


def test_what_was_taken_after_it_was_submitted_again_is_cancelled(command, tmp_path, monkeypatch):
    command("scontrol", "echo up")
    command(SQUEUE, shows("1|RUNNING|None"))
    command("scancel", f"echo $* >> {tmp_path}/cancelled")
    reported: list[str] = []
    steady = executor(monkeypatch, reported)
    submit(monkeypatch, steady, "1", TIMED_OUT, "3")
    command(SQUEUE, shows("1|RUNNING|None", "2|PENDING|Priority", "3|PENDING|Priority", "4|COMPLETED|None"))
    with steady._submission:  # 2 may be the one that is being submitted
        assert looked_after(steady, tmp_path, "13") == "13"
    assert not (tmp_path / "cancelled").exists()
    assert looked_after(steady, tmp_path, "13") == "13"
    assert (tmp_path / "cancelled").read_text() == "2\n"
    reported.clear()
    command(SQUEUE, shows("1|RUNNING|None", "2|CANCELLED|None", "3|FAILED|None"))
    submit(monkeypatch, steady, TIMED_OUT, "4")  # 2 is no later attempt
    assert reported == ["submission 4"]


@pytest.mark.parametrize("answers", [AWAY, "echo up"], ids=["away", "up"])
def test_a_workflow_that_is_ended_submits_nothing_more_and_ends_all_jobs(
    command, tmp_path, monkeypatch, answers
):
    """Also those that are being looked at, of which the base class knows nothing."""
    command("scontrol", answers)
    command("scancel", f"echo $* >> {tmp_path}/cancelled")
    found: list[str] = []
    steady = executor(monkeypatch, found)
    begins, goes_on = threading.Event(), threading.Event()

    def plugin(self, job) -> None:
        begins.set()
        goes_on.wait()
        found.append("submitted")

    monkeypatch.setattr(slurm_executor.Executor, "run_job", plugin)
    pool = ThreadPoolExecutor(max_workers=2)
    monkeypatch.setattr(slurm_executor.Executor, "shutdown", lambda self: pool.shutdown(wait=True))
    waiting = [pool.submit(steady.run_job, JOB) for _ in range(5)]
    if answers != AWAY:
        begins.wait()
    steady._ending.set()  # as `cancel` does before it waits for the one that is being submitted
    goes_on.set()
    steady.cancel()
    assert all(each.done() for each in waiting)
    assert (tmp_path / "cancelled").read_text() == "--name=uuid\n"
    assert found == ([] if answers == AWAY else ["submitted"])


def test_the_pause_between_two_looks_ends_with_the_workflow(monkeypatch):
    steady = executor(monkeypatch, [])
    steady.wait, steady.next_seconds_between_status_checks = True, 5
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        steady.wait = len(slept) != 8

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(steady.sleep())
    assert slept == [1] * 5
    asyncio.run(steady.sleep())
    assert slept == [1] * 8


def test_a_job_of_one_stage_is_told_so(monkeypatch):
    steady = executor(monkeypatch, [])
    said = [steady.get_job_exec_prefix(a_job(is_group=group)) for group in (False, True)]
    assert said == [f"export {usage.ALONE_VARIABLE}=yes", ""]


@pytest.mark.parametrize(
    ("resources", "variables"),
    [({"clusters": "b"}, {}), ({"slurm_extra": "--exclusive -M b"}, {}), ({}, {"SBATCH_CLUSTERS": "b"})],
)
def test_what_runs_on_another_cluster_is_refused(command, monkeypatch, resources, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command("scontrol", "echo up")
    command(SQUEUE, shows())
    found: list[str] = []
    steady = executor(monkeypatch, found)
    monkeypatch.setattr(slurm_executor.Executor, "run_job", lambda self, job: found.append("submitted"))
    steady.run_job(a_job(resources=resources))
    assert found == ["error"]


@pytest.mark.parametrize(
    ("state", "before", "is_group", "left"),
    [
        ("FAILED", (), False, 0),
        ("FAILED", (), True, 2),  # its other stages may do better
        ("TIMEOUT", (), False, 2),
        ("TIMEOUT", ("OUT_OF_MEMORY",), False, 2),
        ("TIMEOUT", ("TIMEOUT",), False, 0),
        ("CANCELLED", ("CANCELLED",), False, 2),
    ],
)
def test_what_would_end_at_once_is_not_submitted_again(
    command, tmp_path, monkeypatch, state, before, is_group, left
):
    """By the note of the attempt, to which SLURM's word is added."""
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "now")
    monkeypatch.setenv("SLURM_JOB_ID", "3")  # Snakemake's own
    command(SQUEUE, shows(f"7|{state}|None"))
    command("scontrol", f"echo 'JobId=7 JobState={state}'")
    log = tmp_path / "sft.log"
    note = attempts.Note("now", "", slurm_job="7", before=before)
    attempts._write(attempts.note_of(log), note, "failed" if state == "FAILED" else "running")
    reported: list[str] = []
    steady, job = executor(monkeypatch, reported), a_job(log, is_group=is_group)

    async def look() -> list:
        submitted = SubmittedJobInfo(job, "7", {"slurm_logfile": tmp_path / "7.out"})
        return [active async for active in steady.check_active_jobs([submitted])]

    assert asyncio.run(look()) == [] and reported == ["error 7"]
    assert job.restart_times - (job._attempt - 1) == left


def test_the_thread_that_looks_after_jobs_may_begin_at_once(monkeypatch):
    """The plugin starts it before its own set-up is done; what fails in it there is told to nobody."""
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


def test_job_arrays_are_refused(monkeypatch):
    """Of one task the accounting tells nothing that could not be the whole array's."""
    steady = executor(monkeypatch, [])
    monkeypatch.setattr(
        slurm_executor.Executor, "__post_init__", lambda self, test_mode: setattr(self, "array_jobs", {"sft"})
    )
    with pytest.raises(WorkflowError, match="slurm-array-jobs: take it out"):
        steady.__post_init__()
