"""Two models on the same questions: the difference, its interval, its p value, and in words whether it is noise."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workflow_scripts.base.errors import UserError
from workflow_scripts.evaluation.statistics.clusters import Floats, Labels, totals
from workflow_scripts.evaluation.statistics.intervals import (
    FEW,
    SIGNIFICANCE,
    Estimate,
    Interval,
    described,
    resampled,
    standard_error,
)

SHOWN = 3  # questions that an error names


class Identified(TypedDict):
    """What tells a question among those of all sets."""

    source: str
    id: str


class McNemar(TypedDict):
    """On how many questions one of two models alone is right, and how likely that is of equals."""

    only_first: int
    only_second: int
    p: float


class Comparison(TypedDict):
    """The second of two models minus the first: the mean difference, and the p value of there being none.

    `p` is None where there is no interval and the models differ. `mcnemar` is None for scores between 0 and 1.
    `p_holm` is `p` corrected for the table that the comparison stands in.
    """

    difference: Estimate
    p: float | None
    mcnemar: McNemar | None
    p_holm: NotRequired[float | None]


def paired(first: Sequence[Identified], second: Sequence[Identified]) -> Labels:
    """Where the question of each row of `first` stands in `second` [n]; other questions there are a UserError."""
    ours, theirs = ([(row["source"], row["id"]) for row in rows] for rows in (first, second))
    kinds = {
        "are asked of the first model only": set(ours) - set(theirs),
        "are asked of the second model only": set(theirs) - set(ours),
        "are asked twice": _repeated(ours) | _repeated(theirs),
    }
    problems = [f"{len(found)} {what} ({_named(found)})" for what, found in kinds.items() if found]
    if problems:
        raise UserError(f"the questions of two models that are to be compared differ: {'; '.join(problems)}")
    places = {question: place for place, question in enumerate(theirs)}
    return np.array([places[question] for question in ours], dtype=np.intp)


def _repeated(questions: list[tuple[str, str]]) -> set[tuple[str, str]]:
    return {question for question, count in Counter(questions).items() if count > 1}


def _named(questions: set[tuple[str, str]]) -> str:
    more = ", …" if len(questions) > SHOWN else ""
    return ", ".join(f"{source}: {id}" for source, id in sorted(questions)[:SHOWN]) + more


def compare(first: ArrayLike, second: ArrayLike, clusters: NDArray[Any], seed: int = 0) -> Comparison:
    """`second` minus `first`, scores [n] of two models on the same rows, paired row by row.

    The interval and p are of the cluster bootstrap of the differences, which is the paired bootstrap: each sample
    has the same questions for both. p = 2 · min(P(d* ≤ 0), P(d* ≥ 0)), with one sample added to each count (Davison
    & Hinkley 1997, chapter 4), so that it is below 0.05 where the interval leaves out 0. Below `FEW` clusters
    both are of the t distribution.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    differences = second - first
    means = resampled(differences, clusters, seed)
    return {
        "difference": described(differences, clusters, means),
        "p": _p(differences, clusters, means),
        "mcnemar": mcnemar(first, second) if _binary(first) and _binary(second) else None,
    }


def _p(differences: Floats, clusters: NDArray[Any], means: Floats | None) -> float | None:
    if means is None:
        return 1.0 if len(differences) and not differences.any() else None
    sums, sizes = totals(differences, clusters)
    if len(sums) < FEW:
        from scipy.stats import t

        return float(2 * t.sf(abs(differences.mean()) / standard_error(sums, sizes), len(sums) - 1))
    fewest = min((means <= 0).sum(), (means >= 0).sum())
    return min(1.0, float(2 * (fewest + 1) / (len(means) + 1)))


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """McNemar's exact test of scores of 0 and 1 [n]: a binomial test of the questions that one alone has right.

    McNemar 1947, exact as in Fagerland, Lydersen & Laake 2013 (BMC Med Res Methodol 13:91). It takes questions for
    independent: those of one image are not, so its p is printed for comparison with others' and decides nothing here.
    """
    from scipy.stats import binomtest

    right = np.asarray(first, float) > 0.5, np.asarray(second, float) > 0.5
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    differing = only_first + only_second
    p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def _binary(scores: Floats) -> bool:
    return bool(np.isin(scores, (0, 1)).all())


def holm(p_values: Iterable[float | None]) -> list[float | None]:
    """Holm's correction of a table's p values (Holm 1979, Scand. J. Statist. 6:65): the share of tables of equals in
    which any is below the level stays below it. None stays None and does not count.
    """
    p_values = list(p_values)
    known = np.array([p for p in p_values if p is not None])
    order = np.argsort(known, kind="stable")
    steps = known[order] * np.arange(len(known), 0, -1)
    corrected = np.empty_like(known)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    rest = iter(corrected.tolist())
    return [None if p is None else next(rest) for p in p_values]


def corrected(table: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The comparisons of a table with Holm's p values."""
    p_values = holm(comparison["p"] for comparison in table.values())
    return {
        name: {**comparison, "p_holm": p}
        for (name, comparison), p in zip(table.items(), p_values, strict=True)
    }


def beyond_noise(comparison: Comparison) -> bool:
    """Whether the clustered interval leaves out 0 and, in a table of several, Holm's p is below 0.05 too."""
    p = comparison.get("p_holm")
    return _leaves_out_zero(comparison["difference"]["interval"]) and (p is None or p < SIGNIFICANCE)


def _leaves_out_zero(interval: Interval | None) -> bool:
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def verdict(comparison: Comparison, name: str = "") -> str:
    """A difference of shares in per cent points, as pages and the terminal print it.

    "SFT +3.1 points [0.4, 5.9], p = 0.02", or "no difference beyond noise: +0.8 [-1.9, 3.4]"; `name` is whose gain it is.
    """
    difference = comparison["difference"]
    value, interval = difference["value"], difference["interval"]
    if value is None:
        return f"no difference: {difference['note']}"
    gain, lead = f"{100 * value:+.1f}", f"{name} " if name else ""
    if interval is None:
        if comparison["p"] == 1:
            return f"no difference: both score the same on all {difference['n']} questions"
        return f"{lead}{gain} points, no interval: {difference['note']}"
    ends = f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    p = p_text(comparison.get("p_holm", comparison["p"]))
    if beyond_noise(comparison):
        return f"{lead}{gain} points {ends}, {p}"
    many = f", {p} in a table of many" if _leaves_out_zero(interval) else ""
    return f"no difference beyond noise: {gain} {ends}{many}"


def p_text(p: float | None) -> str:
    """ "p = 0.02", two figures; "p < 0.001"; "p unknown"."""
    if p is None:
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
