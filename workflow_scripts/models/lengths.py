"""How many tokens records take, by the tokenizer and the image processor's arithmetic: no pixel is decoded."""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from workflow_scripts.datasets.records import Record
from workflow_scripts.models.dialogue import Dialogue

BINS = 20


def lengths(
    records: Sequence[Record], image_tokens: Sequence[Sequence[int]], dialogue: Dialogue
) -> list[int]:
    """The length in tokens of each record's longest rendered turn; `image_tokens` are those of its images."""
    turns = [list(dialogue.turns(record)) for record in records]
    texts = sorted({text for row in turns for turn in row for text in (turn.prompt, turn.completion)})
    encoded = dialogue.processor.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    count = {text: len(ids) for text, ids in zip(texts, encoded, strict=True)}
    # In a text, an image is one placeholder.
    return [
        max(
            count[turn.prompt] + count[turn.completion] + sum(tokens[: len(turn.images)]) - len(turn.images)
            for turn in row
        )
        for row, tokens in zip(turns, image_tokens, strict=True)
    ]


class Distribution(TypedDict):
    """Lengths in bins of equal width: `histogram` is [[from, up to, how many], …]."""

    max: int
    mean: float
    limit: int
    histogram: list[list[int]]


def distribution(found: "array[int]", limit: int) -> Distribution:
    """How the lengths `found` are distributed, beside their `limit`."""
    histogram = []
    if found:
        low = min(found)
        width = (max(found) - low) // BINS + 1
        counts = Counter((value - low) // width for value in found)
        histogram = [
            [low + index * width, low + (index + 1) * width, counts[index]]
            for index in range(max(counts) + 1)
        ]
    return {
        "max": max(found, default=0),
        "mean": sum(found) / max(1, len(found)),
        "limit": limit,
        "histogram": histogram,
    }
