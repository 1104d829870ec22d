"""QLoRA and Liger: what is built for them, and what a user reads where they cannot be had."""

import pytest
import torch
from transformers.quantizers.quantizers_utils import should_convert_module

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Sft
from workflow_scripts.models import standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.stages.sft import stage as sft
from workflow_scripts.training import optional

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QLORA = Sft(lora={"quantize": "4bit"})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The optional distributions, as far as their metadata."""
    for package in (optional.BITSANDBYTES, optional.LIGER):
        name, version = package.split("==")
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_not_asked_for_nothing_is_needed():
    assert optional.four_bit(Sft(), "glm4v", CPU) is None
    assert optional.four_bit(Sft(method="full", lora={"quantize": "4bit"}), "glm4v", CPU) is None
    assert optional.liger(Sft(), CPU) == {}


def test_a_cpu_is_refused():
    with pytest.raises(UserError, match="lora.quantize: 4bit needs an NVIDIA GPU, and this runs on the cpu"):
        optional.four_bit(QLORA, "glm4v", CPU)
    with pytest.raises(UserError, match="liger: true needs an NVIDIA GPU"):
        optional.liger(Sft(liger=True), CPU)


@pytest.mark.parametrize("option", [{"lora": {"quantize": "4bit"}}, {"liger": True}])
def test_the_stage_refuses_before_it_trains(workplace, option):
    workplace.settings.sft = Sft.model_validate({**workplace.settings.sft.model_dump(), **option})
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        sft(workplace.settings, workplace.layout, workplace.run, workplace.model)


def test_a_package_that_is_not_there_is_named_with_its_version():
    with pytest.raises(UserError, match=r"x: 1 needs .* pip install no-such-thing==1\.2"):
        optional.require("x: 1", "no-such-thing==1.2", CUDA)


def test_qlora_stores_nf4_and_computes_in_bf16(installed):
    found = optional.four_bit(QLORA, "glm4v", CUDA)
    assert found.load_in_4bit and found.bnb_4bit_quant_type == "nf4"
    assert found.bnb_4bit_compute_dtype is torch.bfloat16


def test_qlora_takes_the_text_layers_and_nothing_else(installed):
    """By the rule that transformers itself applies to the names of linear layers."""
    skipped = optional.four_bit(QLORA, "glm4v", CUDA).llm_int8_skip_modules
    model = standins.untrained_model(VERSIONS["4.1v"])
    linear = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    taken = {name for name in linear if should_convert_module(name, skipped)}
    assert taken == {name for name in linear if ".language_model.layers." in name}
    assert len(linear) > len(taken) > 0


def test_qlora_refuses_an_moe_sharded_weights_and_fp32(installed):
    with pytest.raises(UserError, match="routed experts .* use strategy: zero3"):
        optional.four_bit(QLORA, "glm4v_moe", CUDA)
    with pytest.raises(UserError, match="cannot shard weights as strategy: zero3"):
        optional.four_bit(QLORA.model_copy(update={"strategy": "zero3"}), "glm4v", CUDA)
    with pytest.raises(UserError, match="computes in bf16; leave precision: fp32"):
        optional.four_bit(QLORA.model_copy(update={"precision": "fp32"}), "glm4v", CUDA)


def test_liger_leaves_the_fused_head_to_trl(installed):
    found = optional.liger(Sft(liger=True), CUDA)
    assert found["use_liger_kernel"] and not found["liger_kernel_config"].get("fused_linear_cross_entropy")


def test_ligers_norms_do_not_write_over_the_gradient_of_a_residual():
    norm, other = torch.nn.Identity(), torch.nn.ReLU(inplace=True)
    norm.in_place = True
    model = torch.nn.Sequential(norm, other)
    (callback,) = optional.callbacks(Sft(liger=True))
    callback.on_train_begin(None, None, None, model=model)
    assert norm.in_place is False and other.inplace
    assert optional.callbacks(Sft()) == []
