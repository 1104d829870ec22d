"""A stage is one run however often it was killed; its journal has no step twice and loses none."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.paths import Layout
from workflow_scripts.tracking import Recorder, journal
from workflow_scripts.tracking.journal import Journal

OPEN = {
    "open": {"run": "slake_4.1v_base", "stage": "sft", "configuration": "c", "parameters": {}, "about": {}}
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracking" / "slake_4.1v_base" / "c" / "sft.jsonl"


def start(path, resumed=True):
    lines = Journal(path)
    assert lines.hold()
    record = Recorder(Layout(path.parents[3]), lines, OPEN)
    record.begin(resumed)
    return record, lines


def kinds(path):
    return [event["kind"] for event, _ in Journal(path).read()]


def steps(path):
    return [event["step"] for event, _ in Journal(path).read() if event["kind"] == "curve"]


def test_a_training_resumed_from_before_its_last_step_repeats_none(path):
    record, lines = start(path)
    for step in range(1, 23):
        record.curve(step, {"train/loss": 1 / step})
    lines.release()  # killed
    attempt = lines.attempt
    record, lines = start(path)
    record.train_from(20)
    for step in (21, 22, 23):
        record.curve(step, {"train/loss": 1.0})
    record.close("FINISHED")
    assert steps(path) == list(range(1, 24))
    assert lines.attempt == attempt and kinds(path).count("close") == 1


def test_a_training_that_starts_over_is_another_attempt_and_the_first_is_closed_as_killed(path):
    record, lines = start(path)
    record.curve(5, {"train/loss": 1.0})
    lines.release()
    first = lines.attempt
    record, lines = start(path)
    record.train_from(0)
    record.curve(1, {"train/loss": 2.0})
    record.close("FINISHED")
    events = [event for event, _ in Journal(path).read()]
    assert [event["status"] for event in events if event["kind"] == "close"] == ["KILLED", "FINISHED"]
    assert lines.attempt != first and steps(path) == [5, 1]
    assert Journal(path).last_step == 1


def test_a_stage_that_cannot_go_on_closes_the_one_before(path):
    _, lines = start(path, resumed=False)
    lines.release()
    start(path, resumed=False)[0].close("FINISHED")
    assert kinds(path) == ["open", "close", "open", "metrics", "close"]


def test_only_a_dead_one_is_closed_from_outside(path):
    layout = Layout(path.parents[3])
    _, lines = start(path)
    assert journal.settle(layout) == []
    lines.release()
    assert journal.settle(layout) == [path]
    assert kinds(path) == ["open", "close"] and journal.settle(layout) == []


def test_a_second_process_does_not_write_into_it(path):
    _, lines = start(path)
    assert not Journal(path).hold()
    lines.release()
    other = Journal(path)
    assert other.hold()
    other.release()


@given(st.binary(max_size=40), st.integers(0, 3))
def test_a_line_that_a_kill_cut_off_is_none_and_is_not_built_on(tmp_path_factory, torn, whole):
    path = tmp_path_factory.mktemp("journal") / "sft.jsonl"
    lines = [json.dumps({"kind": "metrics", "time": 0, "values": {"x": number}}) for number in range(whole)]
    path.write_bytes("".join(line + "\n" for line in lines).encode() + torn.replace(b"\n", b""))
    found = Journal(path)
    assert len(list(found.read())) == whole
    assert found.hold()
    found.append("close", status="KILLED")
    found.release()
    assert kinds(path) == ["metrics"] * whole + ["close"]


@pytest.mark.parametrize("root", ["results", "results/limited_32"])
def test_what_lies_in_the_results_is_named_from_there_and_found_where_they_were_moved(tmp_path, root):
    layout = Layout(tmp_path / root, shared=tmp_path / "results")
    for path in (layout.raw_manifest("slake"), layout.report()):
        name = journal.stored(layout, path)
        assert not Path(name).is_absolute()
        assert os.path.normpath(layout.root / name) == str(path)
    assert journal.stored(layout, tmp_path / "elsewhere") == str(tmp_path / "elsewhere")
