"""Flex attention over the engine's own trees against sdpa: values, gradients, and how often it is compiled."""

import contextlib
import random
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks import common
from benchmarks.gpu_check.runner import Findings
from benchmarks.gpu_check.shapes import Moment, Shape, device, on_gpu
from workflow_scripts.training.engine.attention import attention_mask
from workflow_scripts.training.engine.collation import ShownImage, TokenRow, Vocabulary, collate

WORDS = Vocabulary(image_token=1, pad_token=0, merge_size=2, one_sequence=True)
COMPILED = 4  # times, at most, over all batch shapes
WORSE = 1.5  # times sdpa's own error in bf16


def check(shape: Shape, findings: Findings) -> None:
    """Errors against sdpa in fp32 beside those of sdpa in bf16, then many batch shapes.

    Compiled on a GPU alone: a CPU's compiler takes a minute.
    """
    with contextlib.nullcontext() if on_gpu() else torch.compiler.set_stance("force_eager"):
        _check(shape, findings)


def _check(shape: Shape, findings: Findings) -> None:
    ends = batch_ends(random.Random(0), images=2, questions=5, tokens=144 if on_gpu() else 16)
    exact = attended(ends, "sdpa", torch.float32)
    sdpa = attended(ends, "sdpa", torch.bfloat16)
    graphs = counters["stats"]["unique_graphs"]
    started = Moment.now()
    flex = attended(ends, "flex_attention", torch.bfloat16)
    findings.figure("first pass, compilation included, s", started.until(Moment.now()))
    names = ["output", "query gradient", "key gradient", "value gradient"][: len(flex)]
    errors = {
        name: {"flex": error(ours, true), "sdpa": error(theirs, true)}
        for name, ours, theirs, true in zip(
            names, flex, sdpa, exact, strict=False
        )  # on a CPU there are no gradients
    }
    findings.figure("relative errors in bf16", errors)
    worst = max(each["flex"] / max(each["sdpa"], 1e-3) for each in errors.values())
    findings.goal(f"flex errs at most {WORSE} times as much as sdpa", f"{worst:.2f} times", worst <= WORSE)
    compilations(shape, findings, graphs)


def compilations(shape: Shape, findings: Findings, graphs: int) -> None:
    """Forward and backward passes over batches of many shapes; how many were compiled since there were `graphs`."""
    chance = random.Random(1)
    lengths = set()
    started = Moment.now()
    for _ in range(shape.batch_shapes):
        images, questions = chance.randint(1, 8), chance.randint(1, 14)
        ends = batch_ends(chance, images, questions, tokens=chance.randint(16, 729 if on_gpu() else 40))
        lengths.add(ends.shape[1])
        attended(ends, "flex_attention", torch.bfloat16)
    seconds = started.until(Moment.now())
    compiled = counters["stats"]["unique_graphs"] - graphs
    findings.figure("batches", {"shapes": shape.batch_shapes, "lengths": len(lengths), "seconds": seconds})
    if on_gpu():
        findings.goal(
            f"{shape.batch_shapes} batch shapes are compiled at most {COMPILED} times",
            str(compiled),
            compiled <= COMPILED,
        )


def batch_ends(chance: random.Random, images: int, questions: int, tokens: int) -> torch.Tensor:
    """`ends` [1, length] of a batch: `questions` on each of `images` of `tokens` tokens."""
    side = max(1, round(tokens**0.5))
    rows = [
        TokenRow(
            [2, WORDS.image_token, *(chance.randint(3, 99) for _ in range(chance.randint(6, 20)))],
            [chance.randint(3, 99) for _ in range(chance.randint(2, 12))],
            [image],
        )
        for image in range(images)
        for _ in range(questions)
    ]
    shown = [ShownImage([1, 2 * side, 2 * side], side * side) for _ in range(images)]
    ends: torch.Tensor = collate(rows, shown, WORDS)["tree"]["ends"]
    return ends.to(device())


def attended(ends: torch.Tensor, implementation: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Output [1, length, heads, size of one] of an attention, and the gradients of query, key and value.

    As a text layer of the benchmarks' model calls it, under autocast as in training. On a CPU flex attention has no
    backward: the output alone.
    """
    text = _text()
    size = text.hidden_size // text.num_attention_heads
    generator = torch.Generator(ends.device).manual_seed(0)
    trains = on_gpu() or implementation == "sdpa"
    states = [
        torch.randn(shape, generator=generator, device=ends.device)
        .to(torch.bfloat16)  # the same values in any type
        .to(dtype)
        for shape in (
            (1, text.num_attention_heads, ends.shape[1], size),
            (1, text.num_key_value_heads, ends.shape[1], size),
            (1, ends.shape[1], text.num_key_value_heads, size),
        )
    ]
    states[2] = states[2].transpose(1, 2)  # what is not rotated lies as the projection has left it
    states = [state.requires_grad_(trains) for state in states]
    layer = SimpleNamespace(
        training=True,
        is_causal=True,
        num_key_value_groups=text.num_attention_heads // text.num_key_value_heads,
    )
    attend: Any = ALL_ATTENTION_FUNCTIONS[implementation]
    with torch.autocast(ends.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        output, _ = attend(
            layer, *states, attention_mask(ends, implementation), scaling=size**-0.5, dropout=0.0
        )
    if not trains:
        return [output]
    weights = torch.randn(output.shape, generator=generator, device=ends.device)
    gradients = torch.autograd.grad((output.float() * weights).sum(), states)
    return [output.detach(), *gradients]


@cache
def _text() -> Any:
    return common.model_config().text_config


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    """‖found - true‖ / ‖true‖."""
    return float((found.float() - true.float()).norm() / true.float().norm())
