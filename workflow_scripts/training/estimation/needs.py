"""The memory that a training needs on each GPU, by kind, from the shapes of its model."""

from dataclasses import dataclass, replace

from workflow_scripts.configuration.settings import Training
from workflow_scripts.models.shapes import Shape
from workflow_scripts.training import activations
from workflow_scripts.training.activations import BF16_BYTES, FP32_BYTES, Kept
from workflow_scripts.training.division import STRATEGIES, Strategy
from workflow_scripts.training.estimation.sets import ANSWER

# bitsandbytes' NF4 with double quantisation: 4 bits, and 8 bits for 64 numbers with 32 for 256 of these (QLoRA, 2305.14314).
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
LOGITS = 32768  # words whose logits TRL's fused head holds at once, in fp32, with their gradients
RESERVED = 0.08  # of a card: CUDA's context, libraries, fragments


@dataclass(frozen=True)
class Way:
    """A way to train: its settings, on how many GPUs, and how many tokens and rows a pass has on each at most.

    `every` as in `memory.recomputed`. `pairs`: by DPO.
    """

    settings: Training
    gpus: int
    tokens: float
    rows: float
    every: int | None = 1
    pairs: bool = False

    @property
    def strategy(self) -> Strategy:
        return STRATEGIES[self.settings.strategy]

    @property
    def is_full(self) -> bool:
        return self.settings.method == "full"

    @property
    def trains_vision(self) -> bool:
        return self.settings.trains_vision


def of_pairs(way: Way) -> Way:
    """DPO by the same settings: at most both answers of every row, as far as the budget of a pass lets them."""
    tokens = max(way.tokens, min(way.settings.micro_batch_tokens, 2 * way.tokens))
    return replace(way, tokens=tokens, rows=2 * way.rows, pairs=True)


def trained(shape: Shape, way: Way) -> int:
    """Numbers that train."""
    lora = way.settings.lora
    if not way.is_full:
        return shape.adapter(lora.rank, lora.vision)
    frozen = 0 if way.trains_vision else shape.numbers["vision tower"] + shape.numbers["merger"]
    return shape.total - frozen


def needs(shape: Shape, way: Way) -> dict[str, float]:
    """Bytes on one GPU by kind.

    State as in Rajbhandari et al. 2020 (arXiv 1910.02054) and DeepSpeed's own estimators: it trains in bf16 and holds in
    fp32 a copy, a gradient and two moments of what trains, 16 bytes a number. Gradients in bf16 count whole, as they are
    before they are reduced, but for ZeRO-3: so the authors' figures are met (docs/memory.md). Elsewhere what trains is
    held in fp32, with moments twice as large, and autocast makes copies in bf16. Where weights are divided, the largest
    layer is whole, and the next one that is read ahead.
    """
    numbers, deepspeed = trained(shape, way), way.strategy.library == "deepspeed"
    held = BF16_BYTES if deepspeed else FP32_BYTES  # of a number that trains
    weights: float = shape.total * (held if way.is_full else BF16_BYTES)
    if not way.is_full:
        weights += numbers * held * (1 + way.pairs)  # DPO keeps the adapter that it begins with
        if way.settings.lora.quantize:
            weights -= shape.linear * (BF16_BYTES - NF4_BYTES)
    found = {"weights": weights, "gradients": numbers * held, "optimiser": numbers * (16 if deepspeed else 8)}
    for kind in way.strategy.divides:
        if kind != "gradients" or way.strategy.divides_weights:
            found[kind] /= way.gpus
    if way.strategy.offloads:
        found |= {"weights": 0.0, "optimiser": 0.0}
    found["working"] = _working(shape, way)
    found["activations"] = _activations(shape, way)
    found["logits"] = way.rows * ANSWER * min(LOGITS, shape.text.vocab_size) * 2 * FP32_BYTES
    return found


def _working(shape: Shape, way: Way) -> float:
    """What is gathered of divided weights, the layer in 16 bits that 4 bits are unpacked to, autocast's copies."""
    if way.strategy.divides_weights:
        gathered = shape.numbers["head"] if way.strategy.library == "fsdp" else 0
        return float((2 * shape.largest_layer + gathered) * BF16_BYTES)
    if way.settings.lora.quantize and not way.is_full:
        return float(shape.largest_layer * BF16_BYTES)
    kept = 1.0 if way.every is None else 1 - 1 / way.every
    copied = 1.0 if way.is_full else kept  # the cache of whole weights lives until the pass ends
    return trained(shape, way) * BF16_BYTES * copied * (way.strategy.library == "torch")


def _activations(shape: Shape, way: Way) -> float:
    """Of the largest pass: the text layers, and the vision tower where it trains."""
    lora, text = way.settings.lora, shape.text
    how = Kept(
        fused=way.strategy.library == "torch" and not way.is_full and not shape.is_moe,
        whole=way.is_full,
        dropout=not way.is_full and lora.dropout > 0,
        rank=0 if way.is_full else lora.rank,
    )
    layer = activations.of_text_layer(text, how, dense=not shape.is_moe)
    stream = text.hidden_size * BF16_BYTES
    found = activations.of_layers(text.num_hidden_layers, way.tokens, layer, stream, way.every)
    if way.trains_vision:
        patches = way.tokens * shape.vision.spatial_merge_size**2
        block = activations.of_vision_block(shape.vision, replace(how, fused=False))
        row = shape.vision.hidden_size * BF16_BYTES
        found += activations.of_layers(shape.vision.depth, patches, block, row, way.every)
    return found


def fits(shape: Shape, way: Way, memory: float) -> bool:
    """Whether `way` fits into GPUs of `memory` bytes, of which a part is reserved."""
    return sum(needs(shape, way).values()) <= (1 - RESERVED) * memory
