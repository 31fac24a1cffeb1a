"""Intervals for evaluations whose samples are clustered by image, after Miller 2024, "Adding Error Bars to Evals".

Means get the cluster-robust (sandwich) standard error, ratios and other functions of sums a cluster bootstrap.
All intervals are two-sided 95 %. `clusters` are integer labels 0 … G-1, shape (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LEVEL = 0.95
REPLICATES = 2000
SEED = 20241217


class Estimate(NamedTuple):
    """A value with its 95 % interval; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two values with its 95 % interval, two-sided p-value and standard error."""

    value: float
    low: float
    high: float
    p: float
    error: float


NOTHING = Estimate(np.nan, np.nan, np.nan)


def labels(names: list[str]) -> Ints:
    """Integer cluster labels 0 … G-1 in order of first appearance, shape (n,)."""
    index: dict[str, int] = {}
    return np.array([index.setdefault(name, len(index)) for name in names], dtype=np.int64)


def relabelled(clusters: Ints) -> Ints:
    """The labels of a part of the samples, dense again: 0 … G'-1."""
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)


def clustered_mean(values: Floats, clusters: Ints, bounds: tuple[float, float] | None = None) -> Estimate:
    """Mean with the sandwich interval: SE² = G/(G-1) · Σ_g (Σ_{i∈g} (x_i - x̄))² / n², t quantile with G-1 degrees.

    `bounds` are the smallest and largest possible value. The interval is cut to them, and where all values
    are equal (SE = 0, which says nothing) it is Wilson's for G trials at that place in the bounds instead.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    mean = float(values.mean())
    groups = int(clusters.max()) + 1
    if bounds and np.ptp(values) == 0:
        return Estimate(mean, *_wilson(mean, groups, bounds))
    if groups < 2:
        return Estimate(mean, np.nan, np.nan)
    residuals = np.bincount(clusters, weights=values - mean, minlength=groups)
    error = float(np.sqrt(groups / (groups - 1) * np.square(residuals).sum())) / n
    half = float(_t_quantile(groups - 1)) * error
    low, high = mean - half, mean + half
    return Estimate(mean, max(low, bounds[0]), min(high, bounds[1])) if bounds else Estimate(mean, low, high)


@lru_cache(maxsize=4)
def cluster_weights(groups: int, replicates: int = REPLICATES, seed: int = SEED) -> Floats:
    """How often each cluster is drawn in each bootstrap replicate, shape (replicates, groups).

    A single cluster says nothing about others: it gets no replicates.
    """
    if groups < 2:
        return np.zeros((0, groups))
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=replicates)
    weights = drawn.astype(np.float64)
    weights.flags.writeable = False  # one array for all who ask
    return weights


def bootstrap_sums(
    terms: Floats, clusters: Ints, statistic: Callable[[Floats], Floats], seed: int = SEED
) -> list[Estimate]:
    """Cluster bootstrap of statistics that depend on the samples through sums alone.

    `terms` (n, k) are the samples' contributions; `statistic` maps sums (B, k) to values (B,) or (B, m).
    Returns m percentile intervals around the values on the full data.
    """
    if len(terms) == 0:
        width = np.atleast_2d(statistic(np.zeros((1, terms.shape[1])))).shape[-1]
        return [NOTHING] * width
    groups = int(clusters.max()) + 1
    sums = _cluster_sums(terms, clusters, groups)
    full = np.atleast_1d(_columns(statistic(sums.sum(0, keepdims=True)))[0])
    replicates = _columns(statistic(cluster_weights(groups, seed=seed) @ sums))
    return [interval(value, column) for value, column in zip(full, replicates.T, strict=True)]


def interval(value: float, replicates: Floats) -> Estimate:
    """`value` with the percentile interval of its bootstrap replicates; undefined replicates (NaN) are left out.

    No replicates, no interval.
    """
    usable = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or len(usable) < 2:
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.quantile(usable, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


def paired_difference(
    first: Floats, second: Floats, clusters: Ints, statistic: Callable[[Floats], Floats], seed: int = SEED
) -> Difference:
    """Second less first, of a statistic of sums, for two models on the same samples.

    `first` and `second` (n, k) are the samples' contributions under each model; whole clusters are drawn, the same for
    both. p is two-sided, from the share of replicates on the other side of 0, never below 1 / replicates.
    """
    groups = int(clusters.max()) + 1
    sums = [_cluster_sums(terms, clusters, groups) for terms in (first, second)]
    full = [float(np.ravel(statistic(part.sum(0, keepdims=True)))[0]) for part in sums]
    weights = cluster_weights(groups, seed=seed)
    drawn = np.subtract(*(np.ravel(statistic(weights @ part)) for part in sums[::-1]))
    found = interval(full[1] - full[0], drawn)
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < 2:
        return Difference(*found, np.nan, np.nan)
    side = min((usable <= 0).mean(), (usable >= 0).mean())
    p = float(min(1.0, max(2 * side, 1 / len(usable))))
    return Difference(*found, p, float(usable.std(ddof=1)))


def mcnemar(worse: int, better: int) -> float:
    """McNemar's exact two-sided p-value from the numbers of samples that became wrong and that became right."""
    from scipy.stats import binomtest

    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure; NaN stays NaN and does not count."""
    usable = sorted((p, place) for place, p in enumerate(values) if not np.isnan(p))
    corrected = [float("nan")] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(usable):
        largest = max(largest, min(1.0, (len(usable) - rank) * p))
        corrected[place] = largest
    return corrected


def detectable(error: float, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at 5 % finds with this power, given the standard error."""
    from scipy.special import ndtri

    return float((ndtri((1 + LEVEL) / 2) + ndtri(power)) * error)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def _cluster_sums(terms: Floats, clusters: Ints, groups: int) -> Floats:
    """The samples' contributions (n, k) added up by cluster, shape (groups, k)."""
    return np.stack([np.bincount(clusters, weights=column, minlength=groups) for column in terms.T], axis=1)


def _columns(values: Floats) -> Floats:
    return values[:, None] if values.ndim == 1 else values


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def _wilson(value: float, trials: int, bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    p = (value - low) / (high - low)
    z2 = 1.959963984540054**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    ends = [min(max(end, 0.0), 1.0) for end in (centre - half, centre + half)]
    return float(low + ends[0] * (high - low)), float(low + ends[1] * (high - low))
