"""Comparisons: pairing, McNemar, the paired bootstrap, Holm, and the words for a difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.statistics.comparisons import (
    beyond_noise,
    compare,
    corrected,
    holm,
    mcnemar,
    paired,
    verdict,
)


def question(number, source="slake"):
    return {"source": source, "id": f"q{number}"}


def models(better, images=100, seed=0):
    """Scores of two models on ten questions an image, the second right on `better` more of the questions."""
    chance = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(images), 10)
    first = (chance.random(len(clusters)) < 0.6).astype(float)
    changed = chance.random(len(clusters))
    second = np.where(changed < 0.03, 1 - first, first)
    return first, np.where(changed > 1 - better, 1, second), clusters


def test_rows_are_paired_by_set_and_id():
    first = [question(1), question(2), question(1, "rad")]
    second = [question(1, "rad"), question(1), question(2)]
    assert paired(first, second).tolist() == [1, 2, 0]
    assert paired([], []).tolist() == []


def test_other_questions_are_counted_and_named():
    first = [question(number) for number in range(10)]
    second = [question(number) for number in range(5, 11)] + [question(9)]
    with pytest.raises(UserError) as refusal:
        paired(first, second)
    assert str(refusal.value) == (
        "the questions of two models that are to be compared differ: "
        "5 are asked of the first model only (slake: q0, slake: q1, slake: q2, …); "
        "1 are asked of the second model only (slake: q10); 1 are asked twice (slake: q9)"
    )


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (1, 9), (15, 5), (3, 3)])
def test_mcnemar_is_that_of_statsmodels(only_first, only_second):
    from statsmodels.stats.contingency_tables import mcnemar as reference

    both = [(1, 1)] * 7 + [(0, 0)] * 4 + [(1, 0)] * only_first + [(0, 1)] * only_second
    found = mcnemar(*zip(*both, strict=True))
    assert (found["only_first"], found["only_second"]) == (only_first, only_second)
    if only_first + only_second:
        assert found["p"] == pytest.approx(reference([[7, only_first], [only_second, 4]], exact=True).pvalue)
    else:
        assert found["p"] == 1


def test_mcnemar_by_hand():
    assert mcnemar([1] * 1 + [0] * 5, [0] * 1 + [1] * 5)["p"] == pytest.approx(2 * (1 + 6) / 2**6)


def test_a_gain_is_found_and_its_mirror_image_is_its_loss():
    first, second, clusters = models(better=0.1)
    gain, loss = compare(first, second, clusters), compare(second, first, clusters)
    assert gain["difference"]["value"] == pytest.approx((second - first).mean())
    assert gain["p"] < 0.01 and beyond_noise(gain) and beyond_noise(loss)
    low, high = gain["difference"]["interval"]
    assert loss["difference"]["interval"] == pytest.approx((-high, -low), abs=0.002)
    assert gain["mcnemar"]["only_second"] == loss["mcnemar"]["only_first"] > gain["mcnemar"]["only_first"]


def test_pairing_narrows_what_two_intervals_leave_open():
    first, second, clusters = models(better=0.05)
    low, high = compare(first, second, clusters)["difference"]["interval"]
    alone = [compare(np.zeros_like(one), one, clusters)["difference"]["interval"] for one in (first, second)]
    assert high - low < 0.8 * np.hypot(*(end - start for start, end in alone))


def test_scores_between_0_and_1_are_compared_without_mcnemar():
    first, second, clusters = models(better=0.1)
    found = compare(first / 2, second / 2, clusters)
    assert found["mcnemar"] is None
    assert found["difference"]["value"] == pytest.approx((second - first).mean() / 2)
    assert found["p"] == compare(first, second, clusters)["p"]


@pytest.mark.parametrize("images", [12, 100])
def test_p_is_below_5_per_cent_where_the_interval_leaves_out_0(images):
    verdicts = set()
    for seed in range(20):
        found = compare(*models(better=0.06, images=images, seed=seed))
        low, high = found["difference"]["interval"]
        if abs(found["p"] - 0.05) > 0.002:  # the last of the resamples
            assert (found["p"] < 0.05) == (low > 0 or high < 0)
            verdicts.add(found["p"] < 0.05)
    assert verdicts == {True, False}


def test_equals_are_told_apart_in_one_of_twenty_tables():
    chance = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), 4)
    told = 0
    for _ in range(200):
        swap = np.repeat(chance.choice([-1, 1], 60), 4)
        differences = chance.integers(-1, 2, len(clusters)) * swap
        found = compare(np.zeros(len(clusters)), differences, clusters, seed=int(chance.integers(2**31)))
        told += found["p"] < 0.05
    assert 1 <= told <= 19  # 10 expected, ± 3 standard deviations


def test_holm_by_hand_and_by_statsmodels():
    from statsmodels.stats.multitest import multipletests

    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([None]) == [None]
    assert holm([0.5, None, 0.02]) == [pytest.approx(0.5), None, pytest.approx(0.04)]
    p_values = np.random.default_rng(0).random(30) ** 3
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@given(st.lists(st.floats(0, 1) | st.none(), max_size=12))
def test_holm_only_raises_p_and_keeps_their_order(p_values):
    found = holm(p_values)
    assert [p is None for p in found] == [p is None for p in p_values]
    known = sorted((p, q) for p, q in zip(p_values, found, strict=True) if p is not None)
    assert all(p <= q <= 1 for p, q in known)
    assert [q for _, q in known] == sorted(q for _, q in known)


def comparison(value, interval, p=0.2, note="", **more):
    difference = {"value": value, "n": 9, "clusters": 40, "interval": interval, "note": note}
    return {"difference": difference, "p": p, "mcnemar": None, **more}


@pytest.mark.parametrize(
    "found, text",
    [
        (comparison(0.031, (0.004, 0.059), 0.02), "SFT +3.1 points [0.4, 5.9], p = 0.02"),
        (comparison(-0.031, (-0.059, -0.004), 0.0004), "SFT -3.1 points [-5.9, -0.4], p < 0.001"),
        (comparison(0.008, (-0.019, 0.034)), "no difference beyond noise: +0.8 [-1.9, 3.4]"),
        (comparison(0.008, (-0.019, 0.034), p_holm=1.0), "no difference beyond noise: +0.8 [-1.9, 3.4]"),
        (comparison(0.031, (0.004, 0.059), 0.02, p_holm=0.041), "SFT +3.1 points [0.4, 5.9], p = 0.041"),
        (
            comparison(0.031, (0.004, 0.059), 0.02, p_holm=0.16),
            "no difference beyond noise: +3.1 [0.4, 5.9], p = 0.16 in a table of many",
        ),
        (comparison(0.0, None, 1.0), "no difference: both score the same on all 9 questions"),
        (comparison(1.0, None, None, "all alike"), "SFT +100.0 points, no interval: all alike"),
        (comparison(None, None, None, "no rows"), "no difference: no rows"),
    ],
)
def test_a_difference_in_words(found, text):
    assert verdict(found, "SFT") == text


def test_equal_models_and_no_questions_do_not_crash():
    clusters = np.array([0, 1, 2])
    assert "the same on all 3 questions" in verdict(compare([1, 0, 1], [1, 0, 1], clusters))
    lifted = compare([0, 0, 0], [1, 1, 1], clusters)
    assert lifted["p"] is None and not beyond_noise(lifted)
    assert verdict(lifted) == (
        "+100.0 points, no interval: all 3 images score the same: how images differ cannot be told"
    )
    assert compare([], [], np.array([], int))["difference"]["note"] == "no rows"


def test_a_table_of_many_is_corrected():
    tables = {
        name: compare(*models(better=better)) for name, better in (("a", 0.03), ("b", 0.1), ("c", 0.01))
    }
    found = corrected(tables)
    assert [found[name]["p_holm"] for name in "abc"] == holm([tables[name]["p"] for name in "abc"])
    assert all(found[name]["difference"] == tables[name]["difference"] for name in "abc")
