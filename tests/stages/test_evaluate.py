"""Scoring models: one in memory at a time, results that do not overwrite each other, and images that are found."""

import gc
import re
import shutil
import weakref
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from workflow_scripts import evaluate as command
from workflow_scripts import evaluation, run_experiments
from workflow_scripts.base import files, versions
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.evaluation import answers
from workflow_scripts.evaluation.generation.generator import Generator
from workflow_scripts.evaluation.table import table
from workflow_scripts.models import loading
from workflow_scripts.stages import ask, convert, download, evaluate, validate
from workflow_scripts.stages import run_experiments as experiments

SCHEMA = files.read_json(Path(evaluation.__file__).parent / "schema.json")
RUN = Run("rad", "4.1v", "base")
SETTINGS = """
datasets: {rad: {reader: rad, embedded: 10}}
models: {4.1v: {base: {embedded: true}}}
evaluation: {max_new_tokens: 8, max_validation_rows: 4, gpus: 0}
tracking: []
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Results with data, an untrained model, and copies of it in the places of the SFT and the DPO model."""
    root = tmp_path_factory.mktemp("evaluate")
    (root / "config.yaml").write_text(SETTINGS)
    settings, layout = load([root / "config.yaml"]), Layout(root / "results")
    download.download_source(settings, layout, "rad")
    download.download_model(settings, layout, RUN.model_version, RUN.mode)
    convert.convert(settings, layout, RUN)
    validate.validate(settings, layout, RUN)
    for stage in ("sft", "dpo"):
        shutil.copytree(layout.model(RUN.model_version, RUN.mode), layout.trained(stage, RUN))
        metrics = {"run": str(RUN), "method": "full", "fingerprint": stage, "seconds": 1.0}
        files.write_json(layout.trained(stage, RUN) / "metrics.json", metrics)
    return ["--config", str(root / "config.yaml"), "--results", str(layout.root)]


@pytest.fixture
def layout(flags):
    return Layout(Path(flags[-1]))


def asked(settings, layout, **changes):
    """Ask what the evaluation needs; returns what was asked now, by line."""
    settings = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=changes)})
    return {
        line: ask.ask(settings, layout, RUN, model, variant)["asked_now"]
        for line, (model, variant) in settings.evaluation.asked.items()
    }


