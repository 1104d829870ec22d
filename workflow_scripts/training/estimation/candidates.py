"""Which ways to train fit on which GPUs, and the settings of one."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from workflow_scripts.configuration.overlay import merge
from workflow_scripts.configuration.settings import Sft, Training
from workflow_scripts.models.shapes import Shape
from workflow_scripts.training.activations import BF16_BYTES
from workflow_scripts.training.estimation import needs, sets
from workflow_scripts.training.estimation.needs import RESERVED, Way
from workflow_scripts.training.estimation.sets import Rows

COUNTS = (1, 2, 4, 8, 16, 32, 64)
ON_A_NODE = 8
BUDGETS = (16384, 8192, 4096, 2048, 1024)  # tokens a pass
LARGEST_CACHE, SMALLEST_CACHE = 2**17, 2**13  # tokens that are kept at once when a model is asked

KINDS_OF_TRAINING: dict[str, dict[str, Any]] = {
    "LoRA": {"method": "lora", "strategy": "ddp"},
    "QLoRA": {"method": "lora", "strategy": "ddp", "lora": {"quantize": "4bit"}},
    "LoRA, ZeRO-3": {"method": "lora", "strategy": "zero3"},
    "LoRA, FSDP": {"method": "lora", "strategy": "fsdp"},
    "full": {"method": "full", "strategy": "ddp"},
    "full, ZeRO-1": {"method": "full", "strategy": "zero1"},
    "full, ZeRO-2": {"method": "full", "strategy": "zero2"},
    "full, ZeRO-3": {"method": "full", "strategy": "zero3"},
    "full, FSDP": {"method": "full", "strategy": "fsdp"},
}


@dataclass(frozen=True)
class Candidate:
    """A kind of training, the way of it that fits on the fewest GPUs or the last that was tried, and its bytes by kind."""

    name: str
    way: Way
    needs: Mapping[str, float]
    fits: bool

    @property
    def total(self) -> float:
        return sum(self.needs.values())


def tried(
    shape: Shape, settings: Sft, rows: Rows, memory: float, counts: Sequence[int] = COUNTS
) -> list[Candidate]:
    """Every one of `KINDS_OF_TRAINING` that the code takes for this model, with the rest as in `settings`."""
    return [
        _best(name, shape, _laid(settings, laid), rows, memory, counts) for name, laid in _possible(shape)
    ]


def _possible(shape: Shape) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, laid in KINDS_OF_TRAINING.items():
        # 4 bits are for linear modules, and experts are none; FSDP does not divide their routers' buffers.
        if not (shape.is_moe and ("lora" in laid or laid["strategy"] == "fsdp")):
            yield name, laid


def _laid(settings: Sft, laid: dict[str, Any]) -> Sft:
    bare = settings.model_dump() | {"gpus": 1, "nodes": 1}
    return Sft.model_validate(merge(merge(bare, {"lora": {"quantize": None}}), laid))


def _best(
    name: str, shape: Shape, settings: Sft, rows: Rows, memory: float, counts: Sequence[int]
) -> Candidate:
    """The way on the fewest GPUs, there with the largest pass that fits."""
    ways = [way for count in counts for way in _ways_of(shape, settings, rows, count)]
    found = next((way for way in ways if needs.fits(shape, way, memory)), None)
    way = found or ways[-1]
    return Candidate(name, way, needs.needs(shape, way), found is not None)


def _ways_of(shape: Shape, settings: Sft, rows: Rows, count: int) -> Iterator[Way]:
    """From the fastest on: the largest pass, which recomputes the fewest layers where the trainer chooses that itself."""
    nodes = max(1, count // ON_A_NODE)
    budgets = sorted({min(settings.micro_batch_tokens, each) for each in BUDGETS}, reverse=True)
    for budget in budgets:
        placed = settings.model_copy(
            update={"gpus": count // nodes, "nodes": nodes, "micro_batch_tokens": budget}
        )
        tokens, held = largest_pass(placed, rows)
        for every in recomputing(shape, placed):
            yield Way(placed, count, tokens, held, every)


def way_of(shape: Shape, settings: Sft, rows: Rows, memory: float) -> Way:
    """What a training by `settings` would do on GPUs of `memory` bytes: with the fewest layers recomputed that fit."""
    tokens, held = largest_pass(settings, rows)
    ways = [
        Way(settings, settings.gpus * settings.nodes, tokens, held, every)
        for every in recomputing(shape, settings)
    ]
    return _fastest(shape, ways, memory)


def of_pairs(shape: Shape, way: Way, memory: float) -> Way:
    """What DPO by the settings of `way` would do: with the fewest layers recomputed that fit."""
    ways = [needs.of_pairs(replace(way, every=every)) for every in recomputing(shape, way.settings)]
    return _fastest(shape, ways, memory)


def _fastest(shape: Shape, ways: Sequence[Way], memory: float) -> Way:
    """The first that fits; the last, where none does."""
    return next((way for way in ways if needs.fits(shape, way, memory)), ways[-1])


def largest_pass(settings: Sft, rows: Rows) -> tuple[float, float]:
    """Tokens and rows of the largest forward pass on a GPU: its share of a step, or what the budget holds."""
    share = settings.batch_size / (settings.gpus * settings.nodes)
    step = rows.tokens_of_rows(share, sets.together(settings))
    tokens = max(min(settings.micro_batch_tokens, step), rows.largest + rows.text)
    return tokens, max(1.0, share * min(1.0, tokens / step))


def recomputing(shape: Shape, settings: Training) -> tuple[int | None, ...]:
    """One in how many layers may recompute, from the fastest on, as `memory.recomputed` chooses."""
    if settings.gradient_checkpointing is not None:
        return (1,) if settings.gradient_checkpointing else (None,)
    automatic = settings.method == "lora" and settings.strategy == "ddp" and not settings.lora.vision
    return (None, 4, 3, 2, 1) if automatic and not settings.lora.quantize and not shape.is_moe else (1,)


def recommended(found: Sequence[Candidate], method: str) -> Candidate | None:
    """The one that fits on the fewest GPUs, the first of `KINDS_OF_TRAINING` among several; None where none fits."""
    fitting = [candidate for candidate in found if candidate.fits and candidate.way.settings.method == method]
    return min(fitting, key=lambda candidate: candidate.way.gpus, default=None)


def overlay(shape: Shape, candidate: Candidate, memory: float) -> dict[str, Any]:
    """The settings of `candidate`, to be laid over config.yaml."""
    settings = candidate.way.settings
    of_training: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("method", "gpus", "nodes", "strategy", "micro_batch_tokens")
        if name != "nodes" or settings.nodes > 1
    }
    if settings.lora.quantize:
        of_training["lora"] = {"quantize": settings.lora.quantize}
    return {"sft": of_training, "dpo": deepcopy(of_training), "evaluation": asking(shape, memory)}


def asking(shape: Shape, memory: float) -> dict[str, int]:
    """`evaluation` for GPUs of `memory` bytes: as few as hold the weights in bf16, and the largest cache beside them."""
    weights, room = shape.total * BF16_BYTES, (1 - RESERVED) * memory
    gpus = next(
        (count for count in COUNTS if weights + SMALLEST_CACHE * shape.cache_bytes() < count * room),
        COUNTS[-1],
    )
    free, tokens = gpus * room - weights, LARGEST_CACHE
    while tokens > SMALLEST_CACHE and tokens * shape.cache_bytes() > free:
        tokens //= 2
    return {"gpus": gpus, "tokens_per_batch": tokens}
