"""A training whose disk is full at a checkpoint says so, takes nothing half-written and goes on once there is room."""

import os
import subprocess
from pathlib import Path

import pytest
from test_resume import TERM, Workplace

from workflow_scripts.training import checkpoints

ROOM = {"size": 2**28, "nr_inodes": 10_000}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    """The weights of a training that had room."""
    work = Workplace(tmp_path_factory.mktemp("undisturbed") / "work", "4.1v")
    work.finished("sft", 1)
    return work.weights("sft")


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, with room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ",".join(f"{name}={value}" for name, value in ROOM.items())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    # Lazily: a training that a failed test has left may still be at work there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def used(disk: Path) -> dict[str, int]:
    """Bytes and files, by the names of the options that limit them."""
    state = os.statvfs(disk)
    return {
        "size": (state.f_blocks - state.f_bfree) * state.f_frsize,
        "nr_inodes": state.f_files - state.f_ffree,
    }


def limit(disk: Path, what: str, amount: int) -> None:
    subprocess.run(["mount", "-o", f"remount,{what}={amount}", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ROOM)
def test_a_disk_that_is_full_at_a_checkpoint_stops_a_training_that_goes_on_with_room(disk, undisturbed, what):
    work = Workplace(disk / "work", "4.1v")
    before = used(disk)[what]
    work.interrupted("sft", 1, 2, TERM)
    folder = work.layout.checkpoints("sft", work.run)
    saved = checkpoints.kept(folder)[-1]
    checkpoint = used(disk)[what] - before  # or two of them
    limit(disk, what, used(disk)[what] + checkpoint // 4)

    process = work.start("sft", 1)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 1, said
    assert f"resuming from step {saved.step}" in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said.endswith(f"{errors[0]}\n"), said
    assert "is full" in errors[0] and "start again" in errors[0]
    assert "Traceback" not in said
    assert not list(work.layout.root.rglob("metrics.json"))
    assert work.kept("sft")[-1] > saved.step, "the one that did not fit"
    assert checkpoints.newest(folder) == saved.folder

    limit(disk, what, ROOM[what])
    assert f"resuming from step {saved.step}" in work.finished("sft", 1)
    assert work.weights("sft") == undisturbed
    assert not folder.exists()