def test_one_model_is_in_memory_at_a_time_and_none_to_score(flags, layout, monkeypatch):
    loaded, alive_at_load = [], []
    load_model = loading.model

    def watched(*arguments, **options):
        gc.collect()
        alive_at_load.append(sum(reference() is not None for reference in loaded))
        model = load_model(*arguments, **options)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(loading, "model", watched)
    settings = load([Path(flags[1])])
    shutil.rmtree(layout.root / "answers", ignore_errors=True)
    now = asked(settings, layout)
    # The copies are one model: what the first of them was asked, the second is not.
    assert now["untrained"] and now["sft"] and now["dpo"] == 0 and now["blank_image"] == now["untrained"]
    assert alive_at_load == [0] * 4
    evaluation = evaluate.evaluate(settings, layout, RUN)
    assert len(loaded) == 4 and all(reference() is None for reference in loaded)
    written = files.read_json(layout.evaluation(RUN))
    jsonschema.validate(written, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert evaluation["final_stage"] == "sft"  # the copies are equally good
    stages = [evaluation["stages"][stage]["overall"] for stage in ("untrained", "sft", "dpo")]
    assert stages[1] == stages[2] and stages[0]["n"] == stages[1]["n"] > 0


def test_nothing_is_asked_twice_and_what_changes_answers_asks_again(flags, layout):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    assert not any(asked(settings, layout).values())
    assert not any(asked(settings, layout, tokens_per_batch=500).values())
    again = asked(settings, layout, max_new_tokens=6)
    assert again["untrained"] and again["sft"] and again["shuffled_image"]
    assert not any(asked(settings, layout).values())  # what was kept of before is still there


def test_other_weights_are_asked_again(flags, layout):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    weights = layout.trained("dpo", RUN) / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 0.01
    kept = weights.read_bytes()
    save_file(tensors, weights, {"format": "pt"})
    assert ask.ask(settings, layout, RUN, "dpo", "original")["asked_now"]
    weights.write_bytes(kept)
    assert not ask.ask(settings, layout, RUN, "dpo", "original")["asked_now"]


def test_the_untrained_model_is_instructed_and_read_leniently_and_it_is_said_so(flags, layout, monkeypatch):
    prompts = []
    stream = Generator.stream

    def heard(self, records, *arguments, **options):
        prompts.append([record["messages"] for record in records])
        return stream(self, records, *arguments, **options)

    monkeypatch.setattr(Generator, "stream", heard)
    shutil.rmtree(layout.root / "answers", ignore_errors=True)
    settings = load([Path(flags[1])])
    asked(settings, layout)
    evaluation = evaluate.evaluate(settings, layout, RUN)
    told = evaluation["model"]["asked"]
    assert {stage: told[stage]["reading"] for stage in told} == {
        "untrained": "lenient",
        "sft": "by the trained form",
        "dpo": "by the trained form",
    }
    assert told["sft"]["instruction"] is None
    for language in told["untrained"]["instruction"].values():
        assert all(language)
    english = tuple(told["untrained"]["instruction"]["en"])
    assert all(messages[-1]["content"].endswith(english) for messages in prompts[0])
    assert not any(messages[-2]["content"].endswith(english) for messages in prompts[1])
    assert evaluation["model"]["generation_config"] == {}
    assert "before training, instructed" in table(evaluation)


def test_the_page_and_the_table_are_of_the_predictions(flags, layout):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    evaluation = evaluate.evaluate(settings, layout, RUN)
    rows = list(files.read_jsonl(layout.predictions(RUN)))
    found = pq.read_table(layout.scores(RUN)).to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    for stage in ("untrained", "sft", "blank_image"):
        strict = [row["strict"] for row in found if row["stage"] == stage]
        scores = evaluation["groups"][stage]["overall"]["all"]["score"]
        assert len(strict) == scores["n"] and sum(strict) / len(strict) == pytest.approx(scores["value"])
    assert len({row["cluster"] for row in found}) == evaluation["resolution"]["clusters"]
    page = layout.evaluation_page(RUN)
    text = page.read_text("utf-8")
    linked = set(re.findall(r'href="(\.[^"#]*|predictions[^"#]*)"', text))
    assert len(linked) == 5 and "../../report/index.html" in linked  # which the report stage makes
    assert (page.parent / f"../../data/{RUN}/validation.html").is_file()
    assert "data:image/webp" in text and str(RUN) in text


def test_answers_of_other_data_are_not_scored(flags, layout):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    path = layout.answers(RUN, "dpo", "original")
    rows, summary = list(files.read_jsonl(path)), files.read_json(path.with_suffix(".json"))
    answers.write(path, rows[1:], summary)
    with pytest.raises(
        UserError, match=r"dpo\.original\.jsonl: has no answer to 1 of \d+ questions, such as rad"
    ):
        evaluate.evaluate(settings, layout, RUN)
    answers.write(path, rows, summary)


def test_answers_and_summary_that_a_kill_came_between_are_noticed_and_written_anew(flags, layout):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    path = layout.answers(RUN, "dpo", "original")
    files.write_jsonl(path, [row | {"text": "newer"} for row in files.read_jsonl(path)])
    for command_of in (evaluate.evaluate, lambda *names: ask.ask(*names, "final", "blank")):
        with pytest.raises(
            UserError, match=r"dpo\.original\.jsonl: not the answers that dpo\.original\.json.*ask`"
        ):
            command_of(settings, layout, RUN)
    assert ask.ask(settings, layout, RUN, "dpo", "original")["asked_now"] == 0
    evaluate.evaluate(settings, layout, RUN)


def test_each_summary_is_read_once(flags, layout, monkeypatch):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    read, read_object = [], files.read_object
    monkeypatch.setattr(
        files, "read_object", lambda path, *keys: read.append(path) or read_object(path, *keys)
    )
    evaluate.evaluate(settings, layout, RUN)
    summaries = [path for path in read if path.parent == layout.answers(RUN, "dpo", "original").parent]
    assert len(summaries) == len(set(summaries)) == len(settings.evaluation.asked)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_fingerprint": "other"}, "the model is another one since"),
        ({"data_fingerprint": "other"}, "the data is another one since"),
        ({"model": "dpo", "model_fingerprint": "dpo"}, "answers of dpo, and sft is the final model"),
        ({"seed": 1}, "exchanged by seed 1, and it is 42"),
    ],
)
def test_answers_of_before_are_not_scored(flags, layout, change, said):
    settings = load([Path(flags[1])])
    asked(settings, layout)
    path = layout.answers(RUN, "final", "shuffled").with_suffix(".json")
    before = files.read_json(path)
    files.write_json(path, before | change)
    with pytest.raises(UserError, match=f"final.shuffled.jsonl: .*{said}"):
        evaluate.evaluate(settings, layout, RUN)
    files.write_json(path, before)


