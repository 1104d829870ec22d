"""Fused adapters and elementwise steps against peft's and transformers' own."""

from copy import deepcopy

import pytest
import torch
from peft import get_peft_model

from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading, standins
from workflow_scripts.models.catalogue import VERSIONS
from workflow_scripts.training.engine import fused
from workflow_scripts.training.trainers.base import keep_in_fp32


def adapted(dropout: float = 0.0, dtype: torch.dtype = torch.float32):
    """The stand-in of 4.1V with an adapter that says something."""
    torch.manual_seed(0)
    model = standins.pretrained_model(VERSIONS["4.1v"]).to(dtype)
    wanted = Lora(rank=4, dropout=dropout, peft={"init_lora_weights": False})
    model = get_peft_model(model, adapters.lora_config(model, wanted))
    keep_in_fp32(model)
    return model.train()


def passed(model, bf16: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the text layers, and all gradients of a function of them as one vector."""
    torch.manual_seed(1)
    text = loading.backbone(model).language_model
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = text(input_ids=torch.arange(40).view(2, 20)).last_hidden_state
    weights = torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
    (hidden.float() * weights).sum().backward()
    found = [value.grad.flatten() for value in model.parameters() if value.grad is not None]
    return hidden.detach().float(), torch.cat(found)


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters_come_to_what_pefts_come_to(dropout):
    plain = adapted(dropout)
    ours = deepcopy(plain)
    fused.fuse_adapters(ours)
    for found, true in zip(passed(ours), passed(plain), strict=True):
        assert error(found, true) < 1e-4  # fp32, after four layers
    with torch.no_grad(), plain.disable_adapter(), ours.disable_adapter():
        ids = torch.arange(20)[None]
        states = [loading.backbone(each).language_model(input_ids=ids)[0] for each in (ours, plain)]
    assert torch.equal(*states)


def test_in_bf16_they_are_no_further_from_fp32():
    exact = passed(adapted())
    half = adapted(dtype=torch.bfloat16)
    ours = deepcopy(half)
    fused.fuse_adapters(ours)
    for found, theirs, true in zip(passed(ours, True), passed(half, True), exact, strict=True):
        assert error(found, true) < 1.2 * error(theirs, true)


def test_elementwise_steps_come_to_the_same():
    plain = adapted()
    ours = deepcopy(plain)
    fused.fuse_elementwise(ours)
    with torch.compiler.set_stance("force_eager"):
        found = passed(ours)
    for ours_found, true in zip(found, passed(plain), strict=True):
        assert error(ours_found, true) < 1e-6
