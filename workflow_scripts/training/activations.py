"""What autograd keeps of a forward pass, in bytes: counted from the steps of the layers' code in transformers 5.23.

`tests/training/test_activations.py` counts the same on layers of true width.
"""

from dataclasses import dataclass
from typing import Any

BF16_BYTES, FP32_BYTES = 2, 4


@dataclass(frozen=True)
class Kept:
    """How a training keeps activations.

    `value` are the bytes of a number: 2 in bf16, 4 in fp32. `fused` norms, adapters and MLPs are those of
    `engine/fused.py`, for dense layers whose weights lie whole on a GPU. `whole` is whether all weights train. `dropout`
    and `rank` are the adapters', 0 where there is none.
    """

    value: int = BF16_BYTES
    fused: bool = False
    whole: bool = False
    dropout: bool = False
    rank: int = 0


def of_text_layer(text: Any, how: Kept, dense: bool = True) -> float:
    """Bytes that a text layer of the configuration `text` keeps for a token; `dense` is False for one with experts.

    Inputs of the norms, in fp32 where these are not fused; inputs of the projections, queries, keys, values, what
    attention gives and its copy for the output projection; what goes into and comes out of the MLP's activation. Norms
    that train keep what they weight too. Scores are never whole (sdpa, flex attention).
    """
    hidden, heads = text.hidden_size, text.num_attention_heads
    width = getattr(text, "head_dim", None) or hidden // heads
    queries, pairs = heads * width, 2 * text.num_key_value_heads * width
    norms = 4 if text.model_type == "glm4v_text" else 2
    of_norm = how.value if how.fused else FP32_BYTES
    kept: float = norms * hidden * (of_norm + how.value * how.whole)
    kept += how.value * (2 * hidden + 3 * queries + pairs)
    modules = 4  # with adapters: the attention's, and the MLP's
    if dense:
        fused_pair = text.model_type == "glm4v_text"  # gate and up in one projection
        inner = text.intermediate_size
        kept += how.value * inner * (3 if how.fused else 4)
        modules += 2 if fused_pair else 3
        dropped = 3 * hidden + queries + inner + hidden * (1 if fused_pair else 2)
    else:
        inner, routed = text.moe_intermediate_size, text.num_experts_per_tok
        kept += how.value * 4 * inner * text.n_shared_experts
        # Frozen experts keep no inputs; the weighting keeps what each of them says.
        kept += how.value * routed * (3 * inner + hidden + how.whole * (hidden + inner))
        modules += 3
        dropped = 0  # peft adapts these layers' shared experts as parameters, without dropout
    if how.rank:
        kept += how.value * how.rank * modules
    if how.dropout:
        kept += (how.value + 1) * dropped  # what is left of each adapter's input, and a byte for its mask
    return kept


def of_vision_block(vision: Any, how: Kept) -> float:
    """Bytes that a block of the vision tower keeps for a patch, where the tower trains.

    As a text layer's, but that the values keep queries and keys as they were before their rotation in one tensor.
    """
    hidden, inner = vision.hidden_size, vision.out_hidden_size
    kept: float = 2 * hidden * (FP32_BYTES + how.value * how.whole) + how.value * (9 * hidden + 4 * inner)
    if how.rank:
        kept += how.value * how.rank * 5
    if how.dropout:
        kept += (how.value + 1) * (4 * hidden + inner)
    return kept


def of_layers(layers: int, tokens: float, layer: float, stream: float, every: int | None) -> float:
    """Bytes of `layers` alike for `tokens`: each keeps `layer` a token, or, one in `every`, `stream`, its input alone.

    Of those that are recomputed, one at a time has all of its own. None recomputes nothing.
    """
    if every is None:
        return tokens * layers * layer
    again = -(-layers // every)
    return tokens * ((layers - again) * layer + again * stream + layer)
