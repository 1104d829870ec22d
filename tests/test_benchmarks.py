"""The benchmarks of training run, and what they compare trains alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_the_engine_and_stock_lose_alike(name):
    flags = ["--questions", "2", "--sides", "112", "--repeats", "1"]
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (cell,) = json.loads(answer.stdout.splitlines()[-1])["cells"]
    assert cell["rows"] == 12 and cell["unique_tokens"] < cell["total_tokens"]
    assert cell["largest_loss_difference"] < 1e-5
