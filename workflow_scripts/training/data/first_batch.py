"""What the model is really given, for a person to read: the tensors of a batch as text, and its tree of shared prefixes.

Nothing is rendered again: tokens come from the batch alone, and of the data set only the names of rows and images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from workflow_scripts.training.data.collators import IGNORED

MARKS = "⟦", "⟧"  # around trained tokens
WIDTH = 100  # of the text of a node


@dataclass(frozen=True)
class BatchRow:
    """A row as the model sees it: its token ids and which of these are trained, [length] both; `place` is its last token's
    in the flat tree."""

    name: str
    ids: list[int]
    trained: list[bool]
    thought: int
    place: int


class BatchView:
    """A batch of SftCollator or PreferenceCollator, as a trainer hands it to the model, and the data set's `rows` in it."""

    def __init__(self, batch: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], processor: Any) -> None:
        self._batch, self._rows, self._processor = batch, rows, processor
        tree = batch["tree"]
        self._ids, self._ends, self._gather = (tree[name].cpu() for name in ("input_ids", "ends", "gather"))
        self.rows = [self._row(number) for number in range(len(batch["input_ids"]))]

    def lines(self) -> Iterator[str]:
        """The sizes, the first sample with its trained tokens marked, and the tree."""
        whole, run = sum(len(row.ids) - 1 for row in self.rows), len(self._on_paths())
        images = len(self._batch["tree"]["image_sizes"])
        yield (
            f"first batch: {len(self.rows)} rows, {images} images, {run:,} tokens run for {whole:,} in its rows"
        )
        sides = len(self.rows) // len(self._rows)  # two of a pair
        for row in self.rows[:: len(self._rows)][:sides]:
            thought = f", {row.thought} of these of a thought" if row.thought else ""
            yield (
                f"first sample, {row.name}: {len(row.ids)} tokens, {sum(row.trained)} trained{thought}, between "
                f"{' and '.join(MARKS)}:"
            )
            yield f"  {self._text(row.ids, row.trained)}"
        yield "tree of the first batch, each node with its tokens, and which rows end in it:"
        for sequence, ends in enumerate(self._ends.tolist()):
            yield from self._nodes(sequence, ends, 0, len(ends), 1)

    def _row(self, number: int) -> BatchRow:
        """The row `number` of the batch: its path through the tree, and the last token, which predicts nothing."""
        batch, length = self._batch, self._ids.shape[1]
        count = int(
            batch["attention_mask"][number].sum()
        )  # of its tail: a token of the prompt, then the completion
        tail = batch["input_ids"][number, :count].tolist()
        place = int(self._gather[number, count - 2])
        sequence, last = divmod(place, length)
        on_path = self._ends[sequence, : last + 1] > last
        ids = [*self._ids[sequence, : last + 1][on_path].tolist(), tail[-1]]
        trained = batch["labels"] != IGNORED if "labels" in batch else batch["completion_mask"] > 0
        of_tail = trained[number, :count].tolist()
        thought = int(batch["thought_mask"][number].sum()) if "thought_mask" in batch else 0
        side, index = divmod(number, len(self._rows))
        name = str(self._rows[index]["id"])
        if len(self._batch["input_ids"]) > len(self._rows):
            name += (" chosen", " rejected")[side]
        return BatchRow(name, ids, [False] * (len(ids) - count) + of_tail, thought, place)

    def _on_paths(self) -> set[int]:
        """The places of the flat tree that a row passes through; the others are padding."""
        length, found = self._ids.shape[1], set[int]()
        for row in self.rows:
            sequence, last = divmod(row.place, length)
            places = torch.nonzero(self._ends[sequence, : last + 1] > last).flatten().tolist()
            found.update(sequence * length + place for place in places)
        return found

    def _nodes(self, sequence: int, ends: list[int], start: int, stop: int, depth: int) -> Iterator[str]:
        """A line for each run of tokens without a fork from `start` to `stop` of a sequence, indented by depth."""
        length = len(ends)
        while start < stop:
            end, last = ends[start], start
            while last + 1 < end and ends[last + 1] == end:
                last += 1
            below = [
                row for row in self.rows if sequence * length + start <= row.place < sequence * length + end
            ]
            if below:  # else it is padding
                here = [row.name for row in below if row.place <= sequence * length + last]
                ids = self._ids[sequence, start : last + 1].tolist()
                text = shorten(self._text(ids, [False] * len(ids)), WIDTH, placeholder=" …")
                shown = f"  <- {', '.join(here)}" if here else ""
                pictures = self._pictures(below[0]) if depth == 1 else ""
                yield f"{'  ' * depth}{len(ids)} tokens{pictures}: {text}{shown}"
                yield from self._nodes(sequence, ends, last + 1, end, depth + 1)
            start = end

    def _pictures(self, row: BatchRow) -> str:
        paths = self._rows[self.rows.index(row) % len(self._rows)]["image_paths"]
        names = ["/".join(Path(path).parts[-2:]) for path in paths]
        return f" of {', '.join(names)}" if names else ""

    def _text(self, ids: Sequence[int], trained: Sequence[bool]) -> str:
        """The tokens as text in one line, an image's run of them as one with their number, trained ones marked."""
        image = self._processor.image_token_id
        parts = []
        for (is_image, marked), run in groupby(
            zip(ids, trained, strict=True), key=lambda pair: (pair[0] == image, pair[1])
        ):
            tokens = [token for token, _ in run]
            if is_image:
                text = f"{self._processor.tokenizer.decode([image])}×{len(tokens)}"
            else:
                text = self._processor.tokenizer.decode(tokens).replace("\n", "\\n")
            parts.append(text.join(MARKS) if marked else text)
        return "".join(parts)
