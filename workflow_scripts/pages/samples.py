"""A few rows of a run as the model sees them, for the page of the validate stage."""

import hashlib
import heapq
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from workflow_scripts.datasets.checks.structure import PlacedRecord
from workflow_scripts.datasets.records import SPLITS
from workflow_scripts.models.dialogue import Dialogue, image_paths
from workflow_scripts.models.interfaces import Tokenizer
from workflow_scripts.pages import thumbnails

if TYPE_CHECKING:
    import torch
    from PIL import Image

SAMPLES = 12
IMAGES = 4  # shown of a row


class Sampler:
    """Draws rows evenly over splits and sets while they stream by; `seed` and the ids alone decide."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[tuple[int, str], list[tuple[int, int, PlacedRecord]]] = defaultdict(list)

    def add(self, row: PlacedRecord) -> None:
        drawn = self._drawn[SPLITS.index(row.split), row.record["source"]]
        digest = hashlib.blake2b(f"{self._seed}-{row.record['id']}".encode(), digest_size=8)
        # The line breaks the tie of an id that stands twice.
        entry = (-int.from_bytes(digest.digest()), row.line, row)
        (heapq.heappush if len(drawn) < SAMPLES else heapq.heappushpop)(drawn, entry)

    def rows(self) -> list[PlacedRecord]:
        """At most SAMPLES rows, in the order of the splits."""
        groups = [[row for *_, row in sorted(drawn)] for _, drawn in sorted(self._drawn.items())]
        picked = [row for turn in zip_longest(*groups) for row in turn if row][:SAMPLES]
        return sorted(picked, key=lambda row: SPLITS.index(row.split))


class Sample(TypedDict):
    """A row as the model sees it; `images` are data URIs, `target` is the trained text by tokens."""

    id: str
    source: str
    split: str
    images: list[str]
    image_tokens: list[int]
    prompt: str
    target: list[str]
    target_tokens: int


class Viewer:
    """Shows rows as training would: images through the image processor, text through the chat template."""

    def __init__(self, dialogue: Dialogue, folder: Path) -> None:
        from workflow_scripts.models.pixels import Pixels

        self._dialogue, self._folder = dialogue, folder
        self._image_processor = dialogue.processor.image_processor
        self._pixels = Pixels(self._image_processor)

    def show(self, row: PlacedRecord) -> Sample:
        """The last turn of a row: its images as data URIs and in tokens, the prompt, and the trained text by tokens.

        An image that cannot be decoded is a UserError.
        """
        *_, turn = self._dialogue.turns(row.record)
        found = [self._pixels(path) for path in image_paths(turn.images, self._folder)]
        return {
            "id": row.record["id"],
            "source": row.record["source"],
            "split": row.split,
            "images": [thumbnails.thumbnail(self._seen(*entry)) for entry in found[:IMAGES]],
            "image_tokens": [self._pixels.tokens(grid) for _, grid in found],
            "prompt": turn.prompt,
            "target": token_texts(self._dialogue.processor.tokenizer, turn.completion),
            "target_tokens": len(self._dialogue.tokens(turn.completion)),
        }

    def _seen(
        self,
        patches: "torch.Tensor",  # [h·w, values]
        grid: "torch.Tensor",  # [3] = (1, h, w)
    ) -> "Image.Image":
        from workflow_scripts.models.pixels import picture

        return picture(patches, grid, self._image_processor)


def token_texts(tokenizer: Tokenizer, text: str) -> list[str]:
    """`text` cut where its tokens begin; tokens that share a character, as rare Chinese ones do, stay together."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts = sorted({0, *(start for start, _ in offsets)})
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
