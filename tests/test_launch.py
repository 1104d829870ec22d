"""A command that started itself once per GPU ends these processes before it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Two processes without a GPU: only the count of visible ones is feigned.
PARENT = """
import sys, torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 2
from workflow_scripts import cli
from workflow_scripts.training.launch import relaunch
sys.exit(cli.run(lambda arguments: relaunch("sleeper", [], 2), []))
"""
WORKER = """
import os, sys, time
from pathlib import Path
from workflow_scripts import cli

def main(arguments):
    try:
        Path("started." + os.environ["RANK"]).touch()
        time.sleep(100)
    finally:
        Path("cleaned." + os.environ["RANK"]).touch()

sys.exit(cli.run(main))
"""


def test_sigterm_reaches_the_processes_of_all_gpus(tmp_path):
    (tmp_path / "sleeper.py").write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("started.*"))) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    parent.send_signal(signal.SIGTERM)
    errors = parent.communicate(timeout=60)[1]
    assert parent.returncode == 143 and errors.endswith("error: stopped by SIGTERM\n")
    assert sorted(path.name for path in tmp_path.glob("cleaned.*")) == ["cleaned.0", "cleaned.1"]
