"""Rows that begin alike as a tree of tokens, each shared prefix held once.

A tree is laid out in depth-first order: a token sees those before it on its own path, which are the earlier tokens
whose subtree it lies in. Positions go by depth on the path, so every token has the position that it has in its row.
Sharing prefixes of one prompt in text DPO is due to arXiv:2410.20305; here several questions share an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Path:
    """One row: token ids, `keys` that are equal for equal tokens (an image's tokens only for the same image),
    and multimodal positions [3, length]. `tail` is where the part begins whose hidden states are wanted."""

    ids: np.ndarray
    keys: np.ndarray
    positions: np.ndarray
    tail: int


@dataclass(frozen=True)
class Tree:
    """Tokens in depth-first order.

    ids, keys [n]; positions [3, n]; `ends` [n]: the end of each token's subtree, exclusive; `places`: for each row,
    where its tail's tokens stand.
    """

    ids: np.ndarray
    keys: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    places: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)


def grow(paths: Sequence[Path]) -> Tree:
    """The tree of `paths`; its rows keep their order in `places`."""
    order = sorted(range(len(paths)), key=lambda index: paths[index].keys.tolist())
    places: list[np.ndarray] = [np.empty(0, int)] * len(paths)
    pieces: list[tuple[int, int]] = []  # (row, how many of its first tokens it shares with the row before)
    on_path = np.empty(0, int)  # where the current row's tokens stand
    size = 0
    opened: list[np.ndarray] = []
    previous = None
    for index in order:
        path = paths[index]
        shared = 0 if previous is None else common_prefix(previous.keys, path.keys)
        fresh = len(path.keys) - shared
        on_path = np.concatenate([on_path[:shared], np.arange(size, size + fresh)])
        opened.append(on_path)
        pieces.append((index, shared))
        places[index] = on_path[path.tail :]
        size += fresh
        previous = path
    ends = np.zeros(size, int)
    for rows_path in opened:  # a token's subtree ends where the last row that passes through it ends
        ends[rows_path] = rows_path[-1] + 1 if len(rows_path) else 0
    return Tree(
        ids=np.concatenate([paths[index].ids[shared:] for index, shared in pieces]),
        keys=np.concatenate([paths[index].keys[shared:] for index, shared in pieces]),
        positions=np.concatenate([paths[index].positions[:, shared:] for index, shared in pieces], axis=1),
        ends=ends,
        places=places,
    )


def common_prefix(left: np.ndarray, right: np.ndarray) -> int:
    """How many of their first elements are equal."""
    length = min(len(left), len(right))
    different = np.nonzero(left[:length] != right[:length])[0]
    return int(different[0]) if len(different) else length


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which trees share a sequence of at most `capacity` tokens: first fit, the longest first."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = next((number for number, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            bins.append([index])
            room.append(capacity - lengths[index])
        else:
            bins[place].append(index)
            room[place] -= lengths[index]
    return bins


def rope_positions(
    ids: np.ndarray, image_token: int, grids: Sequence[Sequence[int]], merge: int
) -> np.ndarray:
    """Multimodal positions [3, length] (time, height, width) of a row whose images have the patch grids `grids`.

    Text counts up alike in all three; an image's tokens count from where it starts by their place in its grid, and
    what follows goes on after the longer side. As `get_rope_index` of transformers' Glm4v does.
    """
    positions = np.zeros((3, len(ids)), int)
    current = place = 0
    remaining = iter(grids)
    is_image = ids == image_token
    while place < len(ids):
        if is_image[place]:
            frames, height, width = next(remaining)
            height, width = height // merge, width // merge
            count = frames * height * width
            grid = np.stack(
                np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
            )
            positions[:, place : place + count] = current + grid.reshape(3, -1)
            current += max(height, width)
        else:
            following = np.nonzero(is_image[place:])[0]
            count = int(following[0]) if len(following) else len(ids) - place
            positions[:, place : place + count] = current + np.arange(count)
            current += count
        place += count
    return positions
