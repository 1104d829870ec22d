"""Copies on a node's own disk: shared, of the present content, gone after their readers, and never in the way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base import scratch

ROOT = Path(__file__).resolve().parents[2]
# Says where it reads from and how many bytes, and reads until a line comes.
JOB = """
import logging, sys
from pathlib import Path
from workflow_scripts.base import scratch
logging.basicConfig(level="INFO", format="%(message)s")
copy = scratch.near(Path(sys.argv[1]))
print(copy, (copy / "weights").stat().st_size, flush=True)
sys.stdin.readline()
assert (copy / "weights").is_file()
"""


class Job(subprocess.Popen):
    def __init__(self, model: Path, node: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), scratch.VARIABLE: "$NODE", "NODE": str(node)}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", JOB, str(model)]
        super().__init__(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def reads(self) -> tuple[Path, int]:
        place, size = self.stdout.readline().split()
        return Path(place), int(size)

    def end(self) -> str:
        _, said = self.communicate("\n", timeout=30)
        assert self.returncode == 0, said
        return said


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(bytes(1000))
    return tmp_path / "model"


@pytest.fixture
def node(tmp_path):
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def copies(node: Path) -> list[Path]:
    return [path for path in node.glob("medvqa-*/*") if path.is_dir()]


def test_jobs_of_a_node_share_a_copy_which_the_last_one_removes(model, node):
    jobs = [Job(model, node), Job(model, node)]
    places = {job.reads()[0] for job in jobs}
    assert len(places) == len(copies(node)) == 1 and places.pop().is_relative_to(node)
    said = [jobs[0].end()]
    assert len(copies(node)) == 1  # the other one reads it
    said.append(jobs[1].end())
    assert copies(node) == []
    assert sum("copied to" in each for each in said) == 1


def test_what_a_killed_job_has_left_the_next_one_removes(model, node):
    killed = Job(model, node)
    killed.reads()
    (copy,) = copies(node)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    part = copy.with_name(f"{'0' * 16}.part")  # of another model, in the middle of copying
    part.mkdir()
    part.with_suffix(".lock").touch()
    (model / "weights").write_bytes(bytes(2000))
    job = Job(model, node)
    place, size = job.reads()
    assert size == 2000 and place.parent != copy  # never the copy of what it was before
    assert copies(node) == [place.parent]
    job.end()
    assert copies(node) == []


@pytest.fixture
def here(node, monkeypatch):
    monkeypatch.setenv(scratch.VARIABLE, str(node))
    monkeypatch.setattr(scratch, "_held", {})
    scratch._copy_of.cache_clear()
    yield
    scratch._leave(node / f"medvqa-{os.getuid()}")
    scratch._copy_of.cache_clear()


def test_a_single_file_is_copied_too(model, node, here):
    copy = scratch.near(model / "weights")
    assert copy.is_relative_to(node) and copy.read_bytes() == bytes(1000)


def test_without_room_it_is_read_where_it_lies_with_one_line(model, node, here, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100_000, 95_000, 5_000))
    assert [scratch.near(model) for _ in range(3)] == [model] * 3
    assert len(caplog.records) == 1 and "0.0 GB are free" in caplog.text
    assert copies(node) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")])
def test_a_copy_that_fails_half_way_is_removed(model, node, here, monkeypatch, caplog, error):
    def fail(source, target):
        Path(target).mkdir()
        raise error

    monkeypatch.setattr(shutil, "copytree", fail)
    assert scratch.near(model) == model
    assert error.strerror in caplog.text and copies(node) == []


def test_a_node_without_the_variable_reads_where_it_lies(model, here, monkeypatch, caplog):
    monkeypatch.setenv(scratch.VARIABLE, "$NO_SUCH_VARIABLE/scratch")
    assert scratch.near(model) == model
    assert "not set on this node" in caplog.text


def test_without_the_switch_nothing_happens(model, monkeypatch, caplog):
    monkeypatch.delenv(scratch.VARIABLE, raising=False)
    assert scratch.near(model) == model and not caplog.records


def test_a_folder_that_another_user_has_made_is_left_alone(model, node, monkeypatch, caplog):
    monkeypatch.setenv(scratch.VARIABLE, str(node))
    (node / f"medvqa-{os.getuid() + 1}").mkdir()
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert scratch.near(model) == model
    assert "belongs to another user" in caplog.text
