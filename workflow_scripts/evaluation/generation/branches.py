"""Prompts that go on from prefixes: all that follow one prefix run in one sequence, each seeing the prefix and itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from workflow_scripts.evaluation.generation.cache import AHEAD, Batch, cache_of, run

if TYPE_CHECKING:
    from workflow_scripts.models.loading import Model


@dataclass(frozen=True)
class Branch:
    """Tokens that follow row `prefix` of a batch of prefixes."""

    prefix: int
    tokens: list[int]


@torch.inference_mode()
def branched(prefixes: Batch, branches: Sequence[Branch], model: "Model", copies: int = 1) -> Batch:
    """A batch with `copies` rows of each branch, in the order given, which is that of the prefixes.

    Each branch has tokens, or none has, and its row is then the prefix itself.
    """
    if not any(branch.tokens for branch in branches):
        return prefixes.rows([branch.prefix for branch in branches for _ in range(copies)])
    lines = [list(line) for _, line in groupby(branches, key=lambda branch: branch.prefix)]
    trunk = prefixes.rows([line[0].prefix for line in lines])
    layout = _layout(lines, trunk.mask.device)
    logits = run(
        model,
        trunk.cache,
        layout.ids,
        _mask(trunk.mask, layout.owners),
        trunk.positions[:, None] + layout.depths,
        layout.last,
    )
    return _unrolled(trunk, lines, logits, copies)


@dataclass(frozen=True)
class _Layout:
    """Branches as they stand in their lines, padded on the right.

    All are [lines, tokens]: `owners` the number of a token's branch in its line, -1 for padding; `depths` its place
    in the branch; `last` whether it is the last there.
    """

    ids: torch.Tensor
    owners: torch.Tensor
    depths: torch.Tensor
    last: torch.Tensor


def _layout(lines: list[list[Branch]], device: torch.device) -> _Layout:
    ids, owners, depths, last = ([] for _ in range(4))
    for line in lines:
        lengths = torch.tensor([len(branch.tokens) for branch in line])
        ids.append(torch.tensor([token for branch in line for token in branch.tokens]))
        owners.append(torch.arange(len(line)).repeat_interleave(lengths))
        depths.append(torch.cat([torch.arange(int(length)) for length in lengths]))
        last.append(depths[-1] == lengths[owners[-1]] - 1)
    padded = [
        pad_sequence(rows, batch_first=True, padding_value=value).to(device)
        for rows, value in ((ids, 0), (owners, -1), (depths, 0), (last, False))
    ]
    return _Layout(*padded)


def _mask(trunk: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Which columns each token sees, [lines, 1, tokens, columns + tokens]: its prefix, and its branch up to itself."""
    tokens = owners.shape[1]
    before = torch.ones(tokens, tokens, dtype=torch.bool, device=owners.device).tril()
    own = (owners[:, :, None] == owners[:, None, :]) & before
    return torch.cat([trunk[:, None].expand(-1, tokens, -1), own], dim=-1)[:, None]


def _unrolled(trunk: Batch, lines: list[list[Branch]], logits: torch.Tensor, copies: int) -> Batch:
    """Each branch as `copies` rows of their own, after a copy of its prefix; `trunk.cache` holds the lines too."""
    lengths = [len(branch.tokens) for line in lines for branch in line]
    ends = [end for line in lines for end in accumulate(len(branch.tokens) for branch in line)]
    owners = [number for number, line in enumerate(lines) for _ in line]
    before = [trunk.columns - trunk.empty[owner] for owner in owners]  # tokens of the prefix
    columns = max(length + prefix for length, prefix in zip(lengths, before, strict=True))

    def each(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=trunk.mask.device).repeat_interleave(copies)[:, None]

    length, row = each(lengths), each(owners)
    back = torch.arange(columns - 1, -1, -1, device=row.device)  # columns to go to the row's end
    place = torch.where(
        back < length, trunk.columns + each(ends) - 1 - back, trunk.columns + length - 1 - back
    ).clamp(min=0)  # [rows, columns]
    place = pad(place, (0, AHEAD))
    layers = (
        [states[row.to(states.device), :, place.to(states.device)].transpose(1, 2) for states in layer.whole]
        for layer in trunk.layers
    )
    return Batch(
        cache_of(layers, columns),
        back < length + each(before),
        trunk.positions[row[:, 0]] + length[:, 0],
        logits.repeat_interleave(copies, dim=0),
        [
            columns - length - prefix
            for length, prefix in zip(lengths, before, strict=True)
            for _ in range(copies)
        ],
    )
