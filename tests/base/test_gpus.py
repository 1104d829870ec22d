"""Jobs of one machine share its GPUs: each sees those it has taken, and waits where there are too few."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base import gpus
from workflow_scripts.base.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Takes GPUs, says what it and its children see, and keeps them until a line comes.
JOB = """
import logging, os, subprocess, sys
from workflow_scripts.base import gpus, locks
locks.POLL = 0.1
logging.basicConfig(level="INFO")
with gpus.taken(int(sys.argv[1])):
    assert "torch" not in sys.modules
    print(subprocess.check_output('echo "<$CUDA_VISIBLE_DEVICES>"', shell=True, text=True).strip(), flush=True)
    sys.stdin.readline()
"""


class Job(subprocess.Popen):
    def __init__(self, environment: dict[str, str], count: int) -> None:
        super().__init__(
            [sys.executable, "-c", JOB, str(count)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sees(self) -> set[str]:
        """The GPUs that it has, once it has them."""
        line = self.stdout.readline()
        assert re.fullmatch("<.*>\n", line), self.stderr.read()
        return set(line[1:-2].split(","))

    def end(self) -> None:
        self.stdin.close()
        assert self.wait(20) == 0, self.stderr.read()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose GPUs are those named: by CUDA_VISIBLE_DEVICES, or by nvidia-smi where `installed`."""
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name == gpus.VARIABLE:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = []

    class Machine:
        def __init__(self, visible: str | None, installed: str = "") -> None:
            lines = "".join(f"{name}\n" for name in installed.split(",") if name)
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{lines or 'No devices were found'}'\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            if visible is not None:
                monkeypatch.setenv(gpus.VARIABLE, visible)
            gpus.described.cache_clear()

        def start(self, count: int, **variables: str) -> Job:
            started.append(Job({**os.environ, **variables}, count))
            return started[-1]

    yield Machine
    gpus.described.cache_clear()
    for job in started:
        job.kill()
        job.wait()
        for pipe in (job.stdin, job.stdout, job.stderr):
            pipe.close()


@pytest.mark.parametrize(
    ("visible", "installed", "names"),
    [("0,1", "", ["0", "1"]), (None, "GPU-a,GPU-b", ["GPU-a", "GPU-b"])],
)
def test_jobs_have_gpus_of_their_own_and_the_third_waits(machine, visible, installed, names):
    here = machine(visible, installed)
    one, two = here.start(1), here.start(1)
    first, second = one.sees(), two.sees()
    assert first | second == set(names) and len(first) == len(second) == 1
    third = here.start(1)
    said = third.stderr.readline()
    assert "waiting for 1 of 2 GPU(s), taken by others (" in said
    assert all(f"process {job.pid}, since " in said for job in (one, two))
    two.end()
    assert third.sees() == second


def test_who_wants_several_gets_them_together(machine):
    here = machine("0,1,2")
    one = here.start(1)
    assert one.sees() == {"0"}
    both = here.start(2)
    assert both.sees() == {"1", "2"}
    everything = here.start(3)
    assert "waiting for 3 of 3" in everything.stderr.readline()
    one.end()
    last = here.start(1)  # who waits holds nothing
    assert last.sees() == {"0"}
    both.end()
    last.end()
    assert everything.sees() == {"0", "1", "2"}


def test_the_gpus_of_a_killed_job_are_free_at_once(machine):
    here = machine("0")
    killed = here.start(1)
    assert killed.sees() == {"0"}
    killed.kill()
    assert here.start(1).sees() == {"0"}


def test_a_job_without_gpus_sees_none_and_waits_for_none(machine):
    here = machine("0")
    assert here.start(1).sees() == {"0"}
    assert here.start(0).sees() == {""}


def test_a_gpu_is_the_same_by_number_and_by_uuid(machine):
    here = machine(None, "GPU-aaaa,GPU-bbbb")
    assert here.start(1, CUDA_VISIBLE_DEVICES="1").sees() == {"1"}
    assert here.start(1).sees() == {"GPU-aaaa"}
    assert "waiting" in here.start(1, CUDA_VISIBLE_DEVICES="GPU-b").stderr.readline()


def test_what_slurm_has_given_stays(machine):
    here = machine("0,1")
    for _ in range(2):
        assert here.start(1, SLURM_JOB_ID="7").sees() == {"0", "1"}


def test_the_processes_of_a_torchrun_have_what_it_has_taken(machine):
    here = machine("0,1")
    torchrun = {"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert here.start(2).sees() == {"0", "1"}
    assert here.start(2, **torchrun).sees() == {"0", "1"}


def test_more_than_there_are_is_an_error(machine):
    machine("3")
    with pytest.raises(UserError, match="gpus: 2 asked for, 1 visible"), gpus.taken(2):
        pass


@pytest.mark.parametrize(
    ("visible", "found"),
    [("", []), ("-1", []), ("0,-1,1", ["0"]), ("0, 2", ["0", "2"]), ("GPU-a,MIG-b", ["GPU-a", "MIG-b"])],
)
def test_visible_gpus_are_those_that_cuda_sees(machine, visible, found):
    machine(visible)
    assert gpus.visible() == found


def test_a_machine_without_gpus_stays_as_it_is(machine):
    machine(None)
    with gpus.taken(1):
        assert gpus.VARIABLE not in os.environ
    assert gpus.visible() == []


def test_the_variable_is_as_before_afterwards(machine):
    machine("5,6")
    with gpus.taken(1):
        assert os.environ[gpus.VARIABLE] == "5"
    assert os.environ[gpus.VARIABLE] == "5,6"
