"""Rows with their images into batches: a tree for the model, and the rows' tails with TRL's names for the trainers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workflow_scripts.models.pixels import Pixels
from workflow_scripts.training.data.features import FeatureStore
from workflow_scripts.training.engine.collation import ShownImage, TokenRow, Vocabulary, collate

IGNORED = -100
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names


@dataclass
class Collator:
    """What both collators share; `one_sequence` packs all trees into one, for attention that skips empty blocks."""

    processor: Any
    pixels: Pixels
    features: FeatureStore | None = None
    one_sequence: bool = False

    def batch(self, rows: Sequence[tuple[list[int], list[int], list[str]]]) -> dict[str, Any]:
        """Tails and tree of rows of (prompt ids, completion ids, image paths), each image once."""
        paths = list(dict.fromkeys(path for _, _, images in rows for path in images))
        values, shown = self._images(paths)
        numbers = {path: number for number, path in enumerate(paths)}
        words = Vocabulary(
            self.processor.image_token_id,
            self.processor.tokenizer.pad_token_id,
            self.pixels.image_processor.merge_size,
            self.one_sequence,
        )
        token_rows = [
            TokenRow(prompt, completion, [numbers[path] for path in images])
            for prompt, completion, images in rows
        ]
        batch = collate(token_rows, shown, words)
        batch["tree"] |= values
        return batch

    def _images(self, paths: list[str]) -> tuple[dict[str, Any], list[ShownImage]]:
        """The model's inputs for the distinct images: kept features, or pixels where one of them has none.

        image_features [tokens, hidden size] or pixel_values [patches, values of one], and image_grids, a list of (frames,
        height, width) in patches.
        """
        kept = self.features.read(paths) if self.features else None
        entries = [self.pixels(path) for path in paths] if kept is None else kept
        shown = [ShownImage(grid.tolist(), self.pixels.tokens(grid)) for _, grid in entries]
        if not entries:  # of kept features none are wanted: the tower does not run on any process
            return {} if kept is None else {"image_features": torch.empty(0)}, shown
        values = {
            "pixel_values" if kept is None else "image_features": torch.cat([value for value, _ in entries]),
            "image_grids": [image.grid for image in shown],
        }
        return values, shown


class SftCollator(Collator):
    """Batches for SFTTrainer: loss on the completion, which ends with the stop token.

    thought_mask [rows, longest tail] says which labels are of a thought.
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        inputs = self.batch([(row["prompt_ids"], row["completion_ids"], row["image_paths"]) for row in rows])
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
        labels[:, 0] = IGNORED
        lengths = torch.tensor([row["thought_tokens"] for row in rows])
        places = torch.arange(labels.shape[1])  # the first is the prompt's last token
        thought = (places > 0) & (places <= lengths[:, None])
        return {**inputs, "labels": labels, "thought_mask": thought}


class PreferenceCollator(Collator):
    """Batches for DPOTrainer: all chosen rows, then all rejected rows; reference log-probabilities where known."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
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
