"""Asking is resumed where it was killed, and shared among processes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.evaluation import asking
from workflow_scripts.stages import ask, convert, download

RUN = Run("rad", "4.1v", "base")
SETTINGS = """
datasets: {rad: {reader: rad, embedded: 10}}
models: {4.1v: {base: {embedded: true}}}
evaluation: {max_new_tokens: 40, tokens_per_batch: 1, gpus: 0}
tracking: []
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    """(settings file, layout) with data and an untrained model."""
    (tmp_path / "config.yaml").write_text(SETTINGS)
    settings, layout = load([tmp_path / "config.yaml"]), Layout(tmp_path / "results")
    download.download_source(settings, layout, "rad")
    download.download_model(settings, layout, RUN.model_version, RUN.mode)
    convert.convert(settings, layout, RUN)
    return tmp_path / "config.yaml", layout


def lines(layout: Layout) -> list[bytes]:
    """The lines of the kept answers that have an end."""
    kept = sorted(layout.kept_answers().rglob("*.jsonl"))
    return [line for path in kept for line in path.read_bytes().split(b"\n")[:-1]]


def flags(config: Path, layout: Layout) -> list[str]:
    names = ["--dataset", RUN.dataset, "--model_version", RUN.model_version, "--mode", RUN.mode]
    return [*names, "--model", "untrained", "--config", str(config), "--results", str(layout.root)]


def started(script: Path, config: Path, layout: Layout) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, script, *flags(config, layout)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def wait_for(condition, ended=lambda: False) -> None:
    until = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < until and not ended()
        time.sleep(0.01)


def test_a_killed_job_goes_on_and_asks_nothing_twice(place, tmp_path):
    config, layout = place
    settings = load([config])
    command = flags(config, layout)
    process = forked.start("workflow_scripts.ask", *command, folder=ROOT, output=tmp_path / "said.txt")
    wait_for(lambda: len(lines(layout)) >= 3, lambda: not process.is_alive())
    process.kill()
    process.join()
    answered = len(lines(layout))
    assert not layout.answers(RUN, "untrained", "original").exists()
    summary = ask.ask(settings, layout, RUN, "untrained", "original")
    tested = list(files.read_jsonl(layout.split(RUN, "test")))
    unique = {(record["question"], *record["images"]) for record in tested}
    assert 3 <= answered < len(unique)
    assert summary["asked_now"] == len(unique) - answered
    assert len(lines(layout)) == len(unique)  # each was asked once, but for what the kill has torn
    rows = list(files.read_jsonl(layout.answers(RUN, "untrained", "original")))
    assert [row["id"] for row in rows] == [record["id"] for record in tested]


TWO = """
import sys
from workflow_scripts.evaluation import asking
asking._devices = lambda examiner, model: ["", ""]
from workflow_scripts import ask
if __name__ == "__main__":
    ask.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_processes_share_the_questions_and_end_with_the_one_that_started_them(place, tmp_path):
    config, layout = place
    (tmp_path / "two.py").write_text(TWO)
    process = started(tmp_path / "two.py", config, layout)
    wait_for(lambda: len(list(layout.kept_answers().rglob("*.jsonl"))) == 2, process.poll)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(int(child)) for child in children))
    second = started(tmp_path / "two.py", config, layout)
    assert second.wait(timeout=900) == 0
    shared = list(files.read_jsonl(layout.answers(RUN, "untrained", "original")))
    shutil.rmtree(layout.kept_answers())
    assert ask.ask(load([config]), layout, RUN, "untrained", "original")["asked_now"]
    by_one = list(files.read_jsonl(layout.answers(RUN, "untrained", "original")))
    assert [row["text"] for row in shared] == [row["text"] for row in by_one]


def test_processes_that_end_between_two_looks_are_not_waited_for(monkeypatch):
    class Process:
        """Ended, from the second time that somebody looks."""

        def __init__(self, **_):
            self.looks = 0

        sentinel = 0

        @property
        def exitcode(self):
            self.looks += 1
            return None if self.looks == 1 else 0

        def start(self):
            pass

        terminate = join = start

    def wait(sentinels):
        assert sentinels  # to wait for none never ends

    monkeypatch.setattr(asking.multiprocessing, "get_context", lambda _: type("", (), {"Process": Process}))
    monkeypatch.setattr(asking.connection, "wait", wait)
    share = asking.Share(None, Path("model"), {}, {}, Path("."), False, False, Path("kept/0.jsonl"))
    asking._ask_on(["0", "1"], share)


def test_a_process_that_cannot_start_is_the_error_and_those_before_it_end(monkeypatch):
    ended = []

    class Process:
        def __init__(self, args, **_):
            self.device = args[1]

        def start(self):
            if self.device == "2":
                raise OSError("no process left")

        def terminate(self):
            assert self.device < "2", "never started"

        def join(self):
            self.terminate()
            ended.append(self.device)

    monkeypatch.setattr(asking.multiprocessing, "get_context", lambda _: type("", (), {"Process": Process}))
    share = asking.Share(None, Path("model"), {}, {}, Path("."), False, False, Path("kept/0.jsonl"))
    with pytest.raises(OSError, match="no process left"):
        asking._ask_on(["0", "1", "2", "3"], share)
    assert ended == ["0", "1"]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_all_about_an_image_is_asked_by_one_process_and_all_have_about_as_much():
    records = {
        f"{image} {number}": {"images": [image]} for image in ("a", "b", "c", "d") for number in range(5)
    }
    share = asking.Share(None, Path("model"), {}, records, Path("."), False, False, Path("kept/0.jsonl"))
    parts = asking._parts(share, 2)
    assert [len(part.records) for part in parts] == [10, 10]
    assert {key: record for part in parts for key, record in part.records.items()} == records
    images = [{record["images"][0] for record in part.records.values()} for part in parts]
    assert not images[0] & images[1]
    assert [part.kept.name for part in parts] == ["0.jsonl", "1.jsonl"]
