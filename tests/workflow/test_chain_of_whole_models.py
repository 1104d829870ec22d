"""The whole chain of full training on a combination of sets, limited to a few rows; a damaged image stops it."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
from chains import SHORT, check_evaluation, check_files, finished
from transformers import AutoModelForImageTextToText

from workflow_scripts.base import files

pytestmark = pytest.mark.slow
FULL = "combined_4.5v_base"
LIMIT = 16


@pytest.fixture(scope="module")
def full(start):
    methods = {stage: {**SHORT[stage], "method": "full", "learning_rate": 1e-4} for stage in ("sft", "dpo")}
    return finished(start({**SHORT, **methods, "limit": LIMIT}), FULL)


def test_the_evaluation_fits_its_schema(full):
    check_evaluation(full, FULL)


def test_only_safetensors_are_left_and_nothing_half_written(full):
    check_files(full)


def test_every_stage_is_limited_and_no_result_can_be_taken_for_that_of_a_whole_run(full):
    assert {path.name for path in (full.folder / "results").iterdir()} == {"limited_16", "models", "raw"}
    summary = files.read_json(full / f"data/{FULL}/summary.json")
    sources = {}
    for split, count in summary["rows"].items():
        rows = list(files.read_jsonl(full / f"data/{FULL}/{split}.jsonl"))
        sources[split] = Counter((row["source"], row["answer_type"]) for row in rows)
        assert count <= 3 * LIMIT and len(sources[split]) == 6
    assert summary["read"] > summary["kept"] and summary["rows"]["train"] == 3 * LIMIT
    assert files.read_json(full / f"sft/{FULL}/metrics.json")["train_rows"] == 3 * LIMIT
    evaluation = files.read_json(full / f"eval/{FULL}.json")
    assert evaluation["limit"] == evaluation["provenance"]["configuration"]["limit"] == LIMIT
    assert evaluation["stages"]["dpo"]["overall"]["n"] == summary["rows"]["test"]
    page = (full / f"eval/{FULL}/evaluation.html").read_text(encoding="utf-8")
    assert f"{FULL} (a try, limit 16)" in page and "say nothing about the model" in page
    printed = full.command("report", "--limit", "16", "--print", FULL)
    assert printed.returncode == 0 and "(a try, limit 16)" in printed.stdout
    told = subprocess.run(
        [sys.executable, "-m", "workflow_scripts.reproduce", f"{full.results}/eval/{FULL}.json"],
        cwd=full.folder, env=full.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"-- {full.results}/eval/{FULL}.json" in told and "not here" not in told


def test_a_job_leaves_a_structured_log_beside_the_readable_one(full):
    lines = list(files.read_jsonl(full / f"logs/sft/{FULL}.jsonl"))
    assert {(line["stage"], line["run"], line["attempt"]) for line in lines} == {("sft", FULL, 1)}
    assert max(line["step"] or 0 for line in lines) == SHORT["sft"]["max_steps"]
    readable = (full / f"logs/sft/{FULL}.log").read_text(encoding="utf-8")
    assert all(line["message"] in readable for line in lines[1:-1] if line["level"] != "debug")


def test_a_whole_model_loads_with_stock_libraries(full):
    base = AutoModelForImageTextToText.from_pretrained(full.folder / "results/models/4.5v_base").state_dict()
    tuned = AutoModelForImageTextToText.from_pretrained(full / f"sft/{FULL}").state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, base[name])}
    assert any("experts" in name for name in changed) and any("shared_experts" in name for name in changed)
    assert not any("visual" in name for name in changed)
    AutoModelForImageTextToText.from_pretrained(full / f"dpo/{FULL}")


def test_a_corrupt_image_stops_the_chain_at_validation(full):
    assert full.snakemake(f"{full.results}/data/rad_4.5v_base/summary.json").returncode == 0
    first = next(files.read_jsonl(full / "data/rad_4.5v_base/train.jsonl"))
    (full / "data/rad_4.5v_base" / first["images"][0]).write_bytes(b"")
    result = full.snakemake(f"{full.results}/sft/rad_4.5v_base/metrics.json")
    assert result.returncode != 0
    assert "the file is empty" in result.stdout + result.stderr
    assert not (full / "data/rad_4.5v_base/validation.json").exists()
