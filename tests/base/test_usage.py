"""What attempts took: noted by themselves, with what SLURM's accounting knows; what nobody knows is never nought."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import gpus, slurm, usage
from workflow_scripts.base.slurm import Told
from workflow_scripts.base.usage import Attempt

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
import sys, time
from workflow_scripts.base import cli
def main(arguments):
    block = bytearray(150_000_000)
    print("ready", flush=True)
    time.sleep(float(arguments[0]))
    return int(arguments[1])
sys.exit(cli.run(main))
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(usage.LOG_VARIABLE, str(tmp_path / "logs/sft/run.log"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path / "logs/sft/run.log"


def attempt_at(seconds: float, status: int, kill: bool = False) -> None:
    command = [sys.executable, "-c", COMMAND, str(seconds), str(status)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        if kill:
            process.send_signal(signal.SIGKILL)


def test_every_attempt_is_noted_and_a_killed_one_is_unknown(log):
    attempt_at(0.2, 0)
    attempt_at(0, 1)
    attempt_at(60, 0, kill=True)
    done, failed, killed = usage.attempts(usage.ledger_of(log))
    assert 0.2 <= done.seconds < 30 and failed.seconds < 30
    assert done.memory > 150e6
    assert (done.gpus, done.energy) == (0, None)
    assert killed == Attempt()


@pytest.mark.parametrize(("alone", "shared"), [("yes", False), ("", True)])
def test_it_is_noted_whether_a_slurm_job_was_for_this_alone(log, monkeypatch, alone, shared):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(usage.ALONE_VARIABLE, alone)
    attempt_at(0, 0)
    (noted,) = usage.attempts(usage.ledger_of(log))
    assert (noted.slurm_job, noted.shared) == ("7", shared)


def test_a_command_by_hand_leaves_no_account(log, monkeypatch):
    monkeypatch.delenv(usage.LOG_VARIABLE)
    attempt_at(0, 0)
    assert not usage.ledger_of(log).parent.exists()


def test_a_torn_line_is_passed_over(log):
    ledger = usage.ledger_of(log)
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"attempt": "a", "seconds": 5, "gpus": 2}\n[1]\n{"attempt": "b", "sec')
    assert usage.attempts(ledger) == [Attempt(seconds=5, gpus=2)]


SACCT = """\
7|3600|billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=90G,node=1||
7.batch|3600|cpu=8,mem=90G,node=1|1234567K|0
7.0|3600|cpu=8,mem=90G,node=1|45.5G|
8|60|billing=8,cpu=8,gres/gpu:a100=4,mem=90G,node=2||7200000
8|1800|billing=8,cpu=8,gres/gpu:a100=4,mem=90G,node=2||7200000
8|0|||
"""


def test_accounting_knows_what_a_killed_attempt_took(monkeypatch):
    monkeypatch.setattr(slurm, "ask", lambda *command: Told(SACCT if command[-1] == "--jobs=7,8,9" else ""))
    killed, done, unknown = Attempt("7"), Attempt("8", 50.0, 4, 1e9, 5000.0), Attempt("9", 1.0, 1)
    local, beside_others = Attempt(seconds=3.0), Attempt("6", 9.0, 1, shared=True)
    taken = [killed, done, unknown, local, beside_others]
    told = usage.accounts(reversed(taken))
    assert usage.accounted(taken, told) == [
        unknown,
        local,
        beside_others,
        Attempt("7", 3600.0, 2, 45.5 * 2**30, None),  # no energy is measured
        Attempt(
            "8", 1860.0, 4, 1e9, 14_400_000.0
        ),  # with what it took before it was put back, and waits again
    ]


def test_without_accounting_it_is_their_own_word(monkeypatch):
    monkeypatch.setattr(slurm, "ask", lambda *command: Told(failed="sacct: accounting storage is disabled"))
    own = [Attempt("7"), Attempt("8", 5.0, 1)]
    assert usage.accounted(own, usage.accounts(own)) == own
    assert usage.accounts([]) == {}


@given(st.text(max_size=12))
def test_any_size_is_a_number_above_nought_or_unknown(text):
    assert usage._size(text) is None or usage._size(text) != 0


class Driver(types.ModuleType):
    """NVML, whose counters stand at 1 kJ a GPU and go up by 100 J at each look."""

    looks = 0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, number):
        return number

    def nvmlDeviceGetHandleByUUID(self, name):
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, device):
        self.looks += 1
        return 1_000_000 + self.looks * 100_000  # mJ


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # whose GPUs are not to be waited for
    monkeypatch.setenv(gpus.VARIABLE, "0,GPU-abc")
    monkeypatch.setitem(sys.modules, "pynvml", Driver("pynvml"))
    monkeypatch.setattr(gpus, "_used", gpus.Used())


def test_energy_is_what_the_drivers_counters_went_up_by(driver):
    with gpus.taken(2):
        pass
    assert gpus.used().count == 2
    assert gpus.used().energy() == pytest.approx(400)  # two looks at each of two


def test_energy_is_unknown_where_the_driver_or_other_machines_do_not_tell(driver, monkeypatch):
    with gpus.taken(2, nodes=2):
        pass
    assert (gpus.used().count, gpus.used().energy()) == (4, None)
    monkeypatch.setattr(
        Driver, "nvmlDeviceGetTotalEnergyConsumption", property(lambda self: 1 / 0), raising=True
    )
    with gpus.taken(2):
        pass
    assert (gpus.used().count, gpus.used().energy()) == (2, None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with gpus.taken(2):
        pass
    assert gpus.used().energy() is None and os.environ[gpus.VARIABLE] == "0,GPU-abc"
