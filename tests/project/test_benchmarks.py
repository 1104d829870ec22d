"""The benchmarks build what they say, and what those of training compare trains alike."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_scripts.base import files
from workflow_scripts.datasets.readers import READERS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_the_engine_and_stock_lose_alike(name):
    flags = ["--questions", "2", "--sides", "112", "--repeats", "1"]
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (cell,) = json.loads(answer.stdout.splitlines()[-1])["cells"]
    assert cell["rows"] == 12 and cell["unique_tokens"] < cell["total_tokens"]
    assert cell["largest_loss_difference"] < 1e-5


def test_rows_are_doubled_and_every_image_is_there(realdata, tmp_path, monkeypatch):
    from benchmarks import data

    monkeypatch.setattr(data, "SETS", {"rad": data.SETS["rad"]})
    assert data.build(realdata, tmp_path, times=2) == 2 * 2248
    rows = list(READERS["rad"](tmp_path / "rad"))
    assert len({row.id for row in rows}) == 2 * 2248
    images = {row.image for row in rows}
    assert len({files.sha256(tmp_path / "rad" / image) for image in images}) == len(images) == 314
