"""The whole chain on drawn phantoms and tiny models, from one target; what it leaves, and what it says when it fails."""

from pathlib import Path

import jsonschema
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from workflow_scripts.base import files

SCHEMA = files.read_json(Path(__file__).parents[2] / "workflow_scripts" / "evaluation" / "schema.json")
SHORT = {
    "datasets": {name: {"embedded": 20} for name in ("slake", "rad", "pathvqa")},
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
    "evaluation": {"max_new_tokens": 24, "batch_size": 64, "max_validation_rows": 20},
    "tracking": [],
}
LORA, FULL = "slake_4.1v_thinking", "combined_4.5v_base"


@pytest.fixture(scope="module")
def lora(start):
    workflow = start({**SHORT, "tracking": ["mlflow"]})
    result = workflow.snakemake(f"results/eval/{LORA}.json")
    assert result.returncode == 0, result.stdout + result.stderr
    return workflow


@pytest.fixture(scope="module")
def full(start):
    methods = {stage: {**SHORT[stage], "method": "full", "learning_rate": 1e-4} for stage in ("sft", "dpo")}
    workflow = start({**SHORT, **methods})
    result = workflow.snakemake(f"results/eval/{FULL}.json")
    assert result.returncode == 0, result.stdout + result.stderr
    return workflow


def test_the_evaluation_fits_its_schema(lora, full):
    for workflow, run in ((lora, LORA), (full, FULL)):
        evaluation = files.read_json(workflow / f"eval/{run}.json")
        jsonschema.validate(evaluation, SCHEMA, cls=jsonschema.Draft202012Validator)
        assert list(evaluation) == [key for key in SCHEMA["properties"] if key in evaluation]
        assert list(evaluation["stages"]) == ["untrained", "sft", "dpo"]
        rows = list(files.read_jsonl(workflow / f"eval/{run}/predictions.jsonl"))
        tested = list(files.read_jsonl(workflow / f"data/{run}/test.jsonl"))
        assert len(rows) == 4 * len(tested) == 4 * evaluation["stages"]["dpo"]["overall"]["n"]
        assert (workflow / f"eval/{run}" / rows[0]["image"]).is_file()


def test_an_adapter_loads_with_stock_libraries(lora):
    base = AutoModelForImageTextToText.from_pretrained(lora / "models/4.1v_thinking")
    before = [parameter.clone() for parameter in base.parameters()]
    for stage in ("sft", "dpo"):
        adapted = PeftModel.from_pretrained(base, lora / f"{stage}/{LORA}")
        assert any(value.abs().sum() > 0 for name, value in adapted.named_parameters() if "lora_B" in name)
        base = adapted.unload()
    assert all(torch.equal(old, new) for old, new in zip(before, base.parameters(), strict=True))
    AutoProcessor.from_pretrained(lora / f"sft/{LORA}")


def test_a_whole_model_loads_with_stock_libraries(full):
    base = AutoModelForImageTextToText.from_pretrained(full / "models/4.5v_base").state_dict()
    tuned = AutoModelForImageTextToText.from_pretrained(full / f"sft/{FULL}").state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, base[name])}
    assert any("experts" in name for name in changed) and any("shared_experts" in name for name in changed)
    assert not any("visual" in name for name in changed)
    AutoModelForImageTextToText.from_pretrained(full / f"dpo/{FULL}")


def test_only_safetensors_are_left_and_nothing_half_written(lora, full):
    for workflow in (lora, full):
        left = [path for path in (workflow / "").rglob("*") if path.is_file()]
        assert not [path for path in left if path.suffix in (".bin", ".pt", ".pkl", ".pth", ".tmp")]
        assert not (workflow / "checkpoints/sft").exists() or not list(
            (workflow / "checkpoints/sft").iterdir()
        )


def test_pairs_differ_and_show_images_that_are_there(lora):
    pairs = list(files.read_jsonl(lora / f"preferences/{LORA}.jsonl"))
    assert pairs
    for row in pairs:
        assert (lora / "preferences" / row["images"][0]).is_file() and row["chosen"] != row["rejected"]


