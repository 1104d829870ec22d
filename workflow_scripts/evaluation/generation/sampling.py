"""The next token of each row: the likeliest, or one drawn by the row's own random numbers."""

import random
from collections.abc import Sequence

import torch


def chance(seed: int, key: str, sample: int) -> random.Random:
    """The random numbers of one answer: they depend on its question's `key`, and not on the rows beside it."""
    return random.Random(f"{seed} {key} {sample}")


@torch.inference_mode()
def likeliest(logits: torch.Tensor) -> list[int]:
    """For each row of `logits` [rows, vocabulary]."""
    found: list[int] = logits.argmax(-1).tolist()
    return found


@torch.inference_mode()
def drawn(logits: torch.Tensor, temperature: float, chances: Sequence[random.Random]) -> list[int]:
    """By the distribution of each row of `logits` [rows, vocabulary] and one number of its `chances`.

    The number is looked up in the cumulative distribution: rounding, which depends on the other rows, changes the
    token only where the number falls on a border.
    """
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    numbers = torch.tensor([row.random() for row in chances], dtype=torch.double, device=logits.device)
    places = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)
    found: list[int] = places[:, 0].clamp(max=logits.shape[-1] - 1).tolist()
    return found
