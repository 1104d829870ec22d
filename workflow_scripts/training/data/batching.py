"""Which rows make up each batch of a whole training: rows of one image lie together."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import cycle, islice

OPEN_BATCHES = 8  # how many unfinished batches a group may be placed in


@dataclass(frozen=True)
class Row:
    """What planning needs of a row: its images, each with its tokens, and how many tokens are its own.

    Rows of the same `image`, the first of them, are planned together. `total_tokens` is what its sequences (one, two
    of a pair) hold when each is run on its own.
    """

    image: str
    images: tuple[tuple[str, int], ...]
    own_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Limits:
    """Of one batch: `rows`, unique `tokens`, and `rows_per_image`, which keeps gradients diverse."""

    rows: int
    tokens: int
    rows_per_image: int


@dataclass(frozen=True)
class Load:
    """What is run: rows, forward passes of an image, their tokens, unique tokens, and the rows' tokens in all."""

    rows: int = 0
    images: int = 0
    image_tokens: int = 0
    tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def image_reuse(self) -> float:
        """Rows per forward pass of an image; 1 where no row has one."""
        return self.rows / self.images if self.images else 1.0


def batches(
    rows: Sequence[Row], limits: Limits, epochs: float, seed: int, ranks: int = 1, equal: bool = False
) -> list[list[list[int]]]:
    """The batches of each rank, for all `epochs` one after the other.

    Every rank has as many, and those that run at the same time are of like cost. `equal` makes all batches of
    `limits.rows` rows, where an image's rows may come to lie in two batches, and two parts of an image in one; of
    one rank the last is shorter.
    A function of its arguments alone: a resumed training goes on at the same place without looking at what came
    before.
    """
    plan: list[list[list[int]]] = [[] for _ in range(ranks)]
    whole, part = int(epochs), epochs - int(epochs)
    for epoch in range(whole + bool(part)):
        chance = random.Random(f"{seed}-{epoch}")
        made = _equal(rows, limits, chance, ranks) if equal else _epoch(rows, limits, chance)
        if epoch == whole:
            made = made[: ranks * max(1, round(part * len(made) / ranks))]
        for step in _balanced(rows, made, ranks, chance):
            for rank, batch in enumerate(step):
                plan[rank].append(batch)
    return plan


def cost(rows: Sequence[Row], batch: Sequence[int]) -> int:
    """Unique tokens of a batch: each image once, each row's own."""
    return _image_tokens(rows, batch) + sum(rows[index].own_tokens for index in batch)


def load(rows: Sequence[Row], batch: Sequence[int]) -> Load:
    """What one batch is."""
    return Load(
        rows=len(batch),
        images=len({image for index in batch for image, _ in rows[index].images}),
        image_tokens=_image_tokens(rows, batch),
        tokens=cost(rows, batch),
        total_tokens=sum(rows[index].total_tokens for index in batch),
    )


def _image_tokens(rows: Sequence[Row], batch: Sequence[int]) -> int:
    """Tokens of the batch's images; of several images, rows share those that both begin with."""
    beginnings = {
        rows[index].images[:end] for index in batch for end in range(1, len(rows[index].images) + 1)
    }
    return sum(images[-1][1] for images in beginnings)


def largest(rows: Sequence[Row], batches: Iterable[Sequence[int]]) -> int:
    """The cost of the most expensive batch; 0 where there is none."""
    return max((cost(rows, batch) for batch in batches), default=0)


def _epoch(rows: Sequence[Row], limits: Limits, chance: random.Random) -> list[list[int]]:
    """Each row once, in batches within `limits`; a row above the token limit is a batch of its own."""
    finished: list[list[int]] = []
    unfinished: list[list[int]] = []
    for group in _groups(rows, limits, chance):
        image = rows[group[0]].image
        target = next(
            (
                batch
                for batch in unfinished
                if image not in {rows[index].image for index in batch} and _fits(rows, batch + group, limits)
            ),
            None,
        )
        if target is None:
            unfinished.append(target := [])
        target += group
        if len(target) == limits.rows:
            unfinished.remove(target)
            finished.append(target)
        elif len(unfinished) > OPEN_BATCHES:
            finished.append(unfinished.pop(0))
    finished += unfinished
    chance.shuffle(finished)
    return finished


def _equal(rows: Sequence[Row], limits: Limits, chance: random.Random, ranks: int) -> list[list[int]]:
    """Each row once, in batches of `limits.rows`; several ranks fill the last step with rows of the first."""
    line = [index for group in _groups(rows, limits, chance) for index in group]
    if ranks > 1:
        line += list(islice(cycle(line), -len(line) % (limits.rows * ranks)))
    return [line[start : start + limits.rows] for start in range(0, len(line), limits.rows)]


def _groups(rows: Sequence[Row], limits: Limits, chance: random.Random) -> list[list[int]]:
    """The rows of each image in random order, in parts that fit one batch; the parts in random order."""
    by_image: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_image.setdefault(row.image, []).append(index)
    groups = []
    for members in by_image.values():
        chance.shuffle(members)
        group: list[int] = []
        for index in members:
            if group and not (len(group) < limits.rows_per_image and _fits(rows, [*group, index], limits)):
                groups.append(group)
                group = []
            group = [*group, index]
        groups.append(group)
    chance.shuffle(groups)
    return groups


def _fits(rows: Sequence[Row], batch: list[int], limits: Limits) -> bool:
    return len(batch) <= limits.rows and cost(rows, batch) <= limits.tokens


def _balanced(
    rows: Sequence[Row], made: list[list[int]], ranks: int, chance: random.Random
) -> list[list[list[int]]]:
    """The batches in steps of one per rank; the largest are halved until they come out even."""
    if ranks == 1:
        return [[batch] for batch in made]
    made = sorted(made, key=lambda batch: cost(rows, batch))
    while len(made) % ranks:
        largest = max(made, key=len)
        made.remove(largest)
        if len(largest) == 1:  # every batch is a single row: some run twice
            made += [largest, largest]
        else:
            made += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    made.sort(key=lambda batch: cost(rows, batch))
    steps = [made[start : start + ranks] for start in range(0, len(made), ranks)]
    chance.shuffle(steps)
    return steps
