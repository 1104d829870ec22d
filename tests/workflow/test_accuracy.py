"""Tiny models really learn what the pixels show: on the demo's phantoms and on the real SLAKE."""

from pathlib import Path

import pytest
import yaml

from workflow_scripts.base import files

DEMO = Path(__file__).parents[2] / "profiles" / "demo" / "config.yaml"
pytestmark = pytest.mark.slow

# A tiny model is trained whole: 112 px, fp32, two CPU cores.
REAL = {
    "sft": {
        "method": "full",
        "freeze_vision": False,
        "epochs": 3,
        "learning_rate": 2e-3,
        "batch_size": 32,
        "weight_decay": 0.05,
        "gradient_checkpointing": False,
        "log_steps": 100,
        "save_steps": 500,
    },
    "preferences": {"max_questions": 50, "max_pairs": 64},
    "dpo": {"method": "full", "learning_rate": 1e-5, "batch_size": 16, "gradient_checkpointing": False},
    "evaluation": {"max_new_tokens": 48},
    "tracking": [],
}


def scores(evaluation: dict) -> dict[str, float]:
    """Accuracies over all questions, in percent."""
    groups = {**evaluation["stages"], **evaluation["floor"], **evaluation["ablation"]}
    return {name: 100 * group["overall"]["accuracy"] for name, group in groups.items()}


def test_the_demo_learns_from_the_pixels(start):
    workflow = start(yaml.safe_load(DEMO.read_text()) | {"tracking": []})
    result = workflow.snakemake("results/eval/combined_4.1v_thinking.json")
    assert result.returncode == 0, result.stdout + result.stderr
    evaluation = files.read_json(workflow / "eval/combined_4.1v_thinking.json")
    score = scores(evaluation)
    assert score["untrained"] < 20
    for stage in ("sft", evaluation["final_stage"]):
        assert score[stage] >= 70 and evaluation["stages"][stage]["overall"]["closed_accuracy"] >= 0.75
    assert score["blank_image"] < score["question_only"]


def test_the_real_slake_is_learned_above_its_floor(start, realdata):
    workflow = start(
        {
            "datasets": {"slake": {"path": str(realdata / "slake" / "Slake1.0"), "languages": ["en"]}},
            "models": {"4.1v": {"base": {"embedded": True}}},
            **REAL,
        }
    )
    result = workflow.snakemake("results/eval/slake_4.1v_base.json")
    assert result.returncode == 0, result.stdout + result.stderr
    evaluation = files.read_json(workflow / "eval/slake_4.1v_base.json")
    score = scores(evaluation)
    assert score["sft"] >= 54.5 + 5 and score["sft"] >= score["question_only"] + 5
    assert score["blank_image"] < score["question_only"]
    dropped = list(files.read_jsonl(workflow / "data/slake_4.1v_base/dropped.jsonl"))
    assert {row["reason"] for row in dropped} <= {"missing image", "empty answer"} and dropped
