"""Rows into batches: a tree of tokens for the model, and the rows' tails with TRL's names for the trainers.

TRL's trainers need hidden states only where a completion is predicted: at the last prompt token and at the
completion's own. Those are a row's tail; what comes before it is known to the model alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workflow_scripts.models.pixels import Pixels, expand
from workflow_scripts.training.data.features import FeatureStore
from workflow_scripts.training.engine import tree
from workflow_scripts.training.engine.attention import FLEX_BLOCK

IGNORED = -100
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names


@dataclass
class Collator:
    """What both collators share; `one_sequence` packs all trees into one, for attention that skips empty blocks."""

    processor: object
    pixels: Pixels
    features: FeatureStore | None = None
    one_sequence: bool = False

    def batch(self, rows: Sequence[tuple[list[int], list[int], list[str]]]) -> dict:
        """Tails and tree of rows of (prompt ids, completion ids, image paths).

        input_ids and attention_mask [rows, longest tail] hold the tails, padded on the right; "tree" holds what
        `engine.share_prefixes` takes.
        """
        images = list(dict.fromkeys(path for _, _, paths in rows for path in paths))
        pictures, shown = self._pictures(images)
        numbers = {path: number for number, path in enumerate(images)}
        paths = [self._path(row, shown, numbers) for row in rows]
        ids, kept = self._tails(rows)
        groups: dict[str, list[int]] = {}
        for index, (_, _, row_images) in enumerate(rows):
            groups.setdefault(row_images[0] if row_images else "", []).append(index)
        trees = [tree.grow([paths[index] for index in members]) for members in groups.values()]
        laid_out = self._lay_out(trees, list(groups.values()), ids.shape)
        laid_out["occurrences"] = self._occurrences(laid_out.pop("keys"), shown)
        return {"input_ids": ids, "attention_mask": kept.long(), "tree": laid_out | pictures}

    def _pictures(self, images: list[str]) -> tuple[dict[str, torch.Tensor], list[tuple[list[int], int]]]:
        """The model's inputs for the distinct images, and each one's (patch grid, number of tokens)."""
        known = self.features.read(images) if self.features else None
        if known is not None:
            entries = [(features, grid) for features, grid in known]
            name = "image_features"
        else:
            entries = [self.pixels(path) for path in images]
            name = "pixel_values"
        shown = [(grid.tolist(), self.pixels.tokens(grid)) for _, grid in entries]
        if not entries:  # of kept features none are wanted: the tower does not run on any process
            return {"image_features": torch.empty(0)} if known is not None else {}, shown
        tensors = {
            name: torch.cat([values for values, _ in entries]),
            "image_grid_thw": torch.stack([grid for _, grid in entries]),
        }
        return tensors, shown

    def _path(self, row: tuple, shown: list, numbers: dict[str, int]) -> tree.Path:
        """The row without its last token, which predicts nothing."""
        prompt, completion, images = row
        image_token = self.processor.image_token_id
        counts = [shown[numbers[path]][1] for path in images]
        prompt_ids = expand(prompt, counts, image_token)
        ids = np.array(prompt_ids + completion[:-1])
        keys = ids.copy()
        keys[ids == image_token] = np.repeat([-1 - numbers[path] for path in images], counts)
        grids = [shown[numbers[path]][0] for path in images]
        merge = self.pixels.image_processor.merge_size
        return tree.Path(ids, keys, tree.rope_positions(ids, image_token, grids, merge), len(prompt_ids) - 1)

    def _tails(self, rows: Sequence[tuple]) -> tuple[torch.Tensor, torch.Tensor]:
        """The tails' token ids [rows, longest] and where they are real."""
        longest = 1 + max(len(completion) for _, completion, _ in rows)
        ids = torch.full((len(rows), longest), self.processor.tokenizer.pad_token_id)
        for number, (prompt, completion, _) in enumerate(rows):
            ids[number, : 1 + len(completion)] = torch.tensor([prompt[-1], *completion])
        lengths = torch.tensor([1 + len(completion) for _, completion, _ in rows])
        return ids, torch.arange(longest) < lengths[:, None]

    def _lay_out(self, trees: list[tree.Tree], members: list[list[int]], shape: torch.Size) -> dict:
        """The trees packed into sequences [sequences, longest]; a padding token sees itself alone."""
        lengths = [len(one) for one in trees]
        bins = tree.pack(lengths, sum(lengths) if self.one_sequence else max(lengths))
        longest = max(sum(lengths[index] for index in group) for group in bins)
        if self.one_sequence:
            longest = -(-longest // FLEX_BLOCK) * FLEX_BLOCK
        ids = np.full((len(bins), longest), self.processor.tokenizer.pad_token_id)
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
        return {name: torch.from_numpy(array) for name, array in laid_out.items()} | {"keys": keys}

    @staticmethod
    def _occurrences(keys: np.ndarray, shown: list) -> torch.Tensor:
        """Which image each run of image tokens shows, in the order of the sequences."""
        found, place = [], 0
        marks = keys[keys < 0]
        while place < len(marks):
            number = -1 - int(marks[place])
            found.append(number)
            place += shown[number][1]
        return torch.tensor(found, dtype=torch.long)


class SftCollator(Collator):
    """Batches for SFTTrainer: loss on the completion, which ends with the stop token."""

    def __call__(self, rows: list[dict]) -> dict:
        inputs = self.batch([(row["prompt_ids"], row["completion_ids"], row["image_paths"]) for row in rows])
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        labels[:, 0] = IGNORED
        return {**inputs, "labels": labels}


class PreferenceCollator(Collator):
    """Batches for DPOTrainer: all chosen rows, then all rejected rows; reference log-probabilities where known."""

    def __call__(self, rows: list[dict]) -> dict:
        inputs = self.batch(
            [
                (row["prompt_ids"], row[side], row["image_paths"])
                for side in ("chosen_ids", "rejected_ids")
                for row in rows
            ]
        )
        completion = inputs["attention_mask"].clone()
        completion[:, 0] = 0
        known = {
            name: torch.tensor([row[name] for row in rows]) for name in REFERENCE_COLUMNS if name in rows[0]
        }
        return {**inputs, "completion_mask": completion, **known}
