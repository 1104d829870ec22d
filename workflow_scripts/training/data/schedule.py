"""The batches of a whole training, of a single pass and of a validation, as one process runs them."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import Processes
from workflow_scripts.configuration.settings import Training, micro_batches
from workflow_scripts.training.data import batching
from workflow_scripts.training.data.batching import Limits, Load, Row

Batches = list[list[int]]  # the numbers of the rows of each


@dataclass(frozen=True)
class Schedule:
    """This process's batches: of the whole training on `rows` rows, of a single pass over all, of a validation.

    `accumulation` batches make an optimiser step; `loads` are those of each step over all processes, and `peak` is
    the batch with the most tokens.
    """

    rows: int
    mine: Batches
    accumulation: int
    single_pass: Batches
    validation: Batches
    loads: list[Load]
    peak: Load

    @property
    def steps(self) -> int:
        return len(self.loads)

    def until(self, step: int) -> "Schedule":
        """The same, ending after `step`."""
        return replace(self, mine=self.mine[: step * self.accumulation], loads=self.loads[:step])


def make(
    settings: Training,
    costs: Sequence[Row],
    seed: int,
    equal: bool,
    held: Sequence[int] = (),
    process: Processes = Processes(),  # noqa: B008 - immutable
) -> Schedule:
    """Batches of up to `micro_batch_size` rows; `equal` ones for DPO, whose metrics want as many on each rank.

    A step takes as many batches as hold `batch_size` rows, of unequal ones on average. The rows `held` are validated
    on and not trained on.
    """
    sizes = _sizes(settings, process.count)

    def batches(rows: Sequence[int], epochs: float, equal: bool) -> tuple[int, list[Batches]]:
        """How many rows a batch has at most, and the batches of each rank."""
        chosen = [costs[row] for row in rows]
        for size in sizes:
            limits = Limits(size, settings.micro_batch_tokens, settings.rows_per_image)
            made = batching.batches(chosen, limits, epochs, seed, process.count, equal)
            if not equal or batching.largest(chosen, itertools.chain(*made)) <= limits.tokens:
                break
        return size, [[[rows[place] for place in batch] for batch in mine] for mine in made]

    trained = sorted(set(range(len(costs))) - set(held))
    size, training = batches(trained, settings.epochs, equal)
    on_average = size if equal else statistics.mean(map(len, itertools.chain(*training)))
    accumulation = max(1, round(settings.batch_size / (on_average * process.count)))
    if settings.max_steps:
        training = [mine[: settings.max_steps * accumulation] for mine in training]
    loads = [[batching.load(costs, batch) for batch in mine] for mine in training]
    return Schedule(
        len(trained),
        training[process.rank],
        accumulation,
        batches(range(len(costs)), 1, equal)[1][process.rank],
        batches(held, 1, equal=True)[1][process.rank],
        _steps(loads, accumulation),
        max(itertools.chain(*loads), key=lambda load: load.tokens),
    )


def _sizes(settings: Training, processes: int) -> list[int]:
    """How many rows a batch may have, the most first.

    Batches of equal size cannot be filled to the token limit one by one: all of them are made smaller.
    """
    try:
        most, _ = micro_batches(settings.batch_size, settings.micro_batch_size, processes)
    except ValueError as error:
        raise UserError(str(error)) from None
    return [size for size in range(most, 0, -1) if settings.batch_size % (size * processes) == 0]


def _steps(loads: list[list[Load]], accumulation: int) -> list[Load]:
    """The loads of each rank's batches as those of the optimiser steps."""
    starts = range(0, len(loads[0]), accumulation)
    return [
        sum((load for mine in loads for load in mine[start : start + accumulation]), Load())
        for start in starts
    ]
