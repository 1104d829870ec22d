"""What `make demo` says: what each stage is for and how long it takes, and where to look when one fails."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

from workflow_scripts.base import files

ROOT = Path(__file__).parents[2]
STAGES = files.read_yaml(ROOT / "profiles/demo/stages.yaml")
TARGET = "results/eval/combined_4.1v_thinking.json"


@pytest.fixture
def folder(tmp_path):
    """A folder of its own in which the demo finds what it reads."""
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("rules", "profiles", "docs", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def demo(folder, stood_in):
    """Run the demo without the real commands: its status, and what it said; all of it goes to one place."""

    def demo(**environment: str) -> tuple[int, str]:
        done = forked.run(
            "workflow_scripts.demo", TARGET, folder=folder, environment={**stood_in, **environment}
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    return demo


@pytest.fixture
def start(folder, stood_in):
    """Start the demo without the real commands."""

    def start(target: str = TARGET, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "workflow_scripts.demo", target],
            cwd=folder,
            env={**stood_in, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def end(started: subprocess.Popen) -> tuple[int, str]:
    """The status of the demo, and what it said; all of it goes to one place."""
    said_to_be_data, said = started.communicate()
    assert said_to_be_data == ""
    return started.returncode, said


def test_each_stage_has_a_line_and_is_timed(demo):
    status, said = demo()
    assert status == 0, said
    header, *lines = said.splitlines()
    assert header.startswith("9 stages") and "about" in header
    begun = [re.fullmatch(r"(\d)/9  (\w+) +(.+), about (\d+ s|\d+ minutes)", line) for line in lines]
    assert [int(line[1]) for line in begun if line] == list(range(1, 10))
    assert {line[2]: line[3] for line in begun if line} == {name: of["what"] for name, of in STAGES.items()}
    done = [line for line in lines if re.fullmatch(r" +\w+ +done in \d+ s", line)]
    assert len(done) == 9 and len(lines) == 18
    assert max(map(len, said.splitlines())) <= 100

    assert demo() == (0, "All results are there already; `make clean` deletes them.\n")


def test_a_failure_names_the_stage_the_error_and_the_log(demo):
    status, said = demo(FAILING="convert")
    log = "results/logs/convert/combined_4.1v_thinking.log"
    assert status == 1
    assert (
        f"error: convert failed; {log} ends with\n     convert is at work\n     error: the disk is full\n"
        in said
    )
    assert said.endswith("`make demo` will go on from here once that is mended.\n")
    assert said.count("error: ") == 2 and "Traceback" not in said, said


def test_a_mistake_in_the_configuration_is_said(demo, folder):
    (folder / "profiles/demo/config.yaml").write_text("sft: {epochz: 1}\n")
    status, said = demo()
    assert status == 1 and "did you mean 'epochs'?" in said


@pytest.mark.slow
def test_ctrl_c_stops_it_and_it_goes_on_later(start, folder):
    started = start(SECONDS_OF=json.dumps({"convert": 300}))
    assert any("convert" in line for line in iter(started.stderr.readline, ""))
    log = folder / "results/logs/convert/combined_4.1v_thinking.log"
    while not log.exists() or "convert is at work" not in log.read_text():
        assert started.poll() is None
        time.sleep(0.1)
    time.sleep(2)  # past the start of the job, where Snakemake may not hear it
    # The terminal sends it to all processes in the foreground.
    subprocess.run(["kill", f"-{int(signal.SIGINT)}", "--", f"-{started.pid}"], check=True)
    status, said = end(started)
    assert status != 0 and said == "Stopping. `make demo` will go on from here.\n"
    status, said = end(start())
    assert status == 0 and said.startswith("7 stages")
