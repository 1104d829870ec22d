"""Which token of a tree sees which, as the masks that sdpa and flex attention take."""

import torch
from torch.nn.attention.flex_attention import BlockMask

FLEX_BLOCK = 128  # flex attention works in blocks of this many tokens


def attention_mask(ends: torch.Tensor, implementation: str) -> torch.Tensor | BlockMask:
    """Which token sees which: q sees k where k <= q < ends[k]; `ends` is [sequences, length].

    A boolean [sequences, 1, length, length] for sdpa, a BlockMask for flex attention, which takes a length of whole
    FLEX_BLOCKs.
    """
    if implementation == "flex_attention":
        return _block_mask(ends)
    places = torch.arange(ends.shape[1], device=ends.device)
    sees = (places[None, :] <= places[:, None]) & (places[None, :, None] < ends[:, None, :])
    return sees[:, None]


def _block_mask(ends: torch.Tensor) -> BlockMask:
    """Made from the ends within each block: PyTorch's `create_block_mask` asks for every pair of tokens."""

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < ends[batch, key])

    length = ends.shape[1]
    first = torch.arange(0, length, FLEX_BLOCK, device=ends.device)  # tokens of the blocks
    query, key = first[:, None], first[None, :]
    blocks = ends.view(len(ends), -1, FLEX_BLOCK)  # [sequences, blocks, tokens]
    some = (key <= query) & (query < blocks.amax(-1)[:, None])
    every = (key < query) & (query + FLEX_BLOCK <= blocks.amin(-1)[:, None])
    return BlockMask.from_kv_blocks(
        *_indices(some & ~every), *_indices(every), FLEX_BLOCK, sees, seq_lengths=(length, length)
    )


def _indices(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks are chosen for each block of queries, and all, the chosen first: with an axis for the heads."""
    order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]
