"""A whole chain from one target, as short as it can be, and what is true of whatever it leaves."""

from pathlib import Path

import jsonschema

from workflow_scripts.base import files, versions

SCHEMA = files.read_json(Path(__file__).parents[2] / "workflow_scripts" / "evaluation" / "schema.json")
SHORT = {
    "datasets": {name: {"embedded": 10} for name in ("slake", "rad", "pathvqa")},
    "models": {
        version: {mode: {"embedded": True} for mode in ("thinking", "base")} for version in ("4.1v", "4.5v")
    },
    "sft": {
        "max_steps": 6,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "gradient_checkpointing": False,
        "lora": {"rank": 8},
        "save_steps": 3,
    },
    "preferences": {"max_questions": 8, "max_pairs": 24},
    "dpo": {"max_steps": 3, "batch_size": 16, "gradient_checkpointing": False},
    "evaluation": {"max_new_tokens": 24, "max_validation_rows": 20},
    "tracking": [],
}


def finished(workflow, run: str):
    """The workflow, once all stages of `run` are done."""
    result = workflow.snakemake(f"{workflow.results}/eval/{run}.json")
    assert result.returncode == 0, result.stdout + result.stderr
    return workflow


def check_evaluation(workflow, run: str) -> None:
    """The evaluation fits its schema and counts each test question once for each stage, for blank and for other images."""
    evaluation = files.read_json(workflow / f"eval/{run}.json")
    jsonschema.validate(evaluation, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert list(evaluation) == [key for key in SCHEMA["properties"] if key in evaluation]
    assert list(evaluation["stages"]) == ["untrained", "sft", "dpo"]
    assert evaluation["versions"] == {k: v for k, v in versions.RESULTS.items() if k != "validate"}
    rows = list(files.read_jsonl(workflow / f"eval/{run}/predictions.jsonl"))
    tested = list(files.read_jsonl(workflow / f"data/{run}/test.jsonl"))
    assert len(rows) == 5 * len(tested) == 5 * evaluation["stages"]["dpo"]["overall"]["n"]
    assert (workflow / f"eval/{run}" / rows[0]["image"]).is_file()


def check_files(workflow) -> None:
    """Weights are in safetensors, nothing is half-written, and no checkpoint of a finished training stays."""
    left = [path for path in (workflow / "").rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix in (".bin", ".pt", ".pkl", ".pth", ".tmp")]
    unfinished = workflow / "checkpoints/sft"
    assert not unfinished.exists() or not list(unfinished.iterdir())
