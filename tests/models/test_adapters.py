"""LoRA hits every projection of the text layers, and nothing of the vision tower unless asked."""

import re

import pytest
from peft import get_peft_model

from workflow_scripts.base.errors import UserError
from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import standins
from workflow_scripts.models.adapters import lora_config, targets
from workflow_scripts.models.catalogue import VERSIONS

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
EXPECTED = {
    "glm4v": {(layer, name) for layer in range(4) for name in ATTENTION | {"gate_up_proj", "down_proj"}},
    "glm4v_moe": {
        (layer, name) for layer in range(4) for name in ATTENTION | {"gate_proj", "up_proj", "down_proj"}
    },
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("vision", [False, True])
def test_which_modules_get_an_adapter(version, vision):
    settings = Lora(rank=2, vision=vision)
    model = standins.untrained_model(VERSIONS[version])
    names = targets([name for name, _ in model.named_modules()], vision)
    adapted = get_peft_model(model, lora_config(model, settings))
    hit = {
        re.sub(r"(\.base_layer)*\.lora_A.*", "", name)
        for name, _ in adapted.named_parameters()
        if "lora_A" in name
    }
    assert {name.removeprefix("base_model.model.") for name in hit} == set(names)

    text = {
        (int(re.search(r"layers\.(\d+)\.", name)[1]), name.split(".")[-1])
        for name in hit
        if "language_model" in name
    }
    assert text == EXPECTED[VERSIONS[version].architecture]
    assert not any(
        ".gate." in name or name.endswith(".gate") or ".experts." in name.replace("shared_experts", "")
        for name in hit
    )
    assert any("visual" in name for name in hit) == vision
    assert not any("lm_head" in name or "embed" in name for name in hit)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(UserError, match="no text projection"):
        targets(["transformer.h.0.attn.c_attn"], vision=False)


def test_an_moe_is_adapted_without_dropout_and_it_is_said(caplog):
    with caplog.at_level("INFO"):
        config = lora_config(standins.untrained_model(VERSIONS["4.5v"]), Lora(rank=2, dropout=0.1))
    assert config.lora_dropout == 0
    assert len([line for line in caplog.messages if "LoRA dropout is 0 on an MoE" in line]) == 1
