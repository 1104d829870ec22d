"""A plan shows every row once an epoch, keeps an image's rows together and stays within its limits."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.base.processes import Processes
from workflow_scripts.configuration.settings import Dpo, Sft
from workflow_scripts.training.data import batching, schedule
from workflow_scripts.training.data.batching import Limits, RowCost, StepSize

TOKENS = {"a": 20, "b": 10, "c": 20, "d": 5, "e": 20, "f": 15}


def row(images: list[str], own: int) -> RowCost:
    shown = tuple((image, TOKENS[image]) for image in images)
    return RowCost(
        images[0] if images else f"no image, {own}", shown, own, own + sum(map(TOKENS.get, images))
    )


def of_images(count: int, each: int, tokens: int = 10, own: int = 1) -> list[RowCost]:
    """`each` rows on each of `count` images."""
    return [
        RowCost(str(image), ((str(image), tokens),), own, tokens + own)
        for image in range(count)
        for _ in range(each)
    ]


images = st.lists(st.sampled_from(sorted(TOKENS)), max_size=3)
rows = st.lists(st.builds(row, images, st.integers(1, 15)), min_size=1, max_size=40)
sizes = st.builds(StepSize, st.integers(1, 16), st.integers(1, 5), st.integers(1, 5))
limits = st.builds(Limits, st.integers(20, 120), st.none() | st.integers(1, 9))
seeds = st.integers(0, 9)


def rows_of(step: list[list[int]]) -> list[int]:
    return [index for group in step for index in group]


@given(rows, sizes, limits, st.integers(1, 3), seeds, st.booleans())
def test_each_row_stands_in_each_epoch_once(rows, size, limits, epochs, seed, whole):
    steps = batching.steps(rows, size, limits, epochs, seed, whole)
    for epoch in range(epochs):
        each = len(steps) // epochs
        found = Counter(itertools.chain(*map(rows_of, steps[epoch * each : (epoch + 1) * each])))
        assert found == dict.fromkeys(range(len(rows)), 1)


@given(rows, sizes, limits, seeds, st.booleans())
def test_a_step_has_its_rows_and_images(rows, size, limits, seed, whole):
    """Fewer images than the floor only where the rows that no step has shown before have no more."""
    steps = batching.steps(rows, size, limits, 1, seed, whole)
    counts = [len(rows_of(step)) for step in steps]
    if whole:
        assert counts[:-1] == [size.rows] * (len(steps) - 1) and sum(counts) == len(rows)
    else:
        assert max(counts) - min(counts) <= 1 and len(steps) == max(1, round(len(rows) / size.rows))
    left = Counter(row.image for row in rows)
    for step in steps:
        of_group = [{rows[index].image for index in group} for group in step]
        assert all(len(image) == 1 for image in of_group)
        assert all(len(group) <= size.rows_per_image for group in step)
        shown = Counter(rows[index].image for index in rows_of(step))
        assert len(shown) >= min(size.images, len(rows_of(step)), len(left))
        left -= shown


@given(rows, sizes, limits, st.integers(1, 4), seeds)
def test_no_pass_is_over_its_limits_but_for_a_single_row(rows, size, limits, ranks, seed):
    steps = batching.steps(rows, size, limits, 1, seed)
    made = batching.passes(rows, steps, limits, ranks)
    assert len({len(turns) for turns in made}) == 1
    for step, turns in zip(steps, made, strict=True):
        assert {len(turn) for turn in turns} == {ranks}
        batches = list(itertools.chain(*turns))
        assert set(itertools.chain(*batches)) == set(rows_of(step))
        for batch in batches:
            assert len(batch) == 1 or batching.cost(rows, batch) <= limits.tokens
            assert batch and len(batch) <= (limits.rows or len(batch))


@given(rows, sizes, st.integers(1, 9), st.integers(1, 4), seeds)
def test_equal_batches_are_equal_and_miss_no_row(rows, size, most, ranks, seed):
    steps = batching.steps(rows, size, Limits(10_000, most), 1, seed, whole=True)
    mine = batching.equal_batches(steps, most, ranks)
    assert len({len(batches) for batches in mine}) == 1
    assert {index for batches in mine for batch in batches for index in batch} == set(range(len(rows)))
    if ranks > 1:
        assert {len(batch) for batches in mine for batch in batches} == {most}


@given(rows, sizes, limits, seeds)
def test_the_plan_depends_on_its_arguments_alone_and_changes_from_epoch_to_epoch(rows, size, limits, seed):
    both = batching.steps(rows, size, limits, 2, seed)
    assert both == batching.steps(rows, size, limits, 2, seed)
    first = batching.steps(rows, size, limits, 1, seed)
    assert both[: len(first)] == first


def test_rows_share_the_images_that_both_begin_with():
    rows = [row(list(shown), 1) for shown in ("ab", "ab", "ad", "da", "a", "")]
    assert batching.cost(rows, range(6)) == 20 + 10 + 5 + (5 + 20) + 6
    run = batching.load(rows, range(6))
    assert (run.images, run.image_tokens) == (3, 60)


@pytest.mark.parametrize(("batch", "images", "reuse"), [(64, 8, 8), (64, 16, 4), (16, 8, 2), (4, 8, 1)])
def test_the_floor_says_how_many_rows_of_an_image_run_together(batch, images, reuse):
    settings = Sft(batch_size=batch, images_per_step=images, gpus=0, epochs=1)
    planned = schedule.make(settings, of_images(40, 16), seed=1, equal=False)
    assert set(planned.images) == {min(batch, images)} and planned.accumulation == 1
    assert {load.image_reuse for load in planned.loads} == {reuse}


def test_images_stay_whole_and_ranks_get_like_costs():
    rows = of_images(8, 4, tokens=100, own=5)
    settings = Sft(batch_size=16, images_per_step=4, rows_per_image=4, gpus=0, epochs=1)
    for rank in range(2):
        planned = schedule.make(settings, rows, 0, False, process=Processes(rank, 2))
        assert [batching.cost(rows, batch) for batch in planned.mine] == [2 * 100 + 8 * 5] * 2


def test_an_image_is_spread_over_the_epoch():
    """Not all of its rows at the end, where the others are used up."""
    rows = of_images(1, 80) + of_images(81, 8)[8:]
    settings = Sft(batch_size=64, gpus=0, epochs=1)
    planned = schedule.make(settings, rows, seed=1, equal=False)
    assert min(planned.images) >= 8 and len(planned.images) == 11


def test_a_part_of_an_epoch_is_a_part_of_its_steps():
    assert len(batching.steps(of_images(100, 1), StepSize(10, 1, 1), Limits(1000), 1.5, seed=0)) == 15


@pytest.mark.parametrize(("tokens", "passes"), [(60, 4), (100, 2), (16384, 1)])
def test_a_step_has_batch_size_rows_whatever_fits_one_pass(tokens, passes):
    rows = [row([image], 5) for image in TOKENS for _ in range(40)]
    settings = Sft(batch_size=16, images_per_step=3, micro_batch_tokens=tokens, gpus=0)
    planned = schedule.make(settings, rows, seed=1, equal=False)
    assert {step.rows for step in planned.loads} == {16} and planned.accumulation == passes


@pytest.mark.parametrize("equal", [False, True])
def test_a_validation_stays_within_the_token_budget(equal):
    rows = [row([image], 5) for image in TOKENS for _ in range(4)] + [row(["a", "b", "c"], 15)] * 16
    settings = Dpo(batch_size=16, micro_batch_tokens=150, gpus=0)
    planned = schedule.make(settings, rows, seed=1, equal=equal, held=range(24, 40))
    assert batching.largest(rows, planned.validation) <= 150
    assert sorted(itertools.chain(*planned.validation)) == [*range(24, 40)]


def test_a_batch_that_cannot_be_divided_among_the_processes_is_refused():
    with pytest.raises(UserError, match="batch_size 64 is not a multiple of 3 processes"):
        schedule.make(Sft(), of_images(3, 1), 1, equal=False, process=Processes(0, 3))


def test_ranks_agree_on_smaller_batches_where_one_of_them_is_over_the_limit():
    """Were each to look at its own batches only, one would accumulate over more of them than the other."""
    rows = [RowCost(str(number), ((str(number), 10 if number < 2 else 100),), 1, 11) for number in range(4)]
    settings = Dpo(batch_size=4, micro_batch_tokens=101, epochs=1, gpus=2)
    found = [
        schedule.make(settings, rows, seed=1, equal=True, process=Processes(rank, 2)) for rank in range(2)
    ]
    assert {planned.accumulation for planned in found} == {2}
    assert {len(batch) for planned in found for batch in planned.mine} == {1}
