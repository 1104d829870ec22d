"""A training saves as late as it can before its job's time limit; tests/slurm has real limits."""

import time
from types import SimpleNamespace

import pytest
import torch

from workflow_scripts.base import slurm
from workflow_scripts.base.errors import OutOfTime
from workflow_scripts.training import deadline, saving
from workflow_scripts.training.deadline import Deadline
from workflow_scripts.training.interruption import StopInTime


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets forward, and a SLURM that tells `clock.left`."""
    clock = SimpleNamespace(now=1000.0, left=3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(slurm, "seconds_left", lambda job: clock.left)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    return clock


def test_the_last_save_and_the_longest_step_decide(tmp_path, clock):
    end = Deadline(tmp_path, guessed=100.0)
    clock.now += 30  # a step
    end.step_ends()
    with saving.measured(tmp_path, keeps=True):
        clock.now += 200
    end.goes_on()
    clock.now += 10
    end.step_ends()  # the save is not of the step
    needed = 30 + deadline.FACTOR * 200 + deadline.MARGIN
    clock.now, clock.left = 1000 + 3600 - needed - 1, needed + 1
    assert not end.has_come()
    clock.now, clock.left = clock.now + 2, clock.left - 2
    assert end.has_come()


def test_a_validation_fits_between_a_step_and_its_save_and_loading_is_no_step(tmp_path, clock):
    stop = StopInTime(end := Deadline(tmp_path, guessed=100.0))
    given = SimpleNamespace(world_size=1), SimpleNamespace(global_step=3, max_steps=9), SimpleNamespace()
    clock.now += 600  # a checkpoint is loaded
    stop.on_train_begin(*given)
    clock.now += 30
    stop.on_step_end(*given)
    clock.now += 500
    stop.on_evaluate(*given)
    stop.on_save(*given)
    needed = 30 + 500 + end.lead
    clock.now, clock.left = 1000 + 3600 - needed - 1, needed + 1
    assert not end.has_come()
    clock.now, clock.left = clock.now + 2, clock.left - 2
    assert end.has_come()


def test_a_limit_that_was_raised_is_asked_for_and_one_that_nobody_tells_is_kept(tmp_path, clock):
    end = Deadline(tmp_path, guessed=10.0)
    clock.now += 3590
    clock.left = 7200.0
    assert not end.has_come()
    clock.now += 7190
    clock.left = None
    assert end.has_come()


@pytest.mark.parametrize(("job", "left"), [("", 3600.0), ("12", None)])
def test_without_a_limit_it_never_comes(tmp_path, clock, monkeypatch, job, left):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    clock.left = left
    end = Deadline(tmp_path, guessed=10.0)
    clock.now += 1e9
    assert not end.has_come()


def test_a_guess_takes_no_more_than_a_share_of_the_time(tmp_path, clock):
    assert Deadline(tmp_path, guessed=100_000.0).lead == 900 + deadline.MARGIN
    model = torch.nn.Linear(10, 10, bias=False)
    assert saving.guessed_seconds(model) == 100 * 12 / saving.BYTES_PER_SECOND
    (tmp_path / saving.MEASURED).write_text("{")  # half a file
    assert saving.last_seconds(tmp_path) is None


def test_it_ends_after_the_save(tmp_path, clock):
    stop = StopInTime(Deadline(tmp_path, guessed=10.0))
    arguments, control = SimpleNamespace(world_size=1), SimpleNamespace(should_save=False)
    state = SimpleNamespace(global_step=3, max_steps=9)
    stop.on_step_end(arguments, state, control)
    stop.on_save(arguments, state, control)
    assert not control.should_save
    clock.now, clock.left = 1000 + 3600, 0.0
    stop.on_step_end(arguments, state, control)
    assert control.should_save
    with pytest.raises(OutOfTime, match="before the time limit of the job after step 3 of 9, which is saved"):
        stop.on_save(arguments, state, control)
    state.global_step = 9  # all is done
    stop.on_save(arguments, state, control)
