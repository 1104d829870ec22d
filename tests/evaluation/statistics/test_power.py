"""Power: the smallest difference is found in four of five sets, and clustering is paid for."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from workflow_scripts.evaluation.statistics.clusters import totals
from workflow_scripts.evaluation.statistics.intervals import standard_error, t_interval
from workflow_scripts.evaluation.statistics.power import resolution, resolution_text, smallest_difference


def test_a_difference_of_that_size_is_found_in_four_of_five_sets(simulated):
    images, share = 96, 0.5
    sums, sizes = simulated(images, 11, share, repetitions=1_000, seed=3)
    error = (sums.sum(-1) / sizes.sum(-1)).std()  # the true one, over many sets
    difference = smallest_difference(error, images)
    found = np.mean(
        [low > share - difference for low, _ in map(t_interval, sums, sizes)]
    )  # the test of a model that is truly worse by that
    assert 0.76 <= found <= 0.84


def test_independent_questions_have_the_power_that_statsmodels_gives():
    scores = np.tile([0.0, 1.0, 1.0, 1.0], 50)
    found = resolution(scores, np.arange(200))
    assert found["design_effect"] == pytest.approx(1) and found["effective_n"] == pytest.approx(200)
    effect = TTestPower().solve_power(nobs=200, alpha=0.05, power=0.8)
    assert found["unpaired"] == pytest.approx(np.sqrt(2) * effect * scores.std(ddof=1), rel=0.01)


def test_questions_that_repeat_each_other_count_once():
    scores = np.repeat(np.tile([0.0, 1.0, 1.0, 1.0], 25), 5)
    clusters = np.repeat(np.arange(100), 5)
    found = resolution(scores, clusters)
    assert found["design_effect"] == pytest.approx(5, rel=0.02)
    assert found["effective_n"] == pytest.approx(100, rel=0.02)


def test_models_that_agree_mostly_need_fewer_questions():
    chance = np.random.default_rng(0)
    clusters = np.repeat(np.arange(200), 5)
    scores = (chance.random(1_000) < 0.7).astype(float)
    other = np.where(chance.random(1_000) < 0.05, 1 - scores, scores)
    found = resolution(scores, clusters, other)
    error = float(standard_error(*totals(other - scores, clusters)))
    assert found["paired"] == pytest.approx(smallest_difference(error, 200))
    assert found["paired"] < found["unpaired"] / 2
    assert resolution_text(found) == (
        f"1,000 questions of 200 images show differences of {100 * found['paired']:.1f} points between two models on "
        f"these questions, of {100 * found['unpaired']:.1f} points from a number of others"
    )


@pytest.mark.parametrize("scores, clusters", [([], []), ([1, 0], [0, 0]), ([1, 1], [0, 1])])
def test_scores_without_spread_tell_nothing(scores, clusters):
    found = resolution(scores, np.array(clusters, int), scores)
    keys = ("design_effect", "effective_n", "unpaired", "paired")
    assert [found[key] for key in keys] == [None] * 4 and resolution_text(found) == ""
