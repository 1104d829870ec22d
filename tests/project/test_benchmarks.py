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
    done = ["environment", "attention", "exactness", "training", "variants", "generation", "resumption"]
    assert [name for name, check in checks.items() if check["state"] == "done"][: len(done)] == done
    exact = [goal for name in ("attention", "exactness", "resumption") for goal in checks[name]["goals"]]
    assert len(exact) == 6 and all(goal["met"] for goal in exact)
    assert len(checks["training"]["figures"]) == 6  # SFT and DPO: ours, stock, and the ratio of both
    serving = checks["serving"]  # all of it but vLLM itself
    assert serving["state"] == "skipped" and "vLLM needs a GPU" in serving["error"]
    assert len(serving["goals"]) == 3 and all(goal["met"] for goal in serving["goals"])


VLLM = """
from types import SimpleNamespace as Made

def LLM(*, model, dtype, max_model_len, gpu_memory_utilization, enforce_eager, limit_mm_per_prompt):
    assert (model, dtype, limit_mm_per_prompt) == ("exported", "bfloat16", {"image": 1, "video": 0})
    return Made(generate=lambda prompts, sampling, use_tqdm: [answer(prompt, max_model_len) for prompt in prompts])

def SamplingParams(*, max_tokens, temperature, prompt_logprobs, detokenize):
    assert (max_tokens, prompt_logprobs) == (1, 1)

def answer(prompt, longest):
    width, height = prompt["multi_modal_data"]["image"].size
    ids = [copy for token in prompt["prompt_token_ids"] for copy in [token] * (width * height // 784 if token == IMAGE else 1)]
    assert len(ids) < longest
    found = [{token: Made(logprob=-0.5 * place), -1: Made(logprob=9.0)} for place, token in enumerate(ids)]
    return Made(prompt_token_ids=ids, prompt_logprobs=[None, *found[1:]])
"""


def test_vllm_is_asked_in_an_interpreter_of_its_own(tmp_path, monkeypatch):
    """By the names that vLLM 0.33.0 has."""
    from benchmarks import common
    from benchmarks.gpu_check import serving
    from workflow_scripts.models.pixels import expand

    case = common.case(tmp_path, questions=2, side=112, images=1)
    (tmp_path / "lib" / "vllm").mkdir(parents=True)
    (tmp_path / "lib" / "vllm" / "__init__.py").write_text(f"IMAGE = {case.processor.image_token_id}\n{VLLM}")
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ntest -z "$PYTHONPATH" || exit 1\nPYTHONPATH={tmp_path}/lib exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", "of this project")
    found = serving.served(Path("exported"), case, str(python))
    assert [one.ids for one in found] == [
        expand(ids, [16], case.processor.image_token_id) for ids, _ in serving._rows(case)
    ]
    assert [one.scores for one in found] == [
        [-0.5 * place for place in range(1, len(one.ids))] for one in found
    ]
    python.write_text("#!/bin/sh\necho 'first' >&2\necho 'ValueError: no such architecture' >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="^ValueError: no such architecture$"):
        serving.served(Path("exported"), case, str(python))


def test_a_score_of_another_model_is_noticed():
    from benchmarks.gpu_check import runner, serving

    findings = runner.Findings("serving")
    case = type("Case", (), {"processor": type("Words", (), {"image_token_id": 7})})
    true = [serving.Scored([1, 7, 7, 2, 3], [-9.0, -9.0, -1.0, -2.0])]
    for who, score in (("close", -2.1), ("far", -2.5)):
        found = [serving.Scored([1, 7, 7, 2, 3], [-3.0, -4.0, -1.0, score])]
        serving._compare(findings, who, found, true, case, allowed=0.1)
    serving._compare(findings, "other", [serving.Scored([1, 7, 2, 3], [0.0] * 3)], true, case, allowed=0.1)
    assert [goal.met for goal in findings.goals] == [True, True, True, False, False]


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


@pytest.mark.slow
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
