"""Rows into batches, with TRL's names for the tensors; an image shared by rows of a batch is processed once."""

from dataclasses import dataclass

import torch

from workflow_scripts.models.pixels import Pixels, batch

IGNORED = -100


@dataclass
class SftCollator:
    """Batches for SFTTrainer: loss on the completion, which ends with the stop token."""

    processor: object
    pixels: Pixels

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        whole = [(row["prompt_ids"] + row["completion_ids"], row["images"]) for row in rows]
        inputs, expanded = batch(whole, self.processor, self.pixels, "right")
        completion = _completion_mask(
            inputs["input_ids"], expanded, [len(row["completion_ids"]) for row in rows]
        )
        return {**inputs, "labels": inputs["input_ids"].masked_fill(~completion, IGNORED)}


@dataclass
class PreferenceCollator:
    """Batches for DPOTrainer: all chosen rows, then all rejected rows."""

    processor: object
    pixels: Pixels

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        completions = [row[side] for side in ("chosen_ids", "rejected_ids") for row in rows]
        whole = [
            (row["prompt_ids"] + ids, row["images"]) for row, ids in zip(rows * 2, completions, strict=True)
        ]
        inputs, expanded = batch(whole, self.processor, self.pixels, "right")
        completion = _completion_mask(inputs["input_ids"], expanded, [len(ids) for ids in completions])
        return {**inputs, "completion_mask": completion.long()}


def _completion_mask(input_ids: torch.Tensor, expanded: list[list[int]], lengths: list[int]) -> torch.Tensor:
    """True where a token belongs to the completion, in rows padded on the right; [rows, longest]."""
    positions = torch.arange(input_ids.shape[1])
    ends = torch.tensor([len(ids) for ids in expanded])[:, None]
    return (positions < ends) & (positions >= ends - torch.tensor(lengths)[:, None])
