"""Of several commands that write one output, one does, and the others know who it is."""

import errno
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workflow_scripts.base import locks
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.locks import lock_of, one_writer

ROOT = Path(__file__).resolve().parents[2]
# Holds the lock of an output until a line comes; further words are values of the module, such as BEAT=0.1.
HOLDER = """
import sys
from pathlib import Path
from workflow_scripts.base import cli, locks

def main(arguments):
    for word in arguments[1:]:
        name, value = word.split("=")
        setattr(locks, name, float(value) if name != "_machine" else lambda: value)
    with locks.one_writer(Path(arguments[0]), "end"):
        print("held", flush=True)
        sys.stdin.readline()
    return 0

sys.exit(cli.run(main))
"""


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "sft" / "slake_4.1v_base"


@pytest.fixture
def hold(output):
    """Start another process that holds the lock of `output`."""
    started = []

    def start(*words: str, **variables: str) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(output), *words],
            env={**environment, "PYTHONPATH": str(ROOT), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n", process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def end(holder: subprocess.Popen) -> int:
    """Let it go on to its end; returns its status."""
    holder.stdin.close()
    return holder.wait(120)


def taken(output: Path) -> bool:
    """Whether the output can be written, here and now."""
    try:
        with one_writer(output, "end"):
            return True
    except UserError:
        return False


def test_the_second_says_who_holds_it_and_ends(output, hold):
    holder = hold(SLURM_JOB_ID="77")
    said = (
        rf"{output}: another command writes it \({socket.gethostname()}, process {holder.pid}, SLURM job 77, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+\d\d:\d\d\); .* output_in_use: wait"
    )
    with pytest.raises(UserError, match=said), one_writer(output, "end"):
        pass
    assert end(holder) == 0
    assert taken(output) and not list(output.parent.iterdir())  # nothing is left


def test_the_second_waits_where_it_is_to_and_says_so_once(output, hold, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(locks, "POLL", 0.05)
    holder = hold()
    threading.Timer(0.5, holder.stdin.close).start()
    with one_writer(output, "wait"):
        assert json.loads(lock_of(output).read_text())["process"] == os.getpid()
    assert len(re.findall(rf"waiting for another .*process {holder.pid}", caplog.text)) == 1


def test_a_killed_holder_on_this_machine_is_replaced_at_once(output, hold, caplog):
    holder = hold()
    assert not taken(output)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for its status
    assert taken(output)
    assert f"process {holder.pid}, since " in caplog.text and "which is gone" in caplog.text


def test_a_signal_leaves_no_lock(output, hold):
    holder = hold()
    holder.terminate()
    assert holder.wait(120) == 143
    assert not lock_of(output).exists()


def rewritten(output: Path, age: float = 0.0, **changes) -> None:
    """Let the lock say something else, and be `age` seconds old."""
    path = lock_of(output)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    now = time.time()
    os.utime(path, (now - age, now - age))


def test_a_later_process_of_the_same_number_is_not_the_holder(output, hold):
    hold()
    rewritten(output, started=1)
    assert taken(output)


def test_a_process_of_another_user_that_cannot_be_looked_at_lives(output, hold, monkeypatch):
    hold()
    monkeypatch.setattr(locks, "_started", lambda process: None)
    assert not taken(output)
    rewritten(output, age=locks.SILENCE + 60)
    assert taken(output)


def test_where_machines_cannot_be_told_apart_signs_of_life_decide(output, hold, monkeypatch):
    hold("_machine=").kill()
    monkeypatch.setattr(locks, "_machine", lambda: "")
    assert not taken(output)
    rewritten(output, age=locks.SILENCE + 60)
    assert taken(output)


@pytest.mark.parametrize("changes", [{"host": "node7", "machine": "another"}, {"machine": "before the boot"}])
def test_a_holder_elsewhere_is_dead_when_it_has_been_silent(output, hold, monkeypatch, changes):
    hold()
    rewritten(output, age=locks.SILENCE - 60, process=2**22 + 1, **changes)
    monkeypatch.setattr(time, "time", lambda: 1.0)  # this machine's clock says nothing of the disk's
    with pytest.raises(UserError, match=changes.get("host", socket.gethostname())), one_writer(output, "end"):
        pass
    monkeypatch.undo()
    rewritten(output, age=locks.SILENCE + 60)
    assert taken(output)


def test_a_holder_elsewhere_shows_that_it_lives(output, hold, monkeypatch):
    hold("BEAT=0.05", "_machine=another")
    monkeypatch.setattr(locks, "SILENCE", 60.0)
    for _ in range(3):
        os.utime(lock_of(output), (0, 0))
        until = time.monotonic() + 60
        while not lock_of(output).stat().st_mtime:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert not taken(output)


def test_a_holder_that_wakes_up_after_others_took_it_for_dead_ends(output, hold, monkeypatch):
    holder = hold("BEAT=0.05", "_machine=another")
    monkeypatch.setattr(locks, "SILENCE", 0.5)
    holder.send_signal(signal.SIGSTOP)
    time.sleep(0.7)
    with one_writer(output, "end"):
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(120) == 143
        assert lock_of(output).exists()  # it has removed nothing of ours
    assert f"lost to {socket.gethostname()}, process {os.getpid()}" in holder.stderr.read()


def test_a_lock_without_a_word_is_dead_when_it_is_old(output, monkeypatch):
    """Of one that was killed as it wrote it."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # for the rest of the word
    lock_of(output).parent.mkdir(parents=True)
    lock_of(output).touch()
    with pytest.raises(UserError, match="an unknown host"), one_writer(output, "end"):
        pass
    os.utime(lock_of(output), (0, 0))
    assert taken(output)


def test_a_full_disk_leaves_no_lock(output, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space"), one_writer(output, "end"):
        pass
    assert not list(output.parent.iterdir())


def test_a_lock_removed_by_hand_comes_back(output, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with one_writer(output, "end"):
        lock_of(output).unlink()
        until = time.monotonic() + 60
        while not lock_of(output).exists():
            assert time.monotonic() < until
            time.sleep(0.02)


# Takes the lock as often as it is told and notes when it began and ended to hold it.
RACER = """
import sys, time
from pathlib import Path
from workflow_scripts.base import locks
locks.POLL = 0.0
for _ in range(40):
    with locks.one_writer(Path(sys.argv[1]), "wait"):
        begin = time.monotonic_ns()
        print(begin, time.monotonic_ns(), flush=True)
        if sys.argv[2] == "dies":  # without a word
            import os
            os._exit(0)
"""


def test_of_several_at_once_one_holds_it_also_where_holders_die(output):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(output), kind],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind in ("lives", "dies", "lives", "dies", "lives")
    ]
    held = []
    for racer in racers:
        said, errors = racer.communicate(timeout=120)
        assert racer.returncode == 0, errors
        held += [tuple(map(int, line.split())) for line in said.splitlines()]
    held.sort()
    assert len(held) == 3 * 40 + 2
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(held))


def test_of_two_who_found_it_dead_the_slower_removes_no_new_lock(output):
    """It looked before the other one had taken it."""
    path = lock_of(output)
    dead = locks.take(path)
    seen = locks._read(path)
    dead.release()
    with one_writer(output, "end"):
        locks._remove(path, seen)
        assert locks._read(path).process == os.getpid() and not taken(output)
    assert not list(path.parent.iterdir())


def test_the_first_of_several_processes_holds_it_and_the_others_wait_for_it(output, hold, monkeypatch):
    torchrun = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in {**torchrun, "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(locks, "POLL", 0.05)
    with one_writer(output, "end"):
        assert not lock_of(output).exists()
    entered = threading.Event()

    def second() -> None:
        with one_writer(output, "wait"):
            entered.set()

    stranger = hold()
    threading.Thread(target=second, daemon=True).start()
    assert not entered.wait(0.3)
    end(stranger)
    hold(RANK="0", **torchrun)
    assert entered.wait(60)


@pytest.mark.parametrize(
    ("job", "state", "waits"),
    [("7", "RUNNING", True), ("5", "TIMEOUT", True), ("5", "NODE_FAIL", True), ("5", "RUNNING", False)],
    ids=["this one, elsewhere", "ended", "lost", "another one"],
)
def test_what_a_job_left_on_another_node_is_waited_for(output, hold, monkeypatch, job, state, waits):
    """It falls silent, and the next attempt must not take it for somebody else's command."""
    holder = hold("_machine=elsewhere", "BEAT=0.1", SLURM_JOB_ID=job)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(locks.slurm, "state_of", lambda number: state)
    monkeypatch.setattr(locks, "SILENCE", 0.5 if waits else 300.0)
    monkeypatch.setattr(locks, "POLL", 0.05)
    holder.kill()
    assert taken(output) is waits
