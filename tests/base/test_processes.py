"""What other launchers leave in the environment makes no process wait for others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base.processes import Processes, processes

ROOT = Path(__file__).resolve().parents[2]
# What trains is imported once; each case runs in a fork of its own.
COMMAND = """
import json, os, sys
from pathlib import Path
import accelerate
from workflow_scripts.base import cli
from workflow_scripts.base.processes import processes
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.training.launch import launch_or_run

def train():
    from accelerate import PartialState
    state = PartialState(cpu=True)
    print(processes(), state.process_index, state.num_processes, flush=True)
    return {"steps": 1, "seconds": 1.0, "final_loss": 0.5}

for strays in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        os.environ.update(strays)
        status = cli.run(lambda _: launch_or_run("none", [], Sft(gpus=0), Path("kept"), train), [])
        sys.stderr.flush()
        os._exit(status)
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    print("next", file=sys.stderr, flush=True)
"""
STRAYS = [
    {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"},
    {"RANK": "1", "WORLD_SIZE": "1"},
    {"LOCAL_RANK": "0"},
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "2"},
]


@pytest.mark.slow
def test_a_training_that_torchrun_has_not_started_is_alone():
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, json.dumps(STRAYS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # The summary of a training may follow what it prints.
    alone = [line for line in done.stdout.splitlines() if line.startswith(("Processes", "status"))]
    assert alone == [f"{Processes()} 0 1", "status 0"] * len(STRAYS), done.stderr
    warned = [said.count("torchrun has not started this process") for said in done.stderr.split("next\n")]
    assert warned == [1, 1, 1, 1, 0, 0]


def test_a_process_of_torchrun_is_one_of_several(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert processes() == Processes()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert processes() == Processes(1, 2)
