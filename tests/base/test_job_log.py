"""The structured log of a job: every line is whole, and says where, when and of which attempt it is."""

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base import attempts, cli, files, job_log
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, job_of

logger = logging.getLogger("workflow_scripts.stages.sft")


@pytest.fixture
def readable(tmp_path, monkeypatch, caplog) -> Path:
    """The readable log of a job that this process runs."""
    path = Layout(tmp_path / "results").log("sft", "slake_4.1v_base")
    monkeypatch.setenv(attempts.LOG_VARIABLE, str(path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    caplog.set_level(logging.INFO)
    return path


def lines(readable: Path) -> list[dict]:
    return list(files.read_jsonl(readable.with_suffix(".jsonl")))


def saying(*messages: str, status: int = 0):
    def main(arguments: list[str]) -> int:
        for message in messages:
            logger.info(message)
        return status

    return main


def test_a_line_says_who_where_when_and_with_how_much_memory(readable, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")

    def main(arguments):
        job_log.at_step(7)
        logger.warning("loss %.1f", 0.5)
        return 0

    assert cli.run(main, ["--dataset", "slake"]) == 0
    first, said, last = lines(readable)
    assert first["message"] == "begins: --dataset slake" and first["step"] is None
    assert last["message"] == "ends with status 0" and last["level"] == "info"
    found = (said["level"], said["stage"], said["run"], said["part"], said["step"], said["message"])
    assert found == ("warning", "sft", "slake_4.1v_base", None, 7, "loss 0.5")
    assert said["slurm_job"] == "4711" and said["host"] and said["process"] == os.getpid()
    assert 0 < said["memory_gib"] <= said["peak_memory_gib"] + 0.001
    assert said["time"].endswith("+00:00") and said["attempt"] == 1 and said["rank"] == 0
    assert said["logger"] == logger.name and said["error"] is None


def test_outside_a_job_nothing_is_written(readable, monkeypatch):
    monkeypatch.delenv(attempts.LOG_VARIABLE)
    assert cli.run(saying("hello"), []) == 0
    assert not readable.parent.exists()


def test_a_retry_appends_and_says_so(readable):
    assert [cli.run(saying("try", status=status), []) for status in (3, 0)] == [3, 0]
    found = lines(readable)
    assert [line["attempt"] for line in found] == [1, 1, 1, 2, 2, 2]
    assert found[2]["level"] == "error" and found[2]["message"] == "ends with status 3"
    assert job_log.ATTEMPT_VARIABLE not in os.environ


def test_what_an_attempt_has_said_can_be_read_also_where_a_line_is_torn(readable):
    def fails():
        logger.warning("half\nway\u2028on")
        raise KeyError("frame")

    with pytest.raises(KeyError):
        job_log.recorded(fails, [])
    with open(readable.with_suffix(".jsonl"), "a") as file:
        file.write('{"attempt": 1, "mess')
    cli.run(saying("again"), [])
    first, second = job_log.said(readable, 1), job_log.said(readable, 2)
    assert "warning half\nway\u2028on\n" in first and "error   KeyError: 'frame'\nTraceback" in first
    assert first.endswith("KeyError: 'frame'\n") and "again" in second and "frame" not in second
    assert job_log.said(readable, 3) == "" == job_log.said(readable.with_name("none.log"), 1)


def test_processes_that_a_job_starts_are_of_its_attempt(readable, monkeypatch):
    cli.run(saying("first"), [])

    def main(arguments):
        with job_log.kept() as log:  # as a process of its own does
            assert log is not None
            logger.info("inner")
        return 0

    cli.run(main, [])
    assert {line["attempt"] for line in lines(readable) if line["message"] == "inner"} == {2}


@pytest.mark.parametrize(
    ("error", "name"), [(UserError("train.jsonl:7: bad"), "UserError"), (KeyError("x"), "KeyError")]
)
def test_an_error_is_there_with_its_traceback(readable, error, name):
    def main(arguments):
        raise error

    try:
        cli.run(main, [])
    except KeyError:
        assert name == "KeyError"
    last = lines(readable)[-1]
    assert last["level"] == "error" and last["message"].startswith(f"{name}: ")
    assert last["error"].startswith("Traceback") and "in main" in last["error"]


@given(message=st.text(st.characters(codec=None), max_size=50))
def test_any_message_is_one_line(tmp_path_factory, message):
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    log = job_log.JobLog(path, {})
    log.handle(logging.makeLogRecord({"msg": message}))
    log.close()
    assert path.read_bytes().count(b"\n") == 1
    (line,) = files.read_jsonl(path)
    assert line["message"] == message.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("torn", ["half", "", "{}\n"])
def test_a_torn_end_costs_no_line_that_follows(readable, torn):
    path = readable.with_suffix(".jsonl")
    path.parent.mkdir(parents=True)
    path.write_text('{"attempt": 4}\n' + torn)
    cli.run(saying("hello"), [])
    whole = [line for line in path.read_text().splitlines() if line.startswith("{")]
    assert [json.loads(line)["attempt"] for line in whole if line != "{}"] == [4, 5, 5, 5]


def _write(path: Path, number: int) -> None:
    log = job_log.JobLog(path, {"writer": number})
    for count in range(10**6):
        log.handle(logging.makeLogRecord({"msg": "%s" * 3, "args": (count, " long" * 2000, number)}))


def test_processes_that_are_killed_as_they_write_tear_no_line(tmp_path):
    path = tmp_path / "x.jsonl"
    writers = [
        multiprocessing.get_context("fork").Process(target=_write, args=(path, number)) for number in range(3)
    ]
    for writer in writers:
        writer.start()
    while not path.is_file() or not all(b'"writer": %d' % number in path.read_bytes() for number in range(3)):
        time.sleep(0.01)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    found = list(files.read_jsonl(path))
    assert {line["writer"] for line in found} == {0, 1, 2}
    assert all(line["message"].endswith(str(line["writer"])) for line in found)


def test_a_process_of_another_node_writes_beside_it(readable, monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GROUP_RANK", "1")
    with job_log.kept():
        logger.info("hello")
    (line,) = files.read_jsonl(readable.with_suffix(".node1.jsonl"))
    assert line["rank"] == 3 and not readable.with_suffix(".jsonl").exists()


def test_no_secret_is_written(readable, monkeypatch):
    secrets = {
        "HF_TOKEN": "hf_abcdefgh",
        "WANDB_API_KEY": "0123456789",
        "MLFLOW_TRACKING_PASSWORD": "pass/word",
        "PGPASSWORD": "of postgres",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    def main(arguments):
        logger.warning("refused: Bearer %s is wrong, and %s too", "abc.def-9", "hf_" + 10 * "x")
        logger.info("to https://me:hidden@host/x with %s", secrets["HF_TOKEN"])
        logger.info("store %s", secrets["PGPASSWORD"])
        raise UserError(f"{secrets['WANDB_API_KEY']} and {secrets['MLFLOW_TRACKING_PASSWORD']}")

    cli.run(main, ["--token", "hf_abcdefgh"])
    text = readable.with_suffix(".jsonl").read_text()
    assert "to https://host/x" in text and "***" in text
    assert not [value for value in (*secrets.values(), "me:hidden") if value in text]
    assert "refused: Bearer *** is wrong, and *** too" in text


def test_the_memory_of_a_gpu_is_that_of_torch_where_it_is_loaded(readable, monkeypatch):
    cuda = SimpleNamespace(is_initialized=lambda: True, max_memory_allocated=lambda: 3 * 2**30)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    cli.run(saying("on a GPU"), [])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())  # half imported
    cli.run(saying("without"), [])
    found = {line["message"]: line["peak_gpu_memory_gib"] for line in lines(readable)}
    assert found["on a GPU"] == 3.0 and found["without"] is None


def test_a_full_disk_ends_no_job(readable, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(job_log.os, "write", full)
        assert cli.run(saying("lost"), []) == 0
    assert cli.run(saying("kept"), []) == 0
    assert "kept" in [line["message"] for line in lines(readable)]


@pytest.mark.parametrize(
    ("stage", "name"),
    [("sft", "a_4.1v_base"), ("ask", "a_4.1v_base/final.blank"), ("report", ""), ("download", "logs")],
)
def test_the_log_of_a_job_names_it(stage, name):
    assert job_of(Layout(Path("logs/results")).log(stage, name)) == (stage, name)
