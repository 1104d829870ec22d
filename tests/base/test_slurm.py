"""What SLURM's commands tell, with stand-ins for them; tests/slurm has the real ones."""

import os
from pathlib import Path

import pytest
from slurm_answers import AWAY, FORGOTTEN

from workflow_scripts.base import attempts, slurm
from workflow_scripts.base.errors import UserError


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
    assert 240 <= slurm.seconds_left("7") <= 300
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
    command("sacct", f"echo '7|{recorded}'")
    assert slurm.state_of("7") == state


@pytest.mark.parametrize(
    ("said", "recorded", "state"),
    [
        (FORGOTTEN, "7|CANCELLED by 0", "CANCELLED"),
        (FORGOTTEN, "7|RUNNING", ""),
        (FORGOTTEN, "", ""),
        (AWAY, "7|NODE_FAIL", None),
    ],
)
def test_what_a_controller_does_not_say_is_not_taken_for_an_end(command, said, recorded, state):
    command("scontrol", said)
    command("sacct", f"echo '{recorded}'")
    assert slurm.state_of("7") == state
    assert slurm.restarts("7") == 0


def test_slurms_word_is_kept_in_the_note_of_its_job_for_the_next_attempt(command, tmp_path, monkeypatch):
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "now")
    log = tmp_path / "a.log"
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(log))
    for job, before in (("7", ()), ("8", ("NODE_FAIL",))):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        note = attempts._begun(attempts.note_of(log), ["--run", "x"])
        assert note.before == before
        command("scontrol", "echo 'JobState=NODE_FAIL'")
        assert attempts.reason_of([log], job).startswith("NODE_FAIL: leave out the node")
        command("scontrol", FORGOTTEN)
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    with pytest.raises(UserError, match="ended by NODE_FAIL twice"):
        attempts._begun(attempts.note_of(log), ["--run", "x"])


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


@pytest.mark.parametrize("warnings", [0, 9])
def test_the_cause_is_found_behind_warnings(command, warnings):
    command(
        "scontrol", f"for i in {{1..{warnings}}}; do echo 'Ignoring obsolete option' >&2; done; {FORGOTTEN}"
    )
    assert slurm.is_forgotten("7")


def test_the_users_shell_hides_no_job(command, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "cpu")
    monkeypatch.setenv("SLURM_CLUSTERS", "b")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    command("squeue", "echo $SQUEUE_PARTITION $SLURM_CLUSTERS $SLURM_CONF; printf '\\xe9'")
    assert slurm.ask("squeue").text == "/etc/slurm.conf\n\ufffd"  # a folder's name in Latin-1 is no error


def test_what_is_submitted_waits_until_slurm_answers(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    command("scontrol", "echo >> asked; [ $(wc -l < asked) = 3 ] && echo up")
    assert slurm.wait_for_answer("scontrol", "show", "config") == "up\n"
    command(
        "squeue",
        f"echo >> looks; [ $(wc -l < looks) = 1 ] && echo '5|x|PENDING|JobHeldUser|{os.getcwd()}|rule_sft'; true",
    )
    assert slurm.wait_for_earlier_jobs() and not slurm.wait_for_earlier_jobs()
    assert len(Path("looks").read_text().splitlines()) == 3
