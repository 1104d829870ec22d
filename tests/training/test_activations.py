"""What layers of true width keep for the backward pass is what `activations` counts."""

import math
from typing import Any

import pytest
import torch
from peft import get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import AutoConfig, AutoModelForImageTextToText

from workflow_scripts.configuration.settings import Lora
from workflow_scripts.models import adapters, loading, sizes
from workflow_scripts.training import activations
from workflow_scripts.training.activations import Kept
from workflow_scripts.training.engine import fused
from workflow_scripts.training.trainers.base import keep_in_fp32

LAYERS, TOKENS, RANK = 2, 240, 16  # no weight has 240 of anything


def model(version: str, dtype: torch.dtype, **text: Any) -> Any:
    """Two text layers and two vision blocks of the published width, a small vocabulary, all weights zero."""
    published = sizes.stated(version)["config"]
    small = {"num_hidden_layers": LAYERS, "vocab_size": 1000, "pad_token_id": 0}
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
        "mrope_section": [8, 12, 12],
    }
    config = AutoConfig.for_model(
        model_type=published["model_type"],
        text_config=published["text_config"] | small | {"rope_parameters": rope} | text,
        vision_config=published["vision_config"] | {"depth": 2},
    )
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(config)
    made = made.to(dtype).to_empty(device="cpu")
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data.zero_()
    return made.train()


def adapted(made: Any, vision: bool = False) -> Any:
    wanted = Lora(rank=RANK, dropout=0.0, vision=vision)
    found = get_peft_model(made, adapters.lora_config(made, wanted))
    keep_in_fp32(found)
    return found.train()


class Saved:
    """Bytes of the distinct storages that autograd keeps; what has a weight's shape is a weight, a cast or an adapted one."""

    def __init__(self, made: torch.nn.Module) -> None:
        self.of_model = {value.untyped_storage().data_ptr() for value in made.parameters()}
        self.casts = {tuple(sorted(value.shape)) for value in made.parameters() if value.ndim == 2}
        self.found: dict[int, torch.Tensor] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in self.of_model and tuple(sorted(tensor.shape)) not in self.casts:
            self.found[place] = tensor  # held, so that no other takes its place
        return tensor

    @property
    def size(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.found.values())


def text_bytes(made: Any, bf16: bool) -> float:
    """Of a layer and token, by what is kept of two layers."""
    text = loading.backbone(made).language_model
    hidden = torch.ones(1, TOKENS, text.config.hidden_size, dtype=made.dtype, requires_grad=True)
    positions = torch.arange(TOKENS).expand(3, 1, TOKENS).contiguous()
    saved = Saved(made)
    with (
        disable_input_dtype_casting(made, active=bf16),
        torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        text(inputs_embeds=hidden, position_ids=positions, attention_mask=None, use_cache=False)
    return saved.size / TOKENS / LAYERS


BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # the compiler's
@pytest.mark.parametrize(
    "version, dtype, how",
    [
        ("4.1v", BF16, Kept(rank=RANK)),
        ("4.1v", BF16, Kept(rank=RANK, fused=True)),
        ("4.1v", FP32, Kept(value=4, whole=True)),
        ("4.5v", BF16, Kept(rank=RANK)),
    ],
    ids=["lora", "fused", "full", "experts"],
)
def test_a_text_layer_keeps_what_is_counted(version, dtype, how):
    few = {"n_routed_experts": 8, "first_k_dense_replace": 0} if version == "4.5v" else {}
    made = model(version, dtype, **few)
    made = made if how.whole else adapted(made)
    if how.fused:
        fused.fuse(made)
    text = loading.backbone(made).language_model.config
    counted = activations.of_text_layer(text, how, dense=not few)
    assert text_bytes(made, dtype == BF16) == pytest.approx(counted, rel=0.15)


@pytest.mark.slow
def test_a_block_of_the_vision_tower_keeps_what_is_counted():
    made = adapted(model("4.1v", BF16), vision=True)
    tower = loading.backbone(made).visual
    side = 14
    patches = torch.ones(side * side, 3 * 2 * 14 * 14, dtype=BF16, requires_grad=True)
    saved = Saved(made)
    before = {}
    tower.blocks[0].register_forward_pre_hook(lambda *_: before.update(start=saved.size))
    tower.blocks[-1].register_forward_hook(lambda *_: before.update(end=saved.size))
    with (
        disable_input_dtype_casting(made, active=True),
        torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor),
        torch.autocast("cpu", BF16),
    ):
        tower(patches, torch.tensor([[1, side, side]]))
    found = (before["end"] - before["start"]) / side**2 / len(tower.blocks)
    assert found == pytest.approx(activations.of_vision_block(tower.config, Kept(rank=RANK)), rel=0.15)


@pytest.mark.parametrize("every", [None, 1, 2, 3])
def test_recomputing_keeps_inputs_and_one_layer_at_work(every):
    layers, tokens, layer, stream = 6, 10, 100.0, 2.0
    found = activations.of_layers(layers, tokens, layer, stream, every)
    again = {None: 0, 1: 6, 2: 3, 3: 2}[every]
    at_work = layer if every else 0
    assert math.isclose(found, tokens * ((layers - again) * layer + again * stream + at_work))