def test_mlflow_has_every_stage_and_the_predictions(lora):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{lora / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    stages = {run.data.tags["stage"]: run for run in runs if "stage" in run.data.tags}
    assert set(stages) == {"convert", "validate", "sft", "preferences", "dpo", "evaluate"}
    assert "stages.sft.overall.accuracy" in stages["evaluate"].data.metrics
    assert client.get_metric_history(stages["sft"].info.run_id, "loss")
    assert "predictions.json" in {
        entry.path for entry in client.list_artifacts(stages["evaluate"].info.run_id)
    }


def test_nothing_is_done_twice_and_a_changed_parameter_reruns_what_depends_on_it(lora):
    again = lora.snakemake("-n", f"results/eval/{LORA}.json")
    assert "Nothing to be done" in again.stdout + again.stderr
    settings = lora.folder / "settings.yaml"
    before = settings.read_text()
    settings.write_text(before.replace("max_pairs: 24", "max_pairs: 12"))
    planned = lora.snakemake("-n", f"results/eval/{LORA}.json")
    settings.write_text(before)
    jobs = {line.split()[0] for line in (planned.stdout + planned.stderr).splitlines() if line.endswith(" 1")}
    assert {"preferences", "dpo", "evaluate"} <= jobs and not {"sft", "convert", "download"} & jobs


def test_a_model_is_scored_alone_and_with_all_of_a_folder(lora):
    one = lora.command(
        *("evaluate", "--model_path", f"results/sft/{LORA}", "--test_datasets", "slake"),
        *("--output", "results/one.json"),
    )
    assert one.returncode == 0, one.stderr
    everything = lora.command("run_experiments", "--mode", "evaluate", "--models_dir", "results/sft")
    assert everything.returncode == 0, everything.stderr
    evaluation = files.read_json(lora / f"eval/{LORA}.json")
    expected = evaluation["stages"]["sft"]["overall"]
    assert files.read_json(lora / "one.json")["overall"] == expected
    assert files.read_json(lora / "eval/models/sft.json") == {LORA: expected}


def test_the_report_shows_the_run(lora):
    assert lora.command("report").returncode == 0
    page = (lora / "report/index.html").read_text()
    assert LORA in page and "strict" in page
    printed = lora.command("report", "--print", LORA)
    assert "before training" in printed.stdout and "mlflow ui --host 127.0.0.1" in printed.stdout


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        (
            "convert",
            ["--dataset", "slak", "--model_version", "4.1v", "--mode", "base"],
            "did you mean 'slake'?",
        ),
        ("convert", ["--dataset", "rad", "--model_version", "4.1v", "--mode", "base"], "no VQA-RAD here"),
        ("sft", ["--dataset", "rad", "--model_version", "4.1v", "--mode", "base"], "no such file"),
        ("evaluate", ["--dataset", "rad"], "say --model_version and --mode"),
        ("dpo", ["--dataset", "rad", "--model_version", "4.1v"], "say --mode"),
        ("report", ["--print", "nothing"], "no such file"),
        ("run_experiments", ["--mode", "evaluate", "--models_dir", "gone"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_a_non_zero_status(start, stage, arguments, expected):
    result = start(SHORT).command(stage, *arguments)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1 and expected in errors[0]
    assert "Traceback" not in result.stderr


def test_a_wrong_configuration_stops_before_any_job(start):
    workflow = start({**SHORT, "sft": {"metod": "lora"}, "seed": "x"})
    result = workflow.snakemake(f"results/eval/{LORA}.json")
    assert result.returncode != 0
    assert (
        "did you mean 'method'?" in result.stderr + result.stdout
        and "seed: 'x'" in result.stderr + result.stdout
    )
    assert not (workflow.folder / "results" / "raw").exists()


def test_a_corrupt_image_stops_the_chain_at_validation(start):
    workflow = start(SHORT)
    assert workflow.snakemake("results/data/rad_4.1v_base/summary.json").returncode == 0
    first = next(files.read_jsonl(workflow / "data/rad_4.1v_base/train.jsonl"))
    (workflow / "data/rad_4.1v_base" / first["images"][0]).write_bytes(b"")
    result = workflow.snakemake("results/sft/rad_4.1v_base/metrics.json")
    assert result.returncode != 0
    assert "the file is empty" in result.stdout + result.stderr
    assert not (workflow / "data/rad_4.1v_base/validation.json").exists()
