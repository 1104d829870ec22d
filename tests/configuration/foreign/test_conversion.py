"""Files of LLaMA-Factory and ms-swift become configurations that are valid here, and no key is passed over in silence."""

import json
from dataclasses import fields

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from workflow_scripts import migrate
from workflow_scripts.base import files
from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration import overlay, reading
from workflow_scripts.configuration.foreign import conversion, meanings
from workflow_scripts.configuration.foreign.trainers import TRAINERS
from workflow_scripts.configuration.settings import Config

LLAMA_FACTORY = """
model_name_or_path: zai-org/GLM-4.1V-9B-Thinking
image_max_pixels: 262144
stage: sft
finetuning_type: lora
lora_rank: 16
lora_target: all
dataset: scans, notes_2
dataset_dir: sets
media_dir: sets/pictures
mix_strategy: interleave_under
interleave_probs: 0.75,0.25
template: glm4v
cutoff_len: 2048
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
num_train_epochs: 2.0
bf16: true
deepspeed: examples/deepspeed/ds_z3_offload_config.json
val_size: 0.1
eval_strategy: steps
eval_steps: 50
report_to: wandb
resume_from_checkpoint: null
tomorrow: 1
"""
SWIFT = """
model: ZhipuAI/GLM-4.5V
rlhf_type: dpo
tuner_type: lora
torch_dtype: float16
max_pixels: 1003520
freeze_vit: false
freeze_aligner: false
beta: 0.2
loss_type: sigmoid
rpo_alpha: 0.5
quant_method: bnb
quant_bits: 4
lr_scheduler_type: cosine
"""


@pytest.fixture
def convert(tmp_path):
    def call(text: str, gpus: int = 1):
        (tmp_path / "theirs.yaml").write_text(text)
        return conversion.convert(tmp_path / "theirs.yaml", gpus)

    return call


@pytest.fixture
def sets(tmp_path):
    """What LLaMA-Factory's `dataset_dir` holds."""
    entries = {"scans": {"file_name": "scans.json"}, "notes_2": {"file_name": "notes.jsonl"}}
    files.write_json(tmp_path / "sets" / "dataset_info.json", entries)
    return tmp_path / "sets"


def test_a_file_of_llama_factory(convert, sets):
    found = convert(LLAMA_FACTORY, gpus=4)
    ours = found.configuration
    assert ours["sft"] == {
        "batch_size": 64, "gpus": 4, "epochs": 2.0, "method": "lora", "precision": "bf16", "strategy": "zero3_offload",
        "validation_steps": 50, "learning_rate": 5e-5, "warmup": 0.0, "trainer": {"lr_scheduler_type": "linear"},
        "lora": {"rank": 16, "alpha": 32, "dropout": 0.0},
    }  # fmt: skip
    assert ours["data"] == {"max_image_side": 512, "max_tokens": 2048, "validation_share": 0.1}
    pictures = {"reader": "custom", "images": str(sets / "pictures")}
    assert ours["datasets"] == {
        "scans": {**pictures, "path": str(sets / "scans.json")},
        "notes-2": {**pictures, "path": str(sets / "notes.jsonl")},
        "all": {"members": ["scans", "notes-2"], "weights": {"scans": 0.75, "notes-2": 0.25}},
    }
    assert ours["runs"] == [{"model_version": "4.1v", "mode": "thinking", "dataset": "all"}]
    assert ours["tracking"] == ["wandb"] and found.lost == ["tomorrow: 1: unknown here"]
    assert any(line.startswith("lora_alpha → sft.lora.alpha: 32") for line in found.assumed)


def test_a_file_of_ms_swift(convert):
    found = convert(SWIFT, gpus=2)
    ours = found.configuration["dpo"]
    assert ours["loss"] == {"sigmoid": 1.0, "sft": 0.5} and ours["beta"] == 0.2
    assert ours["lora"] == {"rank": 8, "alpha": 32, "dropout": 0.05, "vision": True, "quantize": "4bit"}
    assert ours["batch_size"] == 16 and ours["weight_decay"] == 0.1 and ours["trainer"]["adam_beta2"] == 0.95
    assert ours["learning_rate"] == 1e-4, "ms-swift's default for dpo too, ours is lower"
    assert found.configuration["data"]["max_image_side"] == 1001
    assert found.configuration["runs"] == [{"model_version": "4.5v", "mode": "thinking"}]
    assert any(line.startswith("torch_dtype: 'float16': training is in bf16 or fp32") for line in found.lost)


def test_pairs_are_told_where_they_go(convert, sets):
    found = convert(LLAMA_FACTORY.replace("stage: sft", "stage: dpo"))
    assert "datasets" not in found.configuration
    assert any("preferences: {files: {slake: [" in line and "scans.json" in line for line in found.lost)


