"""Images as the model takes them, each decoded and processed once while it stays in memory."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from workflow_scripts.datasets.pictures.images import open_image
from workflow_scripts.models.interfaces import ImageProcessor, Processor, frame_rule

CACHE_BYTES = 2**29
GREY = (128, 128, 128)


class Pixels:
    """Processed images by path, the least recently used dropped above `CACHE_BYTES`.

    With `blank`, every image is replaced by a uniform grey one of the same size.
    """

    def __init__(self, image_processor: ImageProcessor, blank: bool = False) -> None:
        self.image_processor = image_processor
        self.blank = blank
        # (patches [t·h·w, values], grid [3]) by path
        self._kept: OrderedDict[str, tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._bytes = 0

    def __call__(self, path: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches [t·h·w, channels · pixels of a patch] and grid [3] = (t, h, w) of one image."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        image = open_image(Path(path), frame_rule(self.image_processor))
        if self.blank:
            image = Image.new("RGB", image.size, GREY)
        processed = self.image_processor([image], return_tensors="pt")
        entry = processed["pixel_values"], processed["image_grid_thw"][0]
        self._kept[path] = entry
        self._bytes += entry[0].nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            _, (dropped, _) = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
        return entry

    def settings(self) -> dict[str, Any]:
        """What the pixels of an image depend on besides the image."""
        return self.image_processor.to_dict()

    def tokens(self, grid: torch.Tensor) -> int:
        """How many tokens an image with this grid [3] takes in the text."""
        merged: int = self.image_processor.merge_size**2
        return int(grid.prod()) // merged


def picture(
    patches: torch.Tensor,  # [h·w, channels · frames · patch · patch]
    grid: torch.Tensor,  # [3] = (1, h, w)
    image_processor: ImageProcessor,
) -> Image.Image:
    """The image that `Pixels` made (patches, grid) of, as the model is shown it: resized, normalisation undone.

    `patches` is [h·w, channels · frames · patch · patch], a block of merge_size x merge_size patches after the
    other, as the family's image processor lays them out; both frames of a still image are the same.
    """
    _, height, width = grid.tolist()
    side, block = image_processor.patch_size, image_processor.merge_size
    parts = patches.reshape(height // block, width // block, block, block, 3, -1, side, side)[..., 0, :, :]
    values = parts.permute(0, 2, 5, 1, 3, 6, 4).reshape(height * side, width * side, 3)
    values = values * torch.tensor(image_processor.image_std) + torch.tensor(image_processor.image_mean)
    return Image.fromarray((values * 255).round().clamp(0, 255).to(torch.uint8).numpy())


def batch(
    rows: list[tuple[list[int], list[str]]], processor: Processor, pixels: Pixels
) -> dict[str, torch.Tensor]:
    """What generation goes on from: rows of (token ids with one placeholder an image, image paths), padded on the left.

    input_ids, attention_mask and mm_token_type_ids are [rows, longest]; pixel_values [patches, values] and
    image_grid_thw [images, 3] hold the images in the order of the rows, and are absent when no row has one.
    """
    images = [[pixels(path) for path in paths] for _, paths in rows]
    expanded = [
        expand(ids, [pixels.tokens(grid) for _, grid in row_images], processor.image_token_id)
        for (ids, _), row_images in zip(rows, images, strict=True)
    ]
    inputs = pad(expanded, processor, "left")
    flat = [entry for row_images in images for entry in row_images]
    if flat:
        inputs["pixel_values"] = torch.cat([patches for patches, _ in flat])
        inputs["image_grid_thw"] = torch.stack([grid for _, grid in flat])
    return inputs


def pad(sequences: list[list[int]], processor: Processor, side: str) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and mm_token_type_ids [rows, longest] of token ids, padded on `side`."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), processor.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        span = slice(0, len(sequence)) if side == "right" else slice(longest - len(sequence), longest)
        ids[row, span] = torch.tensor(sequence)
        mask[row, span] = 1
    kinds = torch.tensor(processor.create_mm_token_type_ids(ids.tolist()))
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}


def expand(ids: list[int], image_tokens: list[int], image_token_id: int) -> list[int]:
    """`ids` with the n-th image placeholder repeated as often as the n-th image has tokens."""
    counts = iter(image_tokens)
    return [copy for token in ids for copy in [token] * (next(counts) if token == image_token_id else 1)]
