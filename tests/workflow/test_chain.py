"""The whole chain on drawn phantoms and tiny models, from one target; what it leaves, and what it says when it fails."""

import subprocess
import sys

import pytest
import torch
from chains import SHORT, check_evaluation, check_files, finished
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from workflow_scripts.base import files

LORA = "slake_4.1v_thinking"


@pytest.fixture(scope="module")
def lora(start, preloaded):
    return finished(start({**SHORT, "tracking": ["mlflow"]}, python=preloaded), LORA)


def test_the_evaluation_fits_its_schema(lora):
    check_evaluation(lora, LORA)


def test_only_safetensors_are_left_and_nothing_half_written(lora):
    check_files(lora)


def test_an_adapter_loads_with_stock_libraries(lora):
    base = AutoModelForImageTextToText.from_pretrained(lora / "models/4.1v_thinking")
    before = [parameter.clone() for parameter in base.parameters()]
    for stage in ("sft", "dpo"):
        adapted = PeftModel.from_pretrained(base, lora / f"{stage}/{LORA}")
        assert any(value.abs().sum() > 0 for name, value in adapted.named_parameters() if "lora_B" in name)
        base = adapted.unload()
    assert all(torch.equal(old, new) for old, new in zip(before, base.parameters(), strict=True))
    AutoProcessor.from_pretrained(lora / f"sft/{LORA}")


def test_what_is_exported_answers_as_the_final_model(lora):
    result = lora.snakemake(f"results/export/{LORA}/README.md")
    assert result.returncode == 0, result.stdout + result.stderr
    folder = lora / f"export/{LORA}"
    evaluation = files.read_json(lora / f"eval/{LORA}.json")
    base = AutoModelForImageTextToText.from_pretrained(lora / "models/4.1v_thinking")
    trained = PeftModel.from_pretrained(base, lora / f"{evaluation['final_stage']}/{LORA}")
    exported, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(folder)
    assert not hasattr(processor.image_processor, "frames")
    image = Image.new("RGB", (90, 120), (70, 20, 160))
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "Which modality?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        before, after = trained.eval()(**inputs).logits, exported.eval()(**inputs).logits
        answers = [
            model.generate(**inputs, max_new_tokens=12, do_sample=False) for model in (trained, exported)
        ]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
    assert answers[0].equal(answers[1])
    # With what the published model lists, `</answer>`, and the token that we train as a stop.
    ids = exported.generation_config.eos_token_id
    assert {"</answer>", "<|user|>"} <= set(processor.tokenizer.convert_ids_to_tokens(ids))
    card = (folder / "README.md").read_text()
    share = evaluation["stages"][evaluation["final_stage"]]["overall"]["accuracy"]
    assert f"{100 * share:.1f}" in card and "no medical device" in card and "drawn phantoms" in card


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
    assert {"line/sft/accuracy", "eval/slake/en/closed"} <= stages["evaluate"].data.metrics.keys()
    assert len(stages["evaluate"].data.metrics) < 60
    history = client.get_metric_history(stages["sft"].info.run_id, "train/loss")
    assert len({point.step for point in history}) == len(history) > 0
    expected = {
        "train/grad_norm",
        "train/rows_per_second",
        "train/tokens",
        "train/image_reuse",
        "train/seconds",
    }
    assert expected <= stages["sft"].data.metrics.keys()
    assert {"train/rewards/margins", "train/rewards/chosen"} <= stages["dpo"].data.metrics.keys()
    (parent,) = (run for run in runs if run.data.tags.get("level") == "run")
    evaluation = files.read_json(lora / f"eval/{LORA}.json")
    final = evaluation["final_stage"]
    assert parent.data.tags["final_stage"] == final
    accuracy = evaluation["stages"][final]["overall"]["accuracy"]
    assert parent.data.metrics["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert {found.dataset.name for found in parent.inputs.dataset_inputs} >= {f"{LORA}/train", f"{LORA}/test"}
    assert "| accuracy, % | all |" in parent.data.tags["mlflow.note.content"]
    aliases = {model.name: model.aliases for model in client.search_registered_models()}[LORA]
    chosen, other = (
        client.get_model_version(LORA, str(aliases[alias])) for alias in ("champion", "candidate")
    )
    assert {chosen.tags["stage"], other.tags["stage"]} == {"sft", "dpo"}
    assert chosen.tags["path"] == f"{final}/{LORA}" and (lora / chosen.tags["path"]).is_dir()
    (score,) = client.get_logged_model(chosen.tags["logged_model"]).metrics
    assert (score.dataset_name, score.value) == (
        f"{LORA}/test",
        evaluation["stages"][final]["test_sets"]["slake"]["accuracy"],
    )
    # The rate that was used, where the configuration leaves it to the method too.
    assert [stages[name].data.params[f"{name}.learning_rate"] for name in ("sft", "dpo")] == [
        "0.002",
        "1e-05",
    ]
    artifacts = {entry.path for entry in client.list_artifacts(stages["evaluate"].info.run_id)}
    assert {"predictions.json", "predictions.parquet", "charts", "pages", "table_images", "logs"} <= artifacts
    charts = {entry.path for entry in client.list_artifacts(stages["evaluate"].info.run_id, "charts")}
    assert {"charts/accuracy.png", "charts/confusion_yes_no_slake.png"} <= charts


def test_the_evaluation_makes_itself_again_and_is_packed_with_the_report_of_snakemake(lora, tmp_path):
    told = files.read_value(lora / f"eval/{LORA}.json", "provenance")
    assert all(made["package"] and made["date"] <= told["made"]["date"] for made in told["stages"].values())
    assert (lora / f"config/{told['configuration_fingerprint']}.yaml").is_file()
    answer = lora.command("crate", "--run", LORA, "--output", str(tmp_path / "crate"), "--snakemake_report")
    assert answer.returncode == 0, answer.stderr
    assert b"rulegraph" in (tmp_path / "crate/snakemake-report.html").read_bytes()
    listed = files.read_json(tmp_path / "crate/ro-crate-metadata.json")["@graph"]
    assert {"snakemake-report.html", f"eval/{LORA}.json", "config.yaml"} <= {
        entity["@id"] for entity in listed
    }
    written = tmp_path / "again"
    done = subprocess.run(
        [sys.executable, "-m", "workflow_scripts.reproduce", f"results/eval/{LORA}.json", "--write", written],
        cwd=lora.folder, env=lora.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "source slake" not in done.stdout and "records" not in done.stdout, "the data is the same"
    planned = lora.snakemake(
        "-n", "--configfile", str(written / "config.yaml"), "--", f"results/eval/{LORA}.json"
    )
    assert "Nothing to be done" in planned.stdout + planned.stderr


def test_a_forced_training_is_not_done_again(lora):
    """Snakemake removes metrics.json before the job. The next test sees that nothing is left to be done."""
    metrics = lora / f"sft/{LORA}/metrics.json"
    before = metrics.read_bytes()
    forced = lora.snakemake("--forcerun", "sft", "--until", "sft", "--", f"results/eval/{LORA}.json")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    said = (lora / f"logs/sft/{LORA}.log").read_text()
    assert f"results/sft/{LORA}: trained already" in said and " step " not in said
    assert metrics.read_bytes() == before


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
def test_a_mistake_is_one_line_and_a_non_zero_status(start, preloaded, stage, arguments, expected):
    result = start(SHORT, python=preloaded).command(stage, *arguments)
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
