"""The whole chain of full training on a combination of sets; a damaged image stops it."""

import pytest
import torch
from chains import SHORT, check_evaluation, check_files, finished
from transformers import AutoModelForImageTextToText

from workflow_scripts.base import files

pytestmark = pytest.mark.slow
FULL = "combined_4.5v_base"


@pytest.fixture(scope="module")
def full(start):
    methods = {stage: {**SHORT[stage], "method": "full", "learning_rate": 1e-4} for stage in ("sft", "dpo")}
    return finished(start({**SHORT, **methods}), FULL)


def test_the_evaluation_fits_its_schema(full):
    check_evaluation(full, FULL)


def test_only_safetensors_are_left_and_nothing_half_written(full):
    check_files(full)


def test_a_whole_model_loads_with_stock_libraries(full):
    base = AutoModelForImageTextToText.from_pretrained(full / "models/4.5v_base").state_dict()
    tuned = AutoModelForImageTextToText.from_pretrained(full / f"sft/{FULL}").state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, base[name])}
    assert any("experts" in name for name in changed) and any("shared_experts" in name for name in changed)
    assert not any("visual" in name for name in changed)
    AutoModelForImageTextToText.from_pretrained(full / f"dpo/{FULL}")


def test_a_corrupt_image_stops_the_chain_at_validation(full):
    assert full.snakemake("results/data/rad_4.5v_base/summary.json").returncode == 0
    first = next(files.read_jsonl(full / "data/rad_4.5v_base/train.jsonl"))
    (full / "data/rad_4.5v_base" / first["images"][0]).write_bytes(b"")
    result = full.snakemake("results/sft/rad_4.5v_base/metrics.json")
    assert result.returncode != 0
    assert "the file is empty" in result.stdout + result.stderr
    assert not (full / "data/rad_4.5v_base/validation.json").exists()
