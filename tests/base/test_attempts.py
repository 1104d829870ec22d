"""A job that failed by its own error is not tried again; one that was killed is."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base import attempts, cli, slurm
from workflow_scripts.base.errors import OutOfTime, UserError
from workflow_scripts.evaluation.asking import said_of_end


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    log = tmp_path / "logs/sft/slake_4.1v_base.log"
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(log))
    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "one")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return log


def failing(error: BaseException, calls: list[int]):
    def main(arguments: list[str]) -> int:
        calls.append(1)
        raise error

    return main


def note(log) -> dict:
    return json.loads(attempts.note_of(log).read_text(encoding="utf-8"))


def test_success_leaves_no_note(log):
    assert cli.run(lambda arguments: 0, []) == 0
    assert not attempts.note_of(log).exists()


def test_without_a_job_nothing_is_noted(log, monkeypatch):
    monkeypatch.delenv(attempts.LOG_VARIABLE)
    assert cli.run(failing(UserError("bad rows"), []), []) == 1
    assert not log.parent.exists()


def test_own_error_is_not_tried_again_in_the_same_invocation(log, capsys, monkeypatch):
    calls: list[int] = []
    main = failing(UserError("train.jsonl:7: no answer; mend it"), calls)
    assert [cli.run(main, ["--x"]) for _ in range(3)] == [1, 1, 1]
    assert len(calls) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "error: train.jsonl:7: no answer; mend it"
    assert all(line.startswith(said[0]) and "not tried again" in line for line in said[1:])
    assert note(log)["state"] == "failed"

    monkeypatch.setenv(attempts.INVOCATION_VARIABLE, "another")
    assert cli.run(main, ["--x"]) == 1
    assert len(calls) == 2


def test_an_error_that_no_user_can_mend_is_noted_with_its_kind(log):
    with pytest.raises(ZeroDivisionError):
        cli.run(failing(ZeroDivisionError("by zero"), []), [])
    assert note(log)["reason"] == "ZeroDivisionError: by zero"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        KeyboardInterrupt(),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),  # torch's words
        UserError(f"a process that asked {said_of_end([-signal.SIGTERM, -signal.SIGKILL])}"),
    ],
)
def test_what_is_not_its_own_error_is_tried_again(log, error):
    calls: list[int] = []
    for _ in range(2):
        try:
            cli.run(failing(error, calls), [])
        except (MemoryError, RuntimeError):
            pass
    assert len(calls) == 2
    assert note(log)["state"] != "failed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_killed_process_is_tried_again(log, number):
    code = (
        "import os, sys\n"
        "from workflow_scripts.base import cli\n"
        f"sys.exit(cli.run(lambda arguments: os.kill(os.getpid(), {int(number)}) or 0, []))"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
        )
        assert done.returncode == (-9 if number == signal.SIGKILL else 128 + number)
        assert "not tried again" not in done.stderr
        assert note(log)["state"] == ("running" if number == signal.SIGKILL else "stopped")


def test_an_error_of_one_of_several_that_ask_is_told_before_the_end_of_the_others():
    assert said_of_end([-signal.SIGTERM, 1]) == "ended with status 1, and says why above"


def killed(log, job: str) -> None:
    """Leave the note of an attempt that was killed in the SLURM job `job`."""
    before = note(log)["before"] if attempts.note_of(log).exists() else []
    value = {"invocation": "one", "command": "", "slurm_job": job, "before": before}
    attempts.note_of(log).parent.mkdir(parents=True, exist_ok=True)
    attempts.note_of(log).write_text(json.dumps(value), encoding="utf-8")


def test_twice_out_of_time_is_once_too_often(log, monkeypatch, capsys):
    states = {"1": "TIMEOUT", "2": "OUT_OF_MEMORY", "3": "TIMEOUT"}
    monkeypatch.setattr(slurm, "state_of", states.get)
    calls: list[int] = []
    for job in states:
        killed(log, job)
        monkeypatch.setenv("SLURM_JOB_ID", str(int(job) + 1))
        with pytest.raises(MemoryError):
            if job == "3":
                assert cli.run(failing(MemoryError(), calls), []) == 1
                raise MemoryError
            cli.run(failing(MemoryError(), calls), [])
    assert len(calls) == 2
    assert "ended by TIMEOUT twice; give it more time" in capsys.readouterr().err


def test_a_job_that_the_cluster_put_back_into_the_queue_goes_on(log, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    for _ in range(3):
        killed(log, "1")
        with pytest.raises(MemoryError):
            cli.run(failing(MemoryError(), []), [])
    assert note(log)["before"] == []


def test_one_of_several_processes_notes_the_cause(log, monkeypatch):
    """The others are cut off, which is no error of theirs; and the command ends with torchrun's status."""
    lost = RuntimeError("Connection closed by peer")

    def main(arguments: list[str]) -> int:
        with monkeypatch.context() as process:
            for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
                process.setenv(name, value)
            process.setenv("TORCHELASTIC_RUN_ID", "x")
            for error in errors:
                with pytest.raises(RuntimeError):
                    attempts.recorded(failing(error, []), arguments)
        return 1

    errors = [lost]
    assert cli.run(main, []) == 1
    assert (note(log)["state"], note(log)["reason"]) == ("stopped", "ended with status 1")
    errors = [lost, RuntimeError("loss is nan"), RuntimeError("and this is its echo")]
    assert cli.run(main, []) == 1
    assert (note(log)["state"], note(log)["reason"]) == ("failed", "RuntimeError: loss is nan")


@pytest.mark.parametrize("damaged", ["", "{", "[]", "7", '{"before": 3}', '{"before": [], "unknown": 1}'])
def test_a_damaged_note_is_none(log, damaged):
    attempts.note_of(log).parent.mkdir(parents=True)
    attempts.note_of(log).write_text(damaged, encoding="utf-8")
    assert cli.run(lambda arguments: 0, []) == 0


def test_a_time_limit_that_was_met_by_itself_counts_as_one(log, monkeypatch, capsys):
    calls: list[int] = []
    for job in ("1", "2", "3"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        status = cli.run(failing(OutOfTime(OutOfTime.NUMBER, " after step 3 of 9"), calls), [])
        assert status == (1 if job == "3" else 128 + OutOfTime.NUMBER)
    assert len(calls) == 2
    assert "ended by TIMEOUT twice; give it more time" in capsys.readouterr().err


def test_a_site_that_repeats_what_failed_is_stopped(log, monkeypatch):
    asked = []
    monkeypatch.setattr(slurm, "restarts", lambda job: 1)
    monkeypatch.setattr(slurm, "ask", lambda *command: asked.append(command) or slurm.Told())
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    main = failing(UserError("bad rows"), [])
    assert cli.run(main, []) == 1 and not asked
    assert cli.run(main, []) == 1 and asked == [("scancel", "1")]
