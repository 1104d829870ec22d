"""The batches of a whole training, of a single pass and of a validation, as one process runs them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import Processes
from workflow_scripts.configuration.settings import Training
from workflow_scripts.training.data import batching
from workflow_scripts.training.data.batching import Limits, Load, RowCost, StepSize

Batches = list[list[int]]  # the numbers of the rows of each
Item = TypeVar("Item")


@dataclass(frozen=True)
class Schedule:
    """This process's batches: of the whole training on `rows` rows, of a single pass over all, of a validation.

    `accumulation` batches make an optimiser step; `loads` are those of each step over all processes, `images` how many
    distinct ones each shows, and `peak` is the batch with the most tokens. Only DPO needs the single pass.
    """

    rows: int
    mine: Batches
    accumulation: int
    single_pass: Batches
    validation: Batches
    loads: list[Load]
    images: list[int]
    peak: Load

    @property
    def steps(self) -> int:
        return len(self.loads)

    def until(self, step: int) -> "Schedule":
        """The same, ending after `step`."""
        return replace(
            self,
            mine=self.mine[: step * self.accumulation],
            loads=self.loads[:step],
            images=self.images[:step],
        )


def make(
    settings: Training,
    costs: Sequence[RowCost],
    seed: int,
    equal: bool,
    held: Sequence[int] = (),
    process: Processes = Processes(),  # noqa: B008 - immutable
) -> Schedule:
    """Steps of `batch_size` rows in as few passes as hold them; `equal` ones for DPO, whose metrics want as many rows on
    each rank. The rows `held` are validated on and not trained on.
    """
    if settings.batch_size % process.count:
        raise UserError(f"batch_size {settings.batch_size} is not a multiple of {process.count} processes")
    planner = _Planner(settings, costs, seed, process.count)
    trained = sorted(set(range(len(costs))) - set(held))
    accumulation, training = (planner.equal if equal else planner.filled)(trained, settings.epochs)
    if settings.max_steps:
        training = [mine[: settings.max_steps * accumulation] for mine in training]
    loads = [[batching.load(costs, batch) for batch in mine] for mine in training]
    return Schedule(
        rows=len(trained),
        mine=training[process.rank],
        accumulation=accumulation,
        single_pass=planner.equal(range(len(costs)), 1)[1][process.rank] if equal else [],
        validation=planner.equal(held, 1)[1][process.rank],
        loads=[sum(step, Load()) for step in _by_step(loads, accumulation)],
        images=[
            len({costs[row].image for batch in step for row in batch})
            for step in _by_step(training, accumulation)
        ],
        peak=max(itertools.chain(*loads), key=lambda load: load.tokens),
    )


@dataclass(frozen=True)
class _Planner:
    """Plans the batches of some of the rows for all `ranks`."""

    settings: Training
    costs: Sequence[RowCost]
    seed: int
    ranks: int

    def filled(self, rows: Sequence[int], epochs: float) -> tuple[int, list[Batches]]:
        """How many passes a step takes, and each rank's batches, which are filled to the limits."""
        chosen = [self.costs[row] for row in rows]
        limits = Limits(self.settings.micro_batch_tokens, self.settings.micro_batch_size)
        steps = batching.steps(chosen, self._step, limits, epochs, self.seed)
        made = batching.passes(chosen, steps, limits, self.ranks)
        by_rank = zip(*itertools.chain(*made), strict=True)
        return len(made[0]), [_named(rows, mine) for mine in by_rank]

    def equal(self, rows: Sequence[int], epochs: float) -> tuple[int, list[Batches]]:
        """The same in batches of as many rows, the most that divide a step and keep the limits."""
        chosen = [self.costs[row] for row in rows]
        share = self.settings.batch_size // self.ranks
        for size in range(min(self.settings.micro_batch_size or share, share), 0, -1):
            if share % size == 0:
                limits = Limits(self.settings.micro_batch_tokens, size)
                steps = batching.steps(chosen, self._step, limits, epochs, self.seed, whole=True)
                made = batching.equal_batches(steps, size, self.ranks)
                if batching.largest(chosen, itertools.chain(*made)) <= limits.tokens:
                    break
        return share // size, [_named(rows, mine) for mine in made]

    @property
    def _step(self) -> StepSize:
        settings = self.settings
        return StepSize(settings.batch_size, settings.images_per_step, settings.rows_per_image)


def _named(rows: Sequence[int], batches: Sequence[Sequence[int]]) -> Batches:
    """`batches` of places in `rows` as the rows there."""
    return [[rows[place] for place in batch] for batch in batches]


def _by_step(of_ranks: Sequence[Sequence[Item]], accumulation: int) -> list[list[Item]]:
    """What the ranks have for each of their batches, of all batches of an optimiser step together."""
    starts = range(0, len(of_ranks[0]), accumulation)
    return [[item for mine in of_ranks for item in mine[start : start + accumulation]] for start in starts]
