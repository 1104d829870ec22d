"""Which rows are kept where a run is limited to some, to be tried out: a sample drawn by a seed."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

FEWEST_IMAGES = 4  # of a sample, where there are so many and it has so many rows


class Drawable(NamedTuple):
    """A row of a split: its number, the group of images that it belongs to, and its kind, each of which is kept."""

    number: int
    group: str
    kind: tuple[str, ...]


def choose(rows: Sequence[Drawable], limit: int, seed: str) -> set[int]:
    """The numbers of `limit` of the `rows`, or of all where there are fewer.

    Rows come image by image, so that they share pictures as the whole set does, from several images; of each kind there is
    one at least, as far as `limit` reaches.
    """
    groups = sorted({row.group for row in rows})
    random.Random(seed).shuffle(groups)
    place = {group: number for number, group in enumerate(groups)}
    share = max(1, limit // FEWEST_IMAGES)
    before: Counter[str] = Counter()
    turns = []  # (turn, place of the group, row): a group gives `share` rows, then waits until all others have
    for row in rows:
        turns.append((before[row.group] // share, place[row.group], row))
        before[row.group] += 1
    drawn = [row for _, _, row in sorted(turns)]
    firsts = {row.kind: row for row in reversed(drawn)}
    ordered = sorted(drawn, key=lambda row: firsts[row.kind] is not row)  # stable
    return {row.number for row in ordered[:limit]}
