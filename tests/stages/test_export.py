"""An export of a run: what is in it, when it is refused, and that nothing leaves the machine unasked."""

import io
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model

from workflow_scripts import export as command
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.base.paths import Layout, Run
from workflow_scripts.configuration.reading import load
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, bases, loading
from workflow_scripts.stages import ask, convert, download, evaluate, export, push, validate

RUN = Run("rad", "4.1v", "thinking")
SETTINGS = """
datasets: {rad: {reader: rad, embedded: 10, licence: CC0}}
models: {4.1v: {thinking: {embedded: true}}}
evaluation: {max_new_tokens: 4, max_validation_rows: 2, gpus: 0}
tracking: []
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Results of a run with adapters that were not trained."""
    root = tmp_path_factory.mktemp("export")
    (root / "config.yaml").write_text(SETTINGS)
    settings, layout = load([root / "config.yaml"]), Layout(root / "results")
    download.download_source(settings, layout, "rad")
    download.download_model(settings, layout, RUN.model_version, RUN.mode)
    convert.convert(settings, layout, RUN)
    validate.validate(settings, layout, RUN)
    for stage in ("sft", "dpo"):
        adapt(layout, stage, vision=stage == "dpo")
    for model, variant in settings.evaluation.asked.values():
        ask.ask(settings, layout, RUN, model, variant)
    evaluate.evaluate(settings, layout, RUN)
    return SimpleNamespace(
        settings=settings,
        layout=layout,
        flags=["--config", str(root / "config.yaml"), "--results", str(layout.root), *run_flags()],
    )


def run_flags():
    return ["--dataset", RUN.dataset, "--model_version", RUN.model_version, "--mode", RUN.mode]


def adapt(layout, stage, vision):
    base, folder = layout.model(RUN.model_version, RUN.mode), layout.trained(stage, RUN)
    model = loading.model(base, torch.float32, torch.device("cpu"))
    adapted = get_peft_model(model, adapters.lora_config(model, Lora(rank=2, dropout=0.0, vision=vision)))
    adapted.save_pretrained(folder)
    loading.name_base(folder, base)
    for path in base.iterdir():
        if path.name.startswith(("tokenizer", "processor", "chat_template")):
            shutil.copy(path, folder)
    metrics = {"run": str(RUN), "stage": stage, "method": "lora", "fingerprint": stage, "seconds": 1.0}
    files.write_json(folder / "metrics.json", metrics)


def test_the_model_that_evaluation_chose_is_exported_merged(place):
    assert command.main(place.flags) == 0
    folder = place.layout.exported(RUN)
    assert {path.name for path in folder.iterdir()} >= {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not bases.is_adapter(folder)
    card = (folder / "README.md").read_text()
    assert (
        "after SFT, trained by LoRA of rank 2 from a tiny stand-in" in card
        and "| rad | drawn phantoms | CC0 |" in card
    )
    assert "<think>…</think><answer>CT</answer>" in card and "None" not in card


def test_the_card_of_a_model_of_a_try_says_so(place):
    path = place.layout.evaluation(RUN)
    whole = files.read_json(path)
    files.write_json(path, {**whole, "limit": 32})
    card = (export.export(place.settings, place.layout, RUN, "sft", adapter=True) / "README.md").read_text()
    files.write_json(path, whole)
    assert "**A try of the chain on at most 32 rows" in card and "(a try, limit 32)" in card


def test_an_adapter_goes_alone_where_vllm_serves_all_of_it(place, caplog):
    """The card names a rank that vLLM has: there is none between 1 and 8."""
    folder = export.export(place.settings, place.layout, RUN, "sft", adapter=True)
    assert bases.is_adapter(folder) and not (folder / "model.safetensors").exists()
    assert "--enable-lora --max-lora-rank 8 " in (folder / "README.md").read_text()
    folder = export.export(place.settings, place.layout, RUN, "dpo", adapter=True)
    assert not bases.is_adapter(folder) and "merged into its base instead" in caplog.text
    assert "also on the vision tower" in (folder / "README.md").read_text()


def test_without_figures_nothing_is_exported(place, tmp_path):
    layout = Layout(tmp_path / "results")
    shutil.copytree(place.layout.root, layout.root, symlinks=True)
    layout.evaluation(RUN).unlink()
    shutil.rmtree(layout.exported(RUN), ignore_errors=True)
    with pytest.raises(UserError, match="evaluate the run first"):
        export.export(place.settings, layout, RUN)
    assert not layout.exported(RUN).exists()


def test_nothing_is_uploaded_where_nobody_was_asked(place, monkeypatch, capsys):
    folder = export.export(place.settings, place.layout, RUN)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match="nothing was uploaded; add --yes"):
        push.push(folder, "user/name", sure=False)
    listed = capsys.readouterr().out
    assert "README.md" in listed and "model.safetensors" in listed
    assert not any(word in listed for word in ("train.jsonl", "imgs", ".png", ".jpg"))


@pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # huggingface_hub 2.4, of its HTTP library
def test_an_upload_is_the_export_and_nothing_else(place, hub):
    hub.part = 10**8
    assert command.main([*place.flags, "--push", "user/name", "--yes"]) == 0
    folder = place.layout.exported(RUN)
    assert hub.repositories["user/name"].files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repositories["user/name"].private
    records = place.layout.split(RUN, "train").read_text().splitlines()
    assert not any(record.encode() in hub.received for record in records)
