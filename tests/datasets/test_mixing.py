"""Mixtures have the shares that they are given, keep their size, and depend on the seed alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets import mixing

rows = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5000), min_size=2)
positive = st.floats(0.01, 1000)


@given(rows=rows, data=st.data())
def test_weights_are_shares(rows, data):
    weights = {name: data.draw(positive) for name in rows}
    found = mixing.sizes(rows, weights, None)
    total = sum(rows.values())
    assert sum(found.values()) == total
    assert all(abs(found[name] - total * weights[name] / sum(weights.values())) < 1 for name in rows)


@given(rows=rows, temperature=st.floats(0.2, 50))
def test_temperature_scales_as_t5_does(rows, temperature):
    found = mixing.sizes(rows, {}, temperature)
    total = sum(rows.values())
    rates = {name: (count / total) ** (1 / temperature) for name, count in rows.items()}
    assert sum(found.values()) == total
    assert all(abs(found[name] - total * rates[name] / sum(rates.values())) < 1.001 for name in rows)


@given(rows=rows)
def test_one_leaves_the_sets_as_they_are_and_a_large_temperature_makes_them_equal(rows):
    assert mixing.sizes(rows, {}, 1) == rows
    equal = mixing.sizes(rows, {}, 1e9).values()
    assert max(equal) - min(equal) <= 1


def test_extreme_temperatures_stay_finite():
    assert mixing.sizes({"a": 2, "b": 30_000}, {}, 1e-3) == {"a": 0, "b": 30_002}


def test_a_member_without_train_rows_is_named():
    with pytest.raises(UserError, match="b: no train rows to mix"):
        mixing.sizes({"a": 3, "b": 0}, {"a": 1, "b": 1}, None)


@given(rows=st.integers(1, 300), wanted=st.integers(0, 1000), seed=st.text(max_size=3))
def test_no_row_is_written_twice_before_each_is_written_once(rows, wanted, seed):
    found = mixing.copies(rows, wanted, seed)
    assert (len(found), sum(found)) == (rows, wanted)
    assert max(found) - min(found) <= 1
    assert found == mixing.copies(rows, wanted, seed)


def test_the_seed_decides_which_rows_are_drawn():
    assert mixing.copies(100, 50, "0") != mixing.copies(100, 50, "1")
    drawn = Counter(row for seed in range(400) for row, n in enumerate(mixing.copies(10, 5, str(seed))) if n)
    assert all(140 < drawn[row] < 260 for row in range(10))


def test_a_copy_is_known_by_its_id():
    ids = [mixing.copy_id("rad-1", number) for number in range(3)]
    assert ids == ["rad-1", "rad-1#copy2", "rad-1#copy3"]
    assert [mixing.is_copy(id) for id in ids] == [False, True, True]
