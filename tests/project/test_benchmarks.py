"""The benchmarks build what they say, and what those of training compare trains alike."""

import json
import subprocess
import sys
import time
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


@pytest.mark.slow
def test_what_is_checked_on_a_gpu_works_on_a_small_shape(tmp_path):
    written = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--small", "--json", str(written)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    checks = {check["name"]: check for check in files.read_json(written)["checks"]}
    assert answer.returncode == 0, [check["trace"] for check in checks.values()]
    done = ["environment", "attention", "exactness", "training", "generation", "resumption"]
    assert [name for name, check in checks.items() if check["state"] == "done"][: len(done)] == done
    exact = [goal for name in ("attention", "exactness", "resumption") for goal in checks[name]["goals"]]
    assert len(exact) == 6 and all(goal["met"] for goal in exact)
    assert len(checks["training"]["figures"]) == 6  # SFT and DPO: ours, stock, and the ratio of both


def test_a_check_that_fails_hides_no_other(tmp_path):
    from benchmarks.gpu_check import runner

    def fails(findings: runner.Findings) -> None:
        findings.figure("before", 1.0)
        raise ValueError("broken\nmore")

    def lasts(findings: runner.Findings) -> None:
        findings.goal("to be quick", "slow", False)
        time.sleep(30)

    def works(findings: runner.Findings) -> None:
        assert files.read_json(tmp_path / "found.json")["checks"][1]["goals"][0]["found"] == "slow"
        findings.goal("to end", "ended", True)

    checks = [runner.Check("a", 9, fails), runner.Check("b", 1.2, lasts), runner.Check("c", 9, works)]
    found = runner.run(checks, 20, tmp_path / "found.json")
    assert [(each.state, each.error) for each in found] == [
        ("failed", "ValueError: broken"),
        ("stopped", "its 1 s are over"),
        ("done", ""),
    ]
    assert found[0].figures == {"before": 1.0} and "broken" in found[0].trace
    assert runner.table(found).splitlines()[-1] == "1 of 2 goals are met"


@pytest.mark.slow
def test_the_generator_and_generate_answer_alike():
    flags = ["--questions", "2", "--sides", "112", "--samples", "1", "2", "--repeats", "1"]
    command = [sys.executable, "-m", "benchmarks.generation", *flags]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    greedy, drawn = json.loads(answer.stdout.splitlines()[-1])["cells"]
    assert greedy["rows"] == greedy["equal"] == 48 and drawn["equal"] is None


def test_rows_are_doubled_and_every_image_is_there(realdata, tmp_path, monkeypatch):
    from benchmarks import data

    monkeypatch.setattr(data, "SETS", {"rad": data.SETS["rad"]})
    assert data.build(realdata, tmp_path, times=2) == 2 * 2248
    rows = list(READERS["rad"](tmp_path / "rad"))
    assert len({row.id for row in rows}) == 2 * 2248
    images = {row.image for row in rows}
    assert len({files.sha256(tmp_path / "rad" / image) for image in images}) == len(images) == 314


def test_a_cell_of_accuracy_is_trained_once(tmp_path, monkeypatch):
    from benchmarks import accuracy, thoughts

    source = {"reader": "slake", "embedded": 10, "languages": ["en"]}
    sizes = {"sft": {"max_steps": 1}, "evaluation": {"max_new_tokens": 4}}
    base, _, facts, _ = thoughts.arms([0.1])

    def cell(arm: accuracy.Arm, seed: int) -> accuracy.Cell:
        return accuracy.run_cell("phantoms", source, arm, sizes, seed, tmp_path / "cells")

    cells = [cell(base, 1), cell(facts, 1)]
    assert [found.steps for found in cells] == [1, 1] and cells[0].floor > 0
    assert len(list((tmp_path / "cells").iterdir())) == 2  # and nothing of the trainings
    monkeypatch.setattr(accuracy.sft, "stage", lambda *_: pytest.fail("trained again"))
    assert [cell(base, 1), cell(facts, 1)] == cells
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        cell(base, 2)


def test_arms_of_more_rows_of_an_image_show_fewer_images():
    from benchmarks import batches

    chosen = [arm.settings["sft"] for arm in batches.arms([1, 14])]
    assert chosen == [
        {"rows_per_image": 1, "images_per_step": 32},
        {"rows_per_image": 14, "images_per_step": 2},
    ]


def test_the_table_of_accuracy_compares_with_the_first_arm():
    from benchmarks.accuracy import Cell, table

    cells = [Cell("s", arm, seed, percent, 50.0, 9, 1.0) for arm, seed, percent in
             (("a", 1, 60.0), ("a", 2, 62.0), ("b", 1, 65.0), ("b", 2, 66.0))]  # fmt: skip
    assert table("T", "c", cells).splitlines()[-1] == "| s | b | 65.0, 66.0 | 65.5 | +4.5 | 50.0 | 9 | 1 |"
