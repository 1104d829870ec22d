"""The lines before a training say what will be trained, and estimate its memory."""

import logging
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from test_engine import sft as sft_trainer
from transformers import TrainerCallback

from workflow_scripts.base import files
from workflow_scripts.configuration.settings import Lora, Sft
from workflow_scripts.models import adapters, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.training import activations, summary
from workflow_scripts.training import model as trained_model
from workflow_scripts.training.activations import Kept
from workflow_scripts.training.data import schedule
from workflow_scripts.training.data.batching import RowCost
from workflow_scripts.training.model import start

ROWS = [RowCost(image, ((image, 16),), 20, 36) for image in "abc" for _ in range(8)]


def planned(settings: Sft) -> schedule.Schedule:
    return schedule.make(settings, ROWS, seed=1, equal=False)


def adapted(version: str, vision: bool = False):
    model = standins.untrained_model(VERSIONS[version])
    return get_peft_model(model, adapters.lora_config(model, Lora(rank=2, dropout=0.0, vision=vision)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("vision", [False, True])
def test_parameters_are_those_of_peft(version, vision):
    model = adapted(version, vision)
    found = summary.parameters(model)
    trained, total = model.get_nb_trainable_parameters()
    assert sum(entry[0] for entry in found.values()) == total
    assert sum(entry[1] for entry in found.values()) == found["adapter"][1] == trained > 0
    assert found["merger"][0] == sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if "visual.merger." in name and "lora_" not in name
    )


def test_each_projection_is_counted():
    dense = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"), 4)
    assert summary.adapter_targets(adapted("4.1v")) == {"language model": dense}
    found = summary.adapter_targets(adapted("4.5v", vision=True))
    assert found["language model"]["down_proj"] == 4 and found["vision"]["qkv"] == 2
    assert found["merger"]["gate_proj"] == 1


def test_memory_of_full_training_and_what_strategies_divide():
    settings = Sft(method="full", gpus=0)
    model = standins.untrained_model(VERSIONS["4.1v"])
    for parameter in model.model.visual.parameters():
        parameter.requires_grad_(False)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    trained = 4 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = summary.memory(model, None, start(Path(), settings), planned(settings), processes=1)
    assert (found["weights"], found["gradients"], found["optimiser"]) == (weights, trained, 2 * trained)
    layer = activations.of_text_layer(model.config.text_config, Kept(value=4, whole=True))
    assert found["activations"] == planned(settings).peak.tokens * 4 * layer

    sharded = settings.model_copy(update={"strategy": "zero2"})
    found = summary.memory(model, None, start(Path(), sharded), planned(settings), processes=2)
    assert (found["weights"], found["gradients"], found["optimiser"]) == (weights, trained / 2, trained)


def test_recomputing_takes_less():
    model, settings = adapted("4.1v"), Sft(gpus=0)
    kept, some, none = (
        summary.memory(model, every, start(Path(), settings), planned(settings), processes=1)["activations"]
        for every in (None, 3, 1)
    )
    tokens, stream = planned(settings).peak.tokens, 4 * 128
    layer = activations.of_text_layer(model.config.text_config, Kept(value=4, rank=2))
    assert kept == tokens * 4 * layer
    assert some == tokens * (2 * layer + 2 * stream + layer)  # of four layers, two are recomputed
    assert none == tokens * (4 * stream + layer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "trained weights fp32, frozen weights bf16, computed under bf16 autocast"),
        ({"strategy": "fsdp"}, "trained weights fp32, frozen weights bf16, cast to bf16 by FSDP"),
        ({"method": "full"}, "trained weights fp32, frozen weights fp32, computed under bf16 autocast"),
        ({"method": "full", "freeze_vision": False}, "trained weights fp32, computed under bf16 autocast"),
        (
            {"method": "full", "strategy": "zero2"},
            "all weights bf16, steps on DeepSpeed's copies in fp32 of those that train, computed in bf16",
        ),
        ({"method": "full", "precision": "fp32"}, "all weights fp32, computed in fp32"),
    ],
)
def test_the_types_are_said(tmp_path, changes, said):
    """Of the model as it is loaded for its method, with a new adapter as the trainers put it on."""
    standins.save(VERSIONS["4.1v"], "base", tmp_path)
    settings = Sft(gpus=0, **{"precision": "bf16", "lora": Lora(rank=2), **changes})
    begun = start(tmp_path, settings)
    model, lora = trained_model.load(begun, settings)
    trained = get_peft_model(model, lora) if lora else model
    told = summary.lines(trained, settings, begun, planned(settings), 1, None)
    assert told[1] == f"types       {said}"


def test_what_is_said_of_an_adapter_holds_in_a_step(corpus, tmp_path):
    """Products are bf16 by autocast; the weights that step, their gradients and moments are fp32 over a base in bf16."""
    trainer = sft_trainer(corpus, tmp_path, "lora", bf16=True, max_steps=1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    seen = Seen()
    trainer.add_callback(seen)
    layer = next(module for module in trainer.model.modules() if isinstance(module, LoraLayer))
    layer.register_forward_hook(
        lambda _, inputs, output: seen.types.add((torch.is_autocast_enabled("cpu"), output.dtype))
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert seen.types == {(True, torch.bfloat16)}
    assert seen.gradients == {torch.float32}
    trained = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert any(not value.equal(before[name]) for name, value in trained.items())
    moments = [state["exp_avg"].dtype for state in trainer.optimizer.state.values()]
    assert set(moments) == {torch.float32} and len(moments) == len(trained)


class Seen(TrainerCallback):
    """What a step was computed in, and the types of its gradients."""

    def __init__(self):
        self.types, self.gradients = set(), set()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients |= {value.grad.dtype for value in model.parameters() if value.grad is not None}


def test_the_lines_of_a_stage(workplace, caplog):
    workplace.settings.sft.lora.vision, workplace.settings.sft.merger_learning_rate = True, 3e-5
    with caplog.at_level(logging.INFO):
        metrics = sft(workplace.settings, workplace.layout, workplace.run, workplace.model)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("training.run")]
    lines = {line[:12].strip() or line[12:].split("  ")[0]: line[12:] for line in said}
    assert lines["device"] == "cpu, fp32, ddp, 1 process(es)"
    assert lines["types"] == "all weights fp32, computed in fp32"
    assert lines["adapter"].split() == [
        "adapter", f"{metrics['trainable_parameters']:,}", f"{metrics['trainable_parameters']:,}", "trained",
    ]  # fmt: skip
    assert lines["rates"] == "1.0e-04 (default for lora, as ms-swift's), merger 3.0e-05"
    rows, steps = metrics["train_rows"], metrics["steps"]
    assert lines["training"] == f"{rows} rows, 2 epoch(s), {steps} steps"
    assert lines["batch"].startswith(f"{2 * rows / steps:.1f} rows a step (")
    assert f"an image serves {metrics['image_reuse']:.1f} rows" in lines["tokens"]
    assert "iB a process, an estimate: weights" in lines["memory"]
    assert files.read_json(workplace.layout.trained("sft", workplace.run) / "metrics.json") == metrics
