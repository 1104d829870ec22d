"""What other launchers leave in the environment makes no process wait for others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base.processes import Processes, processes

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
import sys
from pathlib import Path
from workflow_scripts.base import cli
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training.launch import launch_or_run

def train():
    from accelerate import PartialState
    state = PartialState(cpu=True)
    print(processes(), state.process_index, state.num_processes)
    return {"steps": 1, "seconds": 1.0, "final_loss": 0.5}

sys.exit(cli.run(lambda _: launch_or_run("none", [], Sft(gpus=0), Path("kept"), train), []))
"""


@pytest.mark.parametrize(
    "strays",
    [
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"LOCAL_RANK": "0"},
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2"},
    ],
    ids=" ".join,
)
def test_a_training_that_torchrun_has_not_started_is_alone(strays):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env={**os.environ, "PYTHONPATH": str(ROOT), **strays},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == f"{Processes()} 0 1"
    warned = [line for line in done.stderr.splitlines() if "torchrun has not started this process" in line]
    assert len(warned) == (not any(name.endswith("_SIZE") and name != "WORLD_SIZE" for name in strays))


def test_a_process_of_torchrun_is_one_of_several(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert processes() == Processes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert processes() == Processes(1, 2)
