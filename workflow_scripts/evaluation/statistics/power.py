"""The smallest difference that a set of this size can show, whatever the models."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.evaluation.statistics.clusters import totals
from workflow_scripts.evaluation.statistics.intervals import SIGNIFICANCE, standard_error, why_none

POWER = 0.80


class Resolution(TypedDict):
    """What a set can show, in the unit of the scores; None where the scores show no spread.

    `design_effect` is how many times the variance of independent questions the clustered one is (Kish 1965), and
    `effective_n` how many independent questions tell as much. `unpaired` is the smallest difference from a model of
    which only the number is known, of a test set of the same size; `paired` from another on the same questions.
    """

    n: int
    clusters: int
    design_effect: float | None
    effective_n: float | None
    unpaired: float | None
    paired: float | None


def resolution(scores: ArrayLike, clusters: NDArray[Any], other: ArrayLike | None = None) -> Resolution:
    """What the rows can show of a model with `scores` [n] and, paired, of it and the `other` with scores [n]."""
    scores = np.asarray(scores, float)
    sums, sizes = totals(scores, clusters)
    found: Resolution = {
        "n": len(scores),
        "clusters": len(sums),
        "design_effect": None,
        "effective_n": None,
        "unpaired": None,
        "paired": None,
    }
    if not why_none(sums, sizes):
        error = float(standard_error(sums, sizes))
        independent = float(scores.var(ddof=1)) / len(scores)
        found["design_effect"] = error**2 / independent
        found["effective_n"] = len(scores) * independent / error**2
        found["unpaired"] = smallest_difference(np.sqrt(2) * error, len(sums))
    if other is not None:
        gains = totals(np.asarray(other, float) - scores, clusters)
        if not why_none(*gains):
            found["paired"] = smallest_difference(float(standard_error(*gains)), len(sums))
    return found


def smallest_difference(error: float, clusters: int) -> float:
    """The true difference that a two-sided test at 5 % finds in 80 of 100 sets, of standard error `error`:

        δ = (t(1-α/2, G-1) + t(1-β, G-1)) · error

    Bloom 1995 (Evaluation Review 19:547), with G-1 degrees of freedom for G clusters (Cameron & Miller
    2015). For paired models `error` is that of their differences, in which what both find hard cancels (Miller 2024,
    arXiv 2411.00640); for others √2 times that of one, by taking both for equally varied.
    """
    from scipy.stats import t

    return float((t.ppf(1 - SIGNIFICANCE / 2, clusters - 1) + t.ppf(POWER, clusters - 1)) * error)


def resolution_text(resolution: Resolution) -> str:
    """What a set of shares can show, in a line; "" where that cannot be told."""
    found = [
        f"{100 * difference:.1f} points {against}"
        for difference, against in (
            (resolution["paired"], "between two models on these questions"),
            (resolution["unpaired"], "from a number of others"),
        )
        if difference is not None
    ]
    if not found:
        return ""
    return f"{resolution['n']:,} questions of {resolution['clusters']:,} images show differences of {', of '.join(found)}"