def test_models_of_two_stages_are_scored_by_their_paths_alone(flags, layout, capsys):
    for stage in ("sft", "dpo"):
        path = layout.trained(stage, RUN)
        assert command.main([*flags, "--model_path", str(path), "--test_datasets", "rad"]) == 0
    for stage in ("sft", "dpo"):
        scores = layout.root / "eval" / "models" / stage / f"{RUN}.json"
        result = files.read_json(scores)
        assert result["model_path"] == str(layout.trained(stage, RUN)) and result["mode"] == "base"
        assert result["generation_config"] == {"rad": {}}  # by set; the stand-in has none of its own
        rows = list(files.read_jsonl(scores.with_suffix(".predictions.jsonl")))
        assert len(rows) == result["overall"]["n"]
        assert all((scores.parent / row["image"]).is_file() for row in rows)


def test_a_model_from_elsewhere_is_named_after_its_whole_path(flags, layout, tmp_path, capsys):
    shutil.copytree(layout.trained("sft", RUN), tmp_path / "best")
    assert command.main([*flags, "--model_path", str(tmp_path / "best")]) == 0
    place = (tmp_path / "best.json").relative_to("/")
    assert files.read_json(layout.root / "eval" / "models" / place)["model_version"] == "4.1v"


def test_all_models_of_a_folder_have_a_summary_of_their_own(flags, layout):
    for stage in ("sft", "dpo"):
        models = ["--models_dir", str(layout.root / stage)]
        assert run_experiments.main([*flags, "--mode", "evaluate", *models]) == 0
    summaries = [
        files.read_json(layout.root / "eval" / "models" / f"{stage}.json") for stage in ("sft", "dpo")
    ]
    one = files.read_json(layout.root / "eval" / "models" / "sft" / f"{RUN}.json")
    assert summaries == [{str(RUN): one["overall"]}] * 2


def test_a_summary_marks_models_of_a_try(flags, layout, tmp_path, monkeypatch):
    made = {"overall": {"n": 4, "accuracy": 0.5}, "versions": versions.RESULTS, "limit": 4}
    monkeypatch.setattr(experiments, "evaluate_model", lambda *_: made)
    arguments = ["--mode", "evaluate", "--models_dir", str(layout.root / "sft"), "--limit", "4"]
    assert run_experiments.main([*flags, *arguments, "--output", str(tmp_path / "all.json")]) == 0
    assert files.read_json(tmp_path / "all.json") == {str(RUN): {**made["overall"], "limit": 4}}


def test_a_summary_marks_models_of_other_versions(flags, layout, tmp_path, caplog):
    for name in ("today", "before"):
        folder = tmp_path / "models" / name
        # Without the manifest of the download it was copied from.
        shutil.copytree(layout.trained("sft", RUN), folder, ignore=shutil.ignore_patterns("manifest.json"))
        version = {"stage": "sft", "version": 0 if name == "before" else versions.RESULTS["sft"]}
        files.write_json(folder / "metrics.json", files.read_json(folder / "metrics.json") | version)
    arguments = ["--mode", "evaluate", "--models_dir", str(tmp_path / "models")]
    assert run_experiments.main([*flags, *arguments]) == 0
    place = (tmp_path / "models.json").relative_to("/")
    summary = files.read_json(layout.root / "eval" / "models" / place)
    marked = f"sft 0 (now {versions.RESULTS['sft']})"
    assert summary["before"]["other_versions"] == marked and "other_versions" not in summary["today"]
    assert f"before: made by another version of the code: {marked}" in caplog.text
