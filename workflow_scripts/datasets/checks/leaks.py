"""What the splits of a run share, counted over a ledger that keeps some 40 bytes of each row."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from workflow_scripts.datasets.records import SPLITS, Record

SPLIT_PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
ALL = "all"

Group = tuple[str, str]  # set and language; ALL stands for any
Numbers = NDArray[np.integer[Any]]
Rows = NDArray[Any]  # rows of the ledger: a mask over all of them, or their numbers


class Matrix(TypedDict):
    """What two splits share, as `Ledger.matrix` says."""

    held: str
    tested: str
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]


class Ledger:
    """Rows by what they hold: texts as 64-bit hashes, images by number.

    An image is known by whatever the caller gives as its content, which must be the same for the same image.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], int] = {}
        self._images: dict[str, int] = {}
        self._group, self._line = array("H"), array("I")
        self._id, self._content, self._copy = array("Q"), array("Q"), array("b")
        # One entry for each image of each row: a row may show several.
        self._shown_row, self._shown_image = array("I"), array("I")

    def add(self, split: str, line: int, record: Record, images: Sequence[str], copy: bool = False) -> None:
        """Enter a record that stands on `line` of the file of `split`; `images` are the contents of its images.

        A `copy` repeats an earlier row on purpose and counts for no duplicate.
        """
        group = split, record["source"], record["language"]
        row = len(self._group)
        self._group.append(self._groups.setdefault(group, len(self._groups)))
        self._line.append(line)
        self._id.append(_hash(record["id"]))
        self._content.append(_hash(*images, record["question"], record["answer"]))
        self._copy.append(copy)
        for image in images:
            self._shown_row.append(row)
            self._shown_image.append(self._images.setdefault(image, len(self._images)))

    def repeated_ids(self) -> Iterator[tuple[str, str]]:
        """(place, earlier place) of each row whose id stood before, in whatever split."""
        yield from self._repeats(self._id, np.arange(len(self._id)))

    def repeated_rows(self) -> Iterator[tuple[str, str]]:
        """(place, earlier place) of each row that asks and answers the same of the same images as one of its split."""
        for split in SPLITS:
            yield from self._repeats(
                self._content, np.flatnonzero(self._rows(split) & (_column(self._copy) == 0))
            )

    def _repeats(self, values: "array[int]", rows: Rows) -> Iterator[tuple[str, str]]:
        _, first, inverse = np.unique(_column(values)[rows], return_index=True, return_inverse=True)
        earlier = rows[first[inverse]]
        for index in np.flatnonzero(earlier != rows):
            yield self._place(rows[index]), self._place(earlier[index])

    def _place(self, row: int) -> str:
        split, _, _ = list(self._groups)[self._group[row]]
        return f"{split}.jsonl:{self._line[row]}"

    def shared_images(self, held: str, tested: str) -> tuple[set[str], int]:
        """The images of split `tested` that `held` has too, and how many rows of `tested` show one."""
        numbers, rows = self._overlap(self._rows(held), self._rows(tested))
        names = np.array(list(self._images), dtype=object)
        return set(names[numbers]), rows

    def matrix(self, held: str, tested: str) -> Matrix:
        """What the sets of split `held` share with those of `tested`, by set and language and over all of them.

        {"held", "tested", "columns": [{"set", "language", "images", "rows"}] of `tested`, "rows": [{"set",
        "language", "cells": [{"images", "rows", "exact"}]}] of `held`}: of a column's images and rows, how many
        `held` has the image of, and how many rows it has with the same images, question and answer.
        """
        content = _column(self._content)
        sides = {
            split: {group: self._rows(split, group) for group in self._margins(split)}
            for split in (held, tested)
        }
        cells: dict[tuple[Group, Group], dict[str, int]] = {}
        for (a, known), (b, rows) in product(sides[held].items(), sides[tested].items()):
            images, affected = self._overlap(known, rows)
            exact = int(np.isin(content[rows], content[known]).sum())
            cells[a, b] = {"images": len(images), "rows": affected, "exact": exact}
        return {
            "held": held,
            "tested": tested,
            "columns": [
                {**_named(group), "images": len(self._images_of(rows)), "rows": int(rows.sum())}
                for group, rows in sides[tested].items()
            ],
            "rows": [{**_named(a), "cells": [cells[a, b] for b in sides[tested]]} for a in sides[held]],
        }

    def _margins(self, split: str) -> list[Group]:
        """The sets and languages of a split, each set over its languages, and all sets, where those are several."""
        own = sorted((source, language) for part, source, language in self._groups if part == split)
        sources = sorted({source for source, _ in own})
        found: list[Group] = []
        for source in sources:
            languages = [group for group in own if group[0] == source]
            found += languages + ([(source, ALL)] if len(languages) > 1 else [])
        return found + ([(ALL, ALL)] if len(sources) > 1 else [])

    def _rows(self, split: str, group: Group = (ALL, ALL)) -> Rows:
        """Which rows belong to the group of the split, as a mask over all rows."""
        wanted = [
            part == split and group[0] in (source, ALL) and group[1] in (language, ALL)
            for part, source, language in self._groups
        ]
        return np.array(wanted, bool)[_column(self._group)]

    def _images_of(self, rows: Rows) -> Numbers:
        return np.unique(_column(self._shown_image)[rows[_column(self._shown_row)]])

    def _overlap(self, known: Rows, rows: Rows) -> tuple[Numbers, int]:
        """The numbers of the images that both masks' rows show, and how many of `rows` show one."""
        shared = np.intersect1d(self._images_of(known), self._images_of(rows))
        shown = _column(self._shown_row)
        hit = np.isin(_column(self._shown_image), shared) & rows[shown]
        return shared, len(np.unique(shown[hit]))


def _column(values: "array[int]") -> Numbers:
    """A column as numpy sees it, without a copy."""
    return np.frombuffer(values, values.typecode) if values else np.array([], values.typecode)


def _named(group: Group) -> dict[str, str]:
    return {"set": group[0], "language": group[1]}


def _hash(*texts: str) -> int:
    digest = hashlib.blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