def test_a_table_beside_the_file_is_a_set_and_a_name_of_a_hub_is_lost(convert, tmp_path):
    (tmp_path / "own.jsonl").write_text("{}")
    found = convert("model: x/GLM-4.1V-9B-Base\ndataset: ['own.jsonl#500', 'swift/self-cognition']\n")
    assert found.configuration["datasets"] == {
        "own": {"reader": "custom", "path": str(tmp_path / "own.jsonl")}
    }
    assert any("swift/self-cognition: neither in " in line for line in found.lost)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage: ppo\nmodel_name_or_path: x", "stage: 'ppo': this project trains by sft and by dpo"),
        ("model: x\nrlhf_type: grpo", "rlhf_type: 'grpo': this project"),
        ("seed: 1", "neither LLaMA-Factory's"),
        ("model: x\nper_device_train_batch_size: many", "a value of a kind that is not known"),
        ("model: x\nlearning_rate: -1", r"converted: 1 error\(s\)(.|\n)*sft.learning_rate"),
    ],
)
def test_what_cannot_be_converted_is_one_error(convert, text, said):
    with pytest.raises(UserError, match=said):
        convert(text)


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ("deepspeed: zero0", "strategy", "ddp"),
        ("deepspeed: examples/deepspeed/ds_z2_config.json", "strategy", "zero2"),
        ("fsdp: full_shard auto_wrap", "strategy", "fsdp"),
        ("disable_gradient_checkpointing: true", "gradient_checkpointing", False),
        ("early_stopping_steps: 3", "patience", 3),
        ("optim: adamw_bnb_8bit", "trainer", {"lr_scheduler_type": "linear", "optim": "adamw_bnb_8bit"}),
        ("use_dora: true", "lora", {"rank": 8, "dropout": 0.0, "alpha": 16, "peft": {"use_dora": True}}),
    ],
)  # fmt: skip
def test_single_keys(convert, line, path, value):
    found = convert(f"model_name_or_path: a/GLM-4.1V-9B-Base\n{line}\n")
    assert found.configuration["sft"][path] == value and found.lost == []


@pytest.mark.parametrize(
    "line",
    ["deepspeed: zero2_offload", "deepspeed: my.json", "lora_target: q_proj,v_proj", "pref_loss: orpo", "stage_of: 1",
     "quantization_bit: 8", "finetuning_type: freeze", "save_steps: 0.5", "report_to: swanlab", "val_size: 200",
     "freeze_vision_tower: false", "adapter_name_or_path: saves/x", "mask_history: true", "fp16: true"],
)  # fmt: skip
def test_what_has_no_counterpart_is_said_and_no_default_hides_it(convert, line):
    found = convert(f"model_name_or_path: a/GLM-4.1V-9B-Base\n{line}\n")
    key = line.partition(":")[0]
    assert any(key in said for said in found.lost)


TEXTS = st.lists(st.text(max_size=4), max_size=2)
VALUES = st.none() | st.booleans() | st.integers(-2, 64) | st.floats(0, 2) | st.text(max_size=6) | TEXTS


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.name)
@settings(max_examples=40)
@given(data=st.data())
def test_every_key_is_accounted_for_once_or_the_file_is_refused(trainer, data, tmp_path_factory):
    keys = st.sampled_from(sorted(trainer.rules.keys() | trainer.together | {"unheard_of"}))
    stated = {sorted(trainer.marks)[0]: "lora", **data.draw(st.dictionaries(keys, VALUES, max_size=6))}
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(json.dumps(stated))
    try:
        found = conversion.convert(path, 1)
    except UserError:
        return
    reading.validate(overlay.merge(Config().model_dump(mode="json"), found.configuration), where="here")
    told = [*found.lost, *found.moved, *found.needless]
    assert [
        key for key in trainer.rules.keys() & stated.keys() if not any(f"{key}: " in line for line in told)
    ] == []
    assert ("unheard_of" in stated) == any(line.startswith("unheard_of: ") for line in found.lost)


# What TrainingArguments had before transformers 5, and what both trainers add under one name.
OLDER = {"warmup_ratio", "logging_dir", "overwrite_output_dir", "group_by_length"}
ADDED = {"packing", "torch_dtype"}


def test_the_keys_of_transformers_are_its_own():
    known = {field.name for field in fields(TrainingArguments)}
    assert set(meanings.OF_TRANSFORMERS) - known == OLDER | ADDED


def test_the_command_prints_yaml_alone_and_the_account_beside_it(tmp_path, capsys, sets):
    (tmp_path / "theirs.yaml").write_text(LLAMA_FACTORY)
    assert migrate.main([str(tmp_path / "theirs.yaml")]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["sft"]["batch_size"] == 16
    assert err.startswith("has no counterpart:\n  tomorrow: 1: unknown here\n")
    assert migrate.main([str(tmp_path / "theirs.yaml"), "--output", str(tmp_path / "ours.yaml")]) == 0
    files.write_text(tmp_path / "config.yaml", yaml.safe_dump(Config().model_dump(mode="json")))
    assert reading.load([tmp_path / "config.yaml", tmp_path / "ours.yaml"]).sft.lora.rank == 16
