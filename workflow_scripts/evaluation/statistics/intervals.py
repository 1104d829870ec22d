"""A mean of scores with its 95 % interval, where the rows of one image stand or fall together."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.evaluation.statistics.clusters import Floats, totals

SIGNIFICANCE = 0.05
LEVEL = 1 - SIGNIFICANCE
RESAMPLES = 10_000
FEW = 30  # below so many clusters the bootstrap covers less than it says (measured), and the t interval is printed

Interval = tuple[float, float]


class Estimate(TypedDict):
    """A mean over `n` rows in `clusters` clusters, in the unit of the scores; None where there is no row.

    `interval` is the one that is printed: `bootstrap`, or `t` below `FEW` clusters. `note` says why there is none, or
    that the clusters are few; "" otherwise.
    """

    value: float | None
    n: int
    clusters: int
    interval: Interval | None
    bootstrap: Interval | None
    t: Interval | None
    note: str


def estimate(scores: ArrayLike, clusters: NDArray[Any], seed: int = 0) -> Estimate:
    """The mean of `scores` [n] and its intervals, clustered by `clusters` [n]."""
    return described(np.asarray(scores, float), clusters, resampled(scores, clusters, seed))


def described(scores: Floats, clusters: NDArray[Any], means: Floats | None) -> Estimate:
    """The estimate of `scores` [n] whose `resampled` means are known already."""
    sums, sizes = totals(scores, clusters)
    count = len(sums)
    found: Estimate = {
        "value": float(scores.mean()) if len(scores) else None,
        "n": len(scores),
        "clusters": count,
        "interval": None,
        "bootstrap": None,
        "t": None,
        "note": why_none(sums, sizes),
    }
    if means is None:
        return found
    found["bootstrap"], found["t"] = percentiles(means), t_interval(sums, sizes)
    found["interval"] = found["t"] if count < FEW else found["bootstrap"]
    if count < FEW:
        found["note"] = (
            f"only {count} images: the t interval is given, and it may cover less than {LEVEL:.0%}"
        )
    return found


def resampled(scores: ArrayLike, clusters: NDArray[Any], seed: int = 0) -> Floats | None:
    """Means of `RESAMPLES` samples of whole clusters; None where these do not differ."""
    sums, sizes = totals(scores, clusters)
    return None if why_none(sums, sizes) else resampled_means(sums, sizes, seed=seed)


def resampled_means(sums: Floats, sizes: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The cluster bootstrap (Field & Welsh 2007, J. R. Statist. Soc. B 69:369): means [..., resamples].

    As many clusters as there are, drawn with replacement, each with all its rows; a sample's mean is over its rows,
    so that large images weigh more, as in the mean itself. `sums` and `sizes` are [..., clusters].
    """
    from scipy.stats import bootstrap

    def mean(sums: Floats, sizes: Floats, axis: int) -> Floats:
        found: Floats = sums.sum(axis) / sizes.sum(axis)
        return found

    batch = max(1, 10**6 // sums.size)  # of samples held at once: 8 MB an array
    found = bootstrap(
        (sums, sizes),
        mean,
        paired=True,
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=batch,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    means: Floats = found.bootstrap_distribution
    return means


def percentiles(means: Floats) -> Interval:
    """The percentile interval of resampled means (Efron & Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(means, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)


def standard_error(sums: Floats, sizes: Floats) -> Floats:
    """The cluster-robust standard error (CR1) of the mean of n rows in G clusters; `sums` and `sizes` [..., G].

        V = G/(G-1) · Σ_g u_g² / n²,    u_g = Σ_{i in g} (y_i - mean)

    Liang & Zeger 1986; Cameron & Miller 2015 (J. Human Resources 50:317), of a regression on the intercept alone, where
    their factor (n-1)/(n-k) is 1.
    """
    n = sizes.sum(-1)
    mean = sums.sum(-1) / n
    residuals = sums - mean[..., None] * sizes
    count = sums.shape[-1]
    found: Floats = np.sqrt(count / (count - 1) * (residuals**2).sum(-1)) / n
    return found


def t_interval(sums: Floats, sizes: Floats) -> Interval:
    """mean ± t(0.975, G-1) · `standard_error`; it is not cut at the ends of the scale, so a share's may pass 1."""
    from scipy.stats import t

    mean = float(sums.sum() / sizes.sum())
    half = float(t.ppf(1 - SIGNIFICANCE / 2, len(sums) - 1) * standard_error(sums, sizes))
    return mean - half, mean + half


def why_none(sums: Floats, sizes: Floats) -> str:
    """Why these clusters, [clusters] each, tell no interval of their mean, or ""."""
    if not len(sums):
        return "no rows"
    if len(sums) == 1:
        return "all rows are of one image: how images differ cannot be told"
    if np.ptp(sums / sizes) < 1e-12:  # what is left of equal sums that were added in different orders
        return f"all {len(sums)} images score the same: how images differ cannot be told"
    return ""
