"""A plan shows every row once an epoch, keeps an image's rows together and stays within its limits."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.processes import Processes
from workflow_scripts.configuration.settings import Dpo, Sft
from workflow_scripts.training.data import batching, schedule
from workflow_scripts.training.data.batching import Limits, Row

TOKENS = {"a": 20, "b": 10, "c": 20, "d": 5, "e": 20, "f": 15}


def row(images: list[str], own: int) -> Row:
    shown = tuple((image, TOKENS[image]) for image in images)
    return Row(images[0] if images else f"no image, {own}", shown, own, own + sum(map(TOKENS.get, images)))


images = st.lists(st.sampled_from(sorted(TOKENS)), max_size=3)
rows = st.lists(st.builds(row, images, st.integers(1, 15)), min_size=1, max_size=40)
limits = st.builds(Limits, st.integers(1, 9), st.integers(20, 120), st.integers(1, 5))


@given(rows, limits, st.integers(1, 3), st.integers(0, 9))
def test_each_row_stands_in_each_epoch_once(rows, limits, epochs, seed):
    (mine,) = batching.batches(rows, limits, epochs, seed)
    assert Counter(index for batch in mine for index in batch) == dict.fromkeys(range(len(rows)), epochs)


@given(rows, limits, st.integers(0, 9))
def test_no_batch_is_over_its_limits_but_for_a_single_row(rows, limits, seed):
    for batch in batching.batches(rows, limits, 1, seed)[0]:
        assert len(batch) == 1 or batching.cost(rows, batch) <= limits.tokens
        assert len(batch) <= limits.rows


@given(rows, limits, st.sampled_from([1, 1.3]), st.integers(2, 4), st.integers(0, 9), st.booleans())
def test_ranks_have_as_many_batches_and_miss_no_row(rows, limits, epochs, ranks, seed, equal):
    mine = batching.batches(rows, limits, epochs, seed, ranks, equal)
    assert len({len(batches) for batches in mine}) == 1
    seen = Counter(index for batches in mine for batch in batches for index in batch)
    assert set(seen) == set(range(len(rows)))
    if equal:
        assert {len(batch) for batches in mine for batch in batches} == {limits.rows}


@given(rows, limits, st.integers(0, 9))
def test_the_plan_depends_on_its_arguments_alone_and_changes_from_epoch_to_epoch(rows, limits, seed):
    assert batching.batches(rows, limits, 2, seed) == batching.batches(rows, limits, 2, seed)
    (both,) = batching.batches(rows, limits, 2, seed)
    (first,) = batching.batches(rows, limits, 1, seed)
    assert both[: len(first)] == first


def test_rows_share_the_images_that_both_begin_with():
    rows = [row(list(shown), 1) for shown in ("ab", "ab", "ad", "da", "a", "")]
    assert batching.cost(rows, range(6)) == 20 + 10 + 5 + (5 + 20) + 6
    run = batching.load(rows, range(6))
    assert (run.images, run.image_tokens) == (3, 60)


def test_images_stay_whole_and_ranks_get_like_costs():
    rows = [Row(image, ((image, 100),), 5, 105) for image in "abcdefgh" for _ in range(4)]
    limits = Limits(rows=8, tokens=1000, rows_per_image=4)
    (mine,) = batching.batches(rows, limits, 1, seed=0)
    assert len(mine) == 4 and all(batching.cost(rows, batch) == 2 * 100 + 8 * 5 for batch in mine)
    for step in zip(*batching.batches(rows, limits, 1, seed=0, ranks=2), strict=True):
        assert len({batching.cost(rows, batch) for batch in step}) == 1


@pytest.mark.parametrize(("cap", "images"), [(2, 4), (8, 1)])
def test_the_cap_keeps_batches_diverse(cap, images):
    rows = [Row(image, ((image, 10),), 1, 11) for image in "abcd" for _ in range(8)]
    for batch in batching.batches(rows, Limits(8, 1000, cap), 1, seed=1)[0]:
        assert len({rows[index].image for index in batch}) == images


def test_a_part_of_an_epoch_is_a_part_of_its_batches():
    rows = [Row(str(number), ((str(number), 10),), 1, 11) for number in range(100)]
    (mine,) = batching.batches(rows, Limits(10, 1000, 1), 1.5, seed=0)
    assert len(mine) == 15


@pytest.mark.parametrize("tokens", [60, 100, 16384])
def test_a_step_has_batch_size_rows_on_average_whatever_fits_one_pass(tokens):
    rows = [row([image], 5) for image in TOKENS for _ in range(40)]
    settings = Sft(batch_size=16, micro_batch_size=16, micro_batch_tokens=tokens, gpus=0)
    steps = schedule.make(settings, rows, seed=1, equal=False).loads
    assert sum(step.rows for step in steps) / len(steps) == pytest.approx(16, rel=0.25)


@pytest.mark.parametrize("equal", [False, True])
def test_a_validation_stays_within_the_token_budget(equal):
    rows = [row([image], 5) for image in TOKENS for _ in range(4)] + [row(["a", "b", "c"], 15)] * 16
    settings = Dpo(batch_size=16, micro_batch_size=16, micro_batch_tokens=150, gpus=0)
    planned = schedule.make(settings, rows, seed=1, equal=equal, held=range(24, 40))
    assert batching.largest(rows, planned.validation) <= 150
    assert sorted(itertools.chain(*planned.validation)) == [*range(24, 40)]


def test_ranks_agree_on_smaller_batches_where_one_of_them_is_over_the_limit():
    """Were each to look at its own batches only, one would accumulate over more of them than the other."""
    rows = [Row(str(number), ((str(number), 10 if number < 2 else 100),), 1, 11) for number in range(4)]
    settings = Dpo(batch_size=4, micro_batch_size=2, micro_batch_tokens=101, epochs=1, gpus=2)
    found = [
        schedule.make(settings, rows, seed=1, equal=True, process=Processes(rank, 2)) for rank in range(2)
    ]
    assert {planned.accumulation for planned in found} == {2}
    assert {len(batch) for planned in found for batch in planned.mine} == {1}
