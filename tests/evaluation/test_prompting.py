"""A model that LLaMA-Factory's prompts trained is asked by them and read; ours never is asked by others'."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

from workflow_scripts import evaluate as command
from workflow_scripts import run_experiments
from workflow_scripts.base import files
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.evaluation import asking
from workflow_scripts.evaluation.prompting import TRIED_ROWS
from workflow_scripts.evaluation.questions import question_of
from workflow_scripts.models import loading, pixels, processors, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.stages import ask, convert, download

RUN = Run("slake", "4.1v", "base")
VERSION = VERSIONS[RUN.model_version]
LLAMA_FACTORYS = Path(__file__).parents[1] / "models/foreign/llamafactory-0.9.5/glm4v/whole"
LEARNT = "<answer>CT</answer>"
SETTINGS = """
datasets: {slake: {reader: slake, embedded: 12}}
models: {4.1v: {base: {embedded: true}}}
evaluation: {max_new_tokens: 12, gpus: 0, tokens_per_batch: 4096, max_validation_rows: 4}
tracking: []
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(configuration, layout, models): a converted set, and a model that LLaMA-Factory's way of training made.

    It has learnt by heart to write the empty thought and the answer "CT" after LLaMA-Factory's prompt.
    """
    root = tmp_path_factory.mktemp("prompting")
    (root / "config.yaml").write_text(SETTINGS)
    settings, layout = load([root / "config.yaml"]), Layout(root / "results")
    download.download_source(settings, layout, RUN.dataset)
    download.download_model(settings, layout, RUN.model_version, RUN.mode)
    convert.convert(settings, layout, RUN)
    target = root / "models/slake_4.1v_base"
    trained(layout, target)
    return root / "config.yaml", layout, target


def trained(layout: Layout, target: Path) -> None:
    torch.manual_seed(1)
    model = loading.model(layout.model(RUN.model_version, RUN.mode), torch.float32, torch.device("cpu"))
    processor = processors.load(layout.model(RUN.model_version, RUN.mode), VERSION, 112)
    dialogue = Dialogue(processor, RUN.model_version, RUN.mode)
    shown, rows = pixels.Pixels(processor.image_processor), []
    completion = dialogue.tokens("<think>\n\n</think>\n\n") + dialogue.tokens(
        "\n<answer>CT</answer><|endoftext|>"
    )
    for record in list(files.read_jsonl(layout.split(RUN, "train")))[:12:3]:
        prompt = dialogue.prompt(question_of(record)).removesuffix(
            "\n"
        )  # LLaMA-Factory's ends in <|assistant|>
        rows.append((dialogue.tokens(prompt) + completion, image_paths(record["images"], layout.data(RUN))))
    inputs = pixels.batch(rows, processor, shown)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -len(completion) :] = inputs["input_ids"][:, -len(completion) :]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    model.save_pretrained(target)
    processor.save_pretrained(target)
    shutil.copyfile(LLAMA_FACTORYS / "chat_template.jinja", target / "chat_template.jinja")
    shutil.copyfile(standins.FOLDER / "tokenizer.json", target / "tokenizer.json")


def flags(made, output: Path) -> list[str]:
    config, layout, _ = made
    names = ["--model_version", "4.1v", "--mode", "base", "--test_datasets", "slake"]
    return ["--config", str(config), "--results", str(layout.root), "--output", str(output), *names]


def lines(layout: Layout) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in layout.kept_answers().rglob("*.jsonl"))


def test_a_foreign_model_is_asked_as_it_was_trained_and_read(made, tmp_path, caplog):
    *_, layout, model = made
    with caplog.at_level(logging.INFO):
        assert command.main([*flags(made, tmp_path / "a.json"), "--model_path", str(model)]) == 0
    result = files.read_json(tmp_path / "a.json")
    assert "answers to the prompts of llamafactory" in caplog.text
    assert result["asked"] | {"backend": ""} == {
        "instruction": None, "reading": "by the trained form", "prompt_style": "llamafactory", "backend": ""
    }  # fmt: skip
    rows = list(files.read_jsonl(tmp_path / "a.predictions.jsonl"))
    assert {row["answer"] for row in rows} == {"CT"} and result["overall"]["unreadable"] == 0
    assert all(row["text"].startswith("<think>\n") and row["text"].endswith(LEARNT) for row in rows)
    # Recognised by its template, which all of the tried rows confirmed: they are not asked again.
    before = lines(layout)
    assert command.main([*flags(made, tmp_path / "a.json"), "--model_path", str(model)]) == 0
    assert lines(layout) == before


def test_where_no_file_tells_the_answers_decide(made, tmp_path, caplog):
    *_, model = made
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(VERSION.chat_template())
    with caplog.at_level(logging.INFO):
        assert command.main([*flags(made, tmp_path / "b.json"), "--model_path", str(tmp_path / "model")]) == 0
    told = files.read_json(tmp_path / "b.json")["asked"]["prompt_style"]
    assert files.read_json(tmp_path / "b.json")["overall"]["unreadable"] == 0
    assert f"answers to the prompts of {told}" in caplog.text and f"readable of {TRIED_ROWS}" in caplog.text


def test_the_flag_says_the_style_and_then_none_is_tried(made, tmp_path, caplog):
    *_, model = made
    said = ["--prompt_style", "ours", "--model_path", str(model)]
    with caplog.at_level(logging.INFO):
        assert command.main([*flags(made, tmp_path / "c.json"), *said]) == 0
    assert "trained elsewhere" not in caplog.text
    assert files.read_json(tmp_path / "c.json")["asked"]["prompt_style"] == "ours"


def test_a_model_of_ours_is_asked_in_our_style_alone(made, tmp_path, monkeypatch):
    _, layout, model = made
    own = tmp_path / "slake_4.1v_base"
    shutil.copytree(model, own)
    (own / "metrics.json").write_text('{"stage": "sft", "run": "slake_4.1v_base", "version": 1}')
    styles = []
    original = asking.ask
    monkeypatch.setattr(
        asking, "ask", lambda examiner, *rest: styles.append(examiner.style.name) or original(examiner, *rest)
    )
    flags_of_all = [
        "--config",
        str(made[0]),
        "--results",
        str(layout.root),
        "--output",
        str(tmp_path / "d.json"),
    ]
    arguments = [*flags_of_all, "--mode", "evaluate", "--models_dir", str(tmp_path)]
    assert run_experiments.main(arguments) == 0
    assert styles == ["ours"]
    assert files.read_json(layout.model_evaluation(own))["asked"]["reading"] == "by the trained form"


def test_a_foreign_model_in_the_chain_is_read_by_its_style(made):
    config, layout, model = made
    shutil.copytree(model, layout.trained("sft", RUN))
    summary = ask.ask(load([config]), layout, RUN, "sft", "original")
    assert summary["asked"]["prompt_style"] == "llamafactory"
    rows = list(files.read_jsonl(layout.answers(RUN, "sft", "original")))
    assert all(row["text"].startswith("<think>\n") and row["text"].endswith(LEARNT) for row in rows)


@pytest.mark.slow
def test_a_foreign_model_that_never_writes_the_form_is_read_leniently(made, tmp_path, caplog):
    bare = tmp_path / "model"
    torch.manual_seed(1)
    standins.untrained_model(VERSION).save_pretrained(bare)
    standins.processor(VERSION).save_pretrained(bare)
    with caplog.at_level(logging.WARNING):
        assert command.main([*flags(made, tmp_path / "e.json"), "--model_path", str(bare)]) == 0
    assert "writes our form in no style" in caplog.text
    assert files.read_json(tmp_path / "e.json")["asked"]["reading"] == "lenient"
