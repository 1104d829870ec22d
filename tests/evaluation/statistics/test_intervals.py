"""Intervals: coverage by simulation, properties, agreement with statsmodels, and what has none."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workflow_scripts.evaluation import statistics
from workflow_scripts.evaluation.statistics.clusters import totals
from workflow_scripts.evaluation.statistics.intervals import (
    FEW,
    estimate,
    percentiles,
    resampled,
    resampled_means,
    standard_error,
    t_interval,
)

SLAKE, RAD = (96, 11), (203, 2)  # images, questions an image


def drawn(images=40, questions=5, seed=0, share=0.7):
    chance = np.random.default_rng(seed)
    own = chance.beta(4 * share, 4 * (1 - share), images)
    clusters = np.repeat(np.arange(images), chance.integers(1, 2 * questions, images))
    return (chance.random(len(clusters)) < own[clusters]).astype(float), clusters


@pytest.mark.parametrize("images, questions", [SLAKE, RAD], ids=["SLAKE-like", "RAD-like"])
def test_both_intervals_cover_what_they_say(simulated, images, questions):
    share = 0.75
    sums, sizes = simulated(images, questions, share)
    means = resampled_means(sums, sizes, resamples=499)
    low, high = np.quantile(means, [0.025, 0.975], axis=-1)
    bootstrap = ((low <= share) & (share <= high)).mean()
    t = np.mean([low <= share <= high for low, high in map(t_interval, sums, sizes)])
    print(f"coverage: bootstrap {bootstrap:.3f}, t {t:.3f}")
    assert 0.93 <= bootstrap <= 0.97 and 0.93 <= t <= 0.97
    # Taken for independent, the same questions promise too much where images have many.
    n = sizes.sum(-1)
    share_found = sums.sum(-1) / n
    naive = (np.abs(share_found - share) <= 1.96 * np.sqrt(share_found * (1 - share_found) / n)).mean()
    assert naive < (0.80 if questions > 5 else 0.95)


def test_few_images_get_the_t_interval_which_covers_more_and_still_too_little(simulated):
    share = 0.7
    sums, sizes = simulated(12, 11, share, repetitions=1_000)
    low, high = np.quantile(resampled_means(sums, sizes, resamples=499), [0.025, 0.975], axis=-1)
    bootstrap = ((low <= share) & (share <= high)).mean()
    t = np.mean([low <= share <= high for low, high in map(t_interval, sums, sizes)])
    assert bootstrap < t < 0.95

    few = estimate(*drawn(images=12))
    assert few["interval"] == few["t"] != few["bootstrap"] and "only 12 images" in few["note"]
    enough = estimate(*drawn(images=FEW))
    assert enough["interval"] == enough["bootstrap"] and not enough["note"]


def test_the_t_interval_is_that_of_statsmodels():
    from statsmodels.api import OLS

    scores, clusters = drawn()
    fit = OLS(scores, np.ones(len(scores))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    assert standard_error(*totals(scores, clusters)) == pytest.approx(fit.bse[0])
    assert estimate(scores, clusters)["t"] == pytest.approx(tuple(fit.conf_int()[0]))


def test_single_questions_have_the_ordinary_t_interval():
    scores = np.array([0, 1, 1, 0, 1, 1, 1, 0.5])
    expected = stats.t.interval(0.95, len(scores) - 1, scores.mean(), stats.sem(scores))
    assert estimate(scores, np.arange(len(scores)))["t"] == pytest.approx(expected)


def test_the_bootstrap_has_the_spread_of_the_standard_error():
    scores, clusters = drawn(images=300)
    means = resampled(scores, clusters)
    assert means.shape == (10_000,)
    assert means.std() == pytest.approx(standard_error(*totals(scores, clusters)), rel=0.03)
    assert estimate(scores, clusters)["bootstrap"] == percentiles(means)


def test_a_thousand_images_take_less_than_a_second():
    scores, clusters = drawn(images=1_000)
    estimate(scores, clusters)  # imports
    started = time.process_time()
    estimate(scores, clusters)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "scores, clusters, value, note",
    [
        ([], [], None, "no rows"),
        ([1, 0], [7, 7], 0.5, "all rows are of one image"),
        ([1], [0], 1, "all rows are of one image"),
        ([1, 1, 1], [0, 1, 1], 1, "all 2 images score the same"),
        ([0, 1, 1, 0], [0, 0, 1, 1], 0.5, "all 2 images score the same"),
        ([0.1, 0.2, 0.3, 0.3, 0.2, 0.1], [0, 0, 0, 1, 1, 1], 0.2, "all 2 images score the same"),
    ],
)
def test_what_has_no_interval_says_why(scores, clusters, value, note):
    found = estimate(scores, np.array(clusters, int))
    assert found["value"] == (value if value is None else pytest.approx(value))
    assert (found["interval"], found["bootstrap"], found["t"]) == (None, None, None)
    assert found["note"].startswith(note)
    assert (found["n"], found["clusters"]) == (len(scores), len(set(clusters)))


rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.integers(0, 5)), min_size=2, max_size=30
)  # score, cluster


@settings(max_examples=40, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_the_interval_has_the_estimate(rows, chance):
    scores, clusters = map(np.array, zip(*rows, strict=True))
    found = estimate(scores, clusters)
    for interval in filter(None, (found["bootstrap"], found["t"])):
        assert interval[0] - 1e-12 <= found["value"] <= interval[1] + 1e-12
    chance.shuffle(rows)
    assert same(estimate(*map(np.array, zip(*rows, strict=True))), found)


@settings(max_examples=30, deadline=None)
@given(rows, st.integers(2, 4))
def test_saying_all_of_each_image_again_tells_nothing_new(rows, times):
    scores, clusters = map(np.array, zip(*rows, strict=True))
    once, again = estimate(scores, clusters), estimate(np.tile(scores, times), np.tile(clusters, times))
    assert again["n"] == times * once["n"]
    assert same({**again, "n": once["n"]}, once)


def same(one, other):
    """Equal up to how sums round."""
    intervals = ("interval", "bootstrap", "t")
    assert {key: one[key] for key in ("n", "clusters", "note")} == {
        key: other[key] for key in ("n", "clusters", "note")
    }
    assert one["value"] == pytest.approx(other["value"])
    for key in intervals:
        assert (one[key] is None) == (other[key] is None)
        assert one[key] is None or one[key] == pytest.approx(other[key])
    return True


def test_scipy_is_not_imported_before_something_is_computed():
    room = Path(statistics.__file__).parent
    modules = [f"{statistics.__name__}.{path.stem}" for path in room.glob("*.py") if path.stem != "__init__"]
    code = (
        f"import sys, {', '.join(modules)}; sys.exit(bool({{'scipy', 'torch', 'pandas'}} & set(sys.modules)))"
    )
    assert len(modules) == 8
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
