"""Rows of token ids as one batch: the tree that the language model runs on, and the rows' tails.

TRL's trainers need hidden states only where a completion is predicted: at the last prompt token and at the
completion's own. Those are a row's tail; what comes before it is known to the model alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workflow_scripts.training.engine import tree
from workflow_scripts.training.engine.attention import FLEX_BLOCK


@dataclass(frozen=True)
class TokenRow:
    """Token ids with one placeholder an image, and which of the batch's images they show."""

    prompt: list[int]
    completion: list[int]
    images: list[int]


@dataclass(frozen=True)
class ShownImage:
    """The patch grid (frames, height, width) of an image, and how many tokens it takes."""

    grid: list[int]
    tokens: int


@dataclass(frozen=True)
class Vocabulary:
    """What collating needs to know of a model: token ids, and how many patches a side a token merges.

    `one_sequence` packs all trees into one, for attention that skips empty blocks.
    """

    image_token: int
    pad_token: int
    merge_size: int
    one_sequence: bool = False


def collate(rows: Sequence[TokenRow], images: Sequence[ShownImage], words: Vocabulary) -> dict[str, Any]:
    """Tails and tree of `rows`, which show `images`.

    input_ids and attention_mask [rows, longest tail] hold the tails, padded on the right; "tree" holds what
    `forward.share_prefixes` takes, but for the images' values.
    """
    paths = [_path(row, images, words) for row in rows]
    ids, kept = _tails(rows, words)
    groups: dict[int | None, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.images[0] if row.images else None, []).append(index)
    trees = [tree.grow([paths[index] for index in members]) for members in groups.values()]
    laid_out = _lay_out(trees, list(groups.values()), ids.shape, images, words)
    return {"input_ids": ids, "attention_mask": kept.long(), "tree": laid_out}


def _path(row: TokenRow, images: Sequence[ShownImage], words: Vocabulary) -> tree.Path:
    """The row, its images' placeholders repeated, without its last token, which predicts nothing."""
    shown = [images[number] for number in row.images]
    counts = [image.tokens for image in shown]
    placeholders = np.array(row.prompt + row.completion[:-1])
    repeats = np.ones(len(placeholders), int)
    repeats[placeholders == words.image_token] = counts
    ids = np.repeat(placeholders, repeats)
    keys = ids.copy()
    keys[ids == words.image_token] = np.repeat([-1 - number for number in row.images], counts)
    positions = tree.rope_positions(ids, words.image_token, [image.grid for image in shown], words.merge_size)
    return tree.Path(ids, keys, positions, tail=int(repeats[: len(row.prompt)].sum()) - 1)


def _tails(rows: Sequence[TokenRow], words: Vocabulary) -> tuple[torch.Tensor, torch.Tensor]:
    """The tails' token ids [rows, longest] and where they are real."""
    longest = 1 + max(len(row.completion) for row in rows)
    ids = torch.full((len(rows), longest), words.pad_token)
    for number, row in enumerate(rows):
        ids[number, : 1 + len(row.completion)] = torch.tensor([row.prompt[-1], *row.completion])
    lengths = torch.tensor([1 + len(row.completion) for row in rows])
    return ids, torch.arange(longest) < lengths[:, None]


def _lay_out(
    trees: list[tree.Tree],
    members: list[list[int]],
    shape: torch.Size,
    images: Sequence[ShownImage],
    words: Vocabulary,
) -> dict[str, Any]:
    """The trees packed into sequences [sequences, longest]; a padding token sees itself alone.

    `members` are the rows of each tree, `shape` that of their tails.
    """
    lengths = [len(one) for one in trees]
    bins = tree.pack(lengths, sum(lengths) if words.one_sequence else max(lengths))
    longest = max(sum(lengths[index] for index in group) for group in bins)
    if words.one_sequence:
        # Two blocks at least: for a single one flex attention would be compiled once more.
        longest = max(2, -(-longest // FLEX_BLOCK)) * FLEX_BLOCK
    ids = np.full((len(bins), longest), words.pad_token)
    keys = ids.copy()
    positions = np.zeros((3, len(bins), longest), int)
    ends = np.tile(np.arange(1, longest + 1), (len(bins), 1))
    gather = np.zeros(shape, int)
    for sequence, group in enumerate(bins):
        start = 0
        for index in group:
            one = trees[index]
            span = slice(start, start + len(one))
            ids[sequence, span], keys[sequence, span] = one.ids, one.keys
            positions[:, sequence, span] = one.positions
            ends[sequence, span] = one.ends + start
            for row, places in zip(members[index], one.places, strict=True):
                gather[row, : len(places)] = sequence * longest + start + places
            start += len(one)
    laid_out = {"input_ids": ids, "position_ids": positions, "ends": ends, "gather": gather}
    tensors = {name: torch.from_numpy(array) for name, array in laid_out.items()}
    sizes = [image.tokens for image in images]
    return {**tensors, "occurrences": _occurrences(keys, images), "image_sizes": sizes}


def _occurrences(keys: np.ndarray, images: Sequence[ShownImage]) -> list[int]:
    """Which image each run of image tokens shows, in the order of the sequences."""
    found, place = [], 0
    marks = keys[keys < 0]
    while place < len(marks):
        number = -1 - int(marks[place])
        found.append(number)
        place += images[number].tokens
    return found
