"""The parts of a model that the user sees apart: language model, merger, vision tower, and adapters on them."""

import math

import torch

PARTS = ("language model", "merger", "vision")


def part(name: str) -> str:
    """Which of PARTS the parameter or module `name` belongs to; the head and the embeddings are language model."""
    if ".visual.merger." in name:
        return "merger"
    return "vision" if ".visual." in name else "language model"


def is_adapter(name: str) -> bool:
    """Whether the parameter `name` is LoRA's."""
    return ".lora_" in name


def size(parameter: torch.nn.Parameter) -> int:
    """How many numbers a parameter has in all, also where DeepSpeed holds a part of it or 4 bits hold each."""
    if (whole := getattr(parameter, "ds_numel", None)) is not None:
        return int(whole)
    quantized = getattr(parameter, "quant_state", None)
    return math.prod(quantized.shape) if quantized else parameter.numel()
