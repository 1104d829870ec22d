"""Which rows make up each optimiser step and forward pass of a whole training: rows of one image lie together."""

import heapq
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

Group = list[int]  # rows of one image that are run together


@dataclass(frozen=True)
class RowCost:
    """What planning needs of a row: its images, each with its tokens, and how many tokens are its own.

    Rows of the same `image`, the first of them, are planned together. `total_tokens` is what its sequences (one, two
    of a pair) hold when each is run on its own.
    """

    image: str
    images: tuple[tuple[str, int], ...]
    own_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class StepSize:
    """Of an optimiser step over all processes: its `rows`, of at least `images` where there are as many.

    At most `rows_per_image` of one image are run together: fewer are slower, and more diverse.
    """

    rows: int
    images: int
    rows_per_image: int


@dataclass(frozen=True)
class Limits:
    """Of one forward pass: unique `tokens`, and `rows` where these are limited too."""

    tokens: int
    rows: int | None = None


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

    def __sub__(self, other: "Load") -> "Load":
        return Load(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def image_reuse(self) -> float:
        """Rows per forward pass of an image; 1 where no row has one."""
        return self.rows / self.images if self.images else 1.0


def steps(
    rows: Sequence[RowCost], size: StepSize, limits: Limits, epochs: float, seed: int, whole: bool = False
) -> list[list[Group]]:
    """The optimiser steps of all `epochs`, as groups that each fit one pass.

    An epoch's rows are divided evenly, each once; with `whole` each step has `size.rows`, the last what is left. A
    step shows an image once as long as there are others. A function of its arguments alone: a resumed training goes
    on at the same place without looking at what came before.
    """
    count = -(-len(rows) // size.rows) if whole else max(1, round(len(rows) / size.rows))
    cuts = [
        min(step * size.rows, len(rows)) if whole else step * len(rows) // count for step in range(count + 1)
    ]
    sizes = [end - start for start, end in itertools.pairwise(cuts)]
    most = max(1, min(size.rows_per_image, (size.rows if whole else min(sizes)) // size.images))
    full, part = int(epochs), epochs - int(epochs)
    plan = []
    for epoch in range(full + bool(part)):
        chance = random.Random(f"{seed}-{epoch}")
        made = _epoch(_groups(rows, most, limits, chance), sizes, chance)
        plan += made if epoch < full else made[: max(1, round(part * count))]
    return plan


def passes(
    rows: Sequence[RowCost], steps: Sequence[Sequence[Group]], limits: Limits, ranks: int
) -> list[list[list[list[int]]]]:
    """For each step its forward passes, in turns of one batch for each rank: in as few turns as keep the limits.

    All steps have as many. The batches of a turn are of like cost; a row above the token limit is one of its own.
    """
    for turns in itertools.count(1):
        made = []
        for step in steps:
            batches = _divided(rows, step, turns * ranks)
            if any(len(batch) > 1 and not _fits(rows, batch, limits) for batch in batches):
                break
            made.append([batches[start : start + ranks] for start in range(0, len(batches), ranks)])
        else:
            return made
    raise AssertionError("a single row is within any limit")


def equal_batches(steps: Sequence[Sequence[Group]], size: int, ranks: int) -> list[list[list[int]]]:
    """The batches of each rank, of `size` rows: an image's rows may lie in two, and two parts of an image in one.

    Several ranks fill the last turn with rows of the first; of one rank the last batch is shorter.
    """
    line = [row for step in steps for group in step for row in group]
    if ranks > 1:
        line += itertools.islice(itertools.cycle(line), -len(line) % (size * ranks))
    made = [line[start : start + size] for start in range(0, len(line), size)]
    return [made[rank::ranks] for rank in range(ranks)]


def cost(rows: Sequence[RowCost], batch: Sequence[int]) -> int:
    """Unique tokens of a batch: each image once, each row's own."""
    return _image_tokens(rows, batch) + sum(rows[index].own_tokens for index in batch)


def load(rows: Sequence[RowCost], batch: Sequence[int]) -> Load:
    """What one batch is."""
    image_tokens = _image_tokens(rows, batch)
    return Load(
        rows=len(batch),
        images=len({image for index in batch for image, _ in rows[index].images}),
        image_tokens=image_tokens,
        tokens=image_tokens + sum(rows[index].own_tokens for index in batch),
        total_tokens=sum(rows[index].total_tokens for index in batch),
    )


def _image_tokens(rows: Sequence[RowCost], batch: Sequence[int]) -> int:
    """Tokens of the batch's images; of several images, rows share those that both begin with."""
    beginnings = {
        rows[index].images[:end] for index in batch for end in range(1, len(rows[index].images) + 1)
    }
    return sum(images[-1][1] for images in beginnings)


def largest(rows: Sequence[RowCost], batches: Iterable[Sequence[int]]) -> int:
    """The cost of the most expensive batch; 0 where there is none."""
    return max((cost(rows, batch) for batch in batches), default=0)


def _groups(rows: Sequence[RowCost], most: int, limits: Limits, chance: random.Random) -> list[list[Group]]:
    """The groups of each image: its rows in random order, in parts of like size up to `most` that fit one pass."""
    by_image: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_image.setdefault(row.image, []).append(index)
    made = []
    for members in by_image.values():
        chance.shuffle(members)
        even = -(-len(members) // -(-len(members) // most))
        parts = (members[start : start + even] for start in range(0, len(members), even))
        made.append([group for part in parts for group in _fitting(rows, part, limits)])
    return made


def _fitting(rows: Sequence[RowCost], part: Group, limits: Limits) -> list[Group]:
    """`part`, halved until each piece fits one pass or is a single row."""
    if len(part) == 1 or _fits(rows, part, limits):
        return [part]
    half = len(part) // 2
    return [*_fitting(rows, part[:half], limits), *_fitting(rows, part[half:], limits)]


def _epoch(images: list[list[Group]], sizes: Sequence[int], chance: random.Random) -> list[list[Group]]:
    """The groups of all images in steps of `sizes` rows, in random order; those of one image are spread evenly."""
    # (when an image is due, as a share of the epoch; which)
    waiting = [(chance.random() / len(groups), number) for number, groups in enumerate(images)]
    every = [1 / len(groups) for groups in images]
    heapq.heapify(waiting)
    made = []
    for size in sizes:
        step: list[Group] = []
        shown: list[tuple[float, int]] = []
        while size:
            if not waiting:  # the step shows all images that are left
                waiting, shown = sorted(shown), []
            due, number = heapq.heappop(waiting)
            group = images[number].pop()
            if len(group) > size:
                images[number].append(group[size:])
                group = group[:size]
                shown.append((due, number))
            elif images[number]:
                shown.append((due + every[number], number))
            step.append(group)
            size -= len(group)
        for image in shown:
            heapq.heappush(waiting, image)
        made.append(step)
    return made


def _divided(rows: Sequence[RowCost], step: Sequence[Group], count: int) -> list[list[int]]:
    """The groups of a step in `count` batches of like cost, the largest first.

    Where there are too few, the largest are halved; of single rows some run twice.
    """
    groups = list(step)
    while len(groups) < count:
        largest = max(groups, key=len)
        groups.remove(largest)
        half = len(largest) // 2
        groups += [largest[half:], largest[:half] or largest]
    costs = sorted(((cost(rows, group), group) for group in groups), reverse=True)
    batches: list[tuple[int, int, list[int]]] = [(0, number, []) for number in range(count)]
    for own, group in costs:
        load, number, batch = batches[0]
        heapq.heapreplace(batches, (load + own, number, batch + group))
    return [batch for _, _, batch in sorted(batches, reverse=True)]


def _fits(rows: Sequence[RowCost], batch: Sequence[int], limits: Limits) -> bool:
    return cost(rows, batch) <= limits.tokens and (limits.rows is None or len(batch) <= limits.rows)
