"""Intervals and tests for evaluations whose samples are clustered by image.

Every statistic has a cluster-robust standard error: the sandwich for means (Miller 2024, "Adding
Error Bars to Evals", arXiv 2411.00640), the jackknife that leaves out one image at a time for
ratios and all others. A bounded statistic gets Wilson's interval (1927) for the number of
independent trials that would have this error, with Student's quantile: near 0 and 1, and with few
images, it covers what a symmetric one does not (docs/statistics.md has the simulations). All
intervals are two-sided 95 %. `clusters` are integer labels 0 … G-1, shape (samples,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bounds = tuple[float, float] | None  # the smallest and the largest possible value
LEVEL = 0.95
TIE = 1e-12  # differences up to this are rounding
NORMAL_QUANTILE = 1.959963984540054  # of the standard normal at (1 + LEVEL) / 2
SHARE: Bounds = (0.0, 1.0)


class Estimate(NamedTuple):
    """A value with its 95 % interval; NaN if there is nothing to estimate from."""

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


def labels(names: Sequence[str]) -> Ints:
    """Integer cluster labels 0 … G-1 in order of first appearance, shape (samples,)."""
    label_of: dict[str, int] = {}
    return np.array([label_of.setdefault(name, len(label_of)) for name in names], dtype=np.int64)


def clustered_mean(values: Floats, clusters: Ints, bounds: Bounds = None) -> Estimate:
    """Mean with the sandwich error, Miller 2024, equation 4.

    SE² = G/(G-1) · Σ_g (Σ_{i∈g} (x_i - x̄))² / n², with the t quantile of G-1 degrees of freedom.

    Args:
        values: One value a sample, shape (samples,).
        clusters: Cluster labels, shape (samples,).
        bounds: The smallest and the largest possible value, if there are any.
    """
    n = len(values)
    if n == 0:
        return NOTHING
    mean = float(values.mean())
    groups = int(clusters.max()) + 1
    if groups < 2:  # one image says nothing about other images
        return interval(mean, np.nan, groups, bounds)
    # What an image's questions share stays in its sum and is not averaged away.
    residuals = np.bincount(clusters, weights=values - mean, minlength=groups)
    error = float(np.sqrt(groups / (groups - 1) * np.square(residuals).sum()) / n)
    # All right or all wrong: sums of rounding errors are no error of the mean.
    return interval(mean, 0.0 if np.ptp(values) == 0 else error, groups, bounds)


def estimates_of_sums(
    terms: Floats,
    clusters: Ints,
    statistic: Callable[[Floats], Floats],
    bounds: Bounds = SHARE,
    reported: Callable[[Floats], Floats] | None = None,
) -> list[Estimate]:
    """Statistics that depend on the samples through sums only, with jackknife intervals.

    Args:
        terms: What each sample contributes to each sum, shape (samples, sums).
        clusters: Cluster labels, shape (samples,).
        statistic: Maps sums (B, sums) to values (B,) or (B, m).
        bounds: The smallest and the largest possible value, if there are any.
        reported: The values as the official script prints them, if it rounds. Rounded values jump,
            so their errors come from `statistic`.

    Returns:
        m estimates.
    """
    if len(terms) == 0:
        columns = _as_columns(statistic(np.zeros((1, terms.shape[1]))))
        return [NOTHING] * columns.shape[1]
    sums = cluster_sums(terms, clusters)  # (groups, sums)
    total = sums.sum(0, keepdims=True)
    full = _as_columns(statistic(total))[0]  # (m,)
    without = _as_columns(statistic(total - sums))  # (groups, m)
    alone = _as_columns(statistic(sums))  # (groups, m)
    shown = full if reported is None else _as_columns(reported(total))[0]
    estimates = []
    for index, value in enumerate(full):
        error = jackknife_error(float(value), without[:, index])
        groups = informative(alone[:, index])
        estimates.append(interval(float(shown[index]), error, groups, bounds))
    return estimates


def jackknife_error(value: float, without: Floats) -> float:
    """The standard error of a statistic from its values without each cluster, shape (groups,).

    SE² = (G-1)/G · Σ_g (θ_(g) - mean θ_(g))² (Efron and Stein 1981). NaN with fewer than two
    clusters, and if one cluster alone makes the value: nothing is known of its error then.
    """
    groups = len(without)
    if groups < 2 or not np.isfinite(value) or not np.isfinite(without).all():
        return float("nan")
    return float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))


def informative(alone: Floats) -> int:
    """How many clusters can say anything about a statistic: those that have a value of their own.

    An image without a mention is no evidence about a ratio over mentions. If none has one, as of a
    mean over subsets that no image has all of, they all count.

    Args:
        alone: The statistic of each cluster alone, shape (groups,).
    """
    return int(np.isfinite(alone).sum()) or len(alone)


def interval(value: float, error: float, groups: int, bounds: Bounds) -> Estimate:
    """A value with its interval.

    Args:
        value: The value.
        error: Its standard error; NaN gives no interval.
        groups: How many clusters it comes from.
        bounds: The smallest and the largest possible value; None gives Student's interval.
    """
    if not np.isfinite(value) or not np.isfinite(error) or groups < 2:
        return Estimate(value, np.nan, np.nan)
    # All images right, or all wrong, is one trial an image.
    if bounds is not None and (error <= TIE or value in bounds):
        return Estimate(value, *_wilson(value, groups, NORMAL_QUANTILE, bounds))
    quantile = _t_quantile(groups - 1)
    if bounds is None:
        return Estimate(value, value - quantile * error, value + quantile * error)
    lowest, highest = bounds
    # How many independent trials have this error: p(1-p)/n = SE².
    p = (value - lowest) / (highest - lowest)
    trials = p * (1 - p) * ((highest - lowest) / error) ** 2
    return Estimate(value, *_wilson(value, trials, quantile, bounds))


def paired_difference(
    first: float,
    second: float,
    first_without: Floats,
    second_without: Floats,
    floor: float = 0.0,
    groups: int | None = None,
) -> Difference:
    """Second less first, of a statistic of two models on the same samples.

    Both are left out the same images, so that what makes an image hard for both models cancels.
    Interval and p-value are Student's with G-1 degrees of freedom.

    Args:
        first: The first model's value on all samples.
        second: The second model's value.
        first_without: The first model's values without each cluster, shape (groups,).
        second_without: The second model's.
        floor: The smallest error that the interval believes, the change of one sample: where no
            sample has changed, others may.
        groups: How many clusters say anything about the statistic; all if None.
    """
    value = second - first
    groups = len(first_without) if groups is None else groups
    error = jackknife_error(value, second_without - first_without)
    if not np.isfinite(error) or groups < 2:
        return Difference(value, np.nan, np.nan, np.nan, np.nan)
    if abs(value) <= TIE:
        p = 1.0
    elif error <= TIE:
        # All images differ by the same: as likely as that all coins fall on one side.
        p = 2.0 ** (1 - groups)
    else:
        p = _two_sided_t(value / error, groups - 1)
    believed = max(error, floor)
    half_width = _t_quantile(groups - 1) * believed
    return Difference(value, value - half_width, value + half_width, p, believed)


def variance_between(values: Sequence[float]) -> float:
    """The variance of a mean over seeds that comes from the seeds; 0 of one seed."""
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0


def with_seeds(by_image: Difference, groups: int, seeds: Sequence[float]) -> Difference:
    """A difference of means over seeds whose error holds the seeds' too.

    Args:
        by_image: The difference of the means with the error over images.
        groups: How many images that error comes from.
        seeds: Each seed's own difference, shape (seeds,).
    """
    spread = variance_between(seeds)
    if not np.isfinite(by_image.error) or not spread:
        return by_image
    variance = by_image.error**2 + spread
    # Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
    parts = by_image.error**4 / (groups - 1) + spread**2 / (len(seeds) - 1)
    degrees = variance**2 / parts
    error = float(np.sqrt(variance))
    half_width = _t_quantile(degrees) * error
    value = by_image.value
    p = _two_sided_t(value / error, degrees)
    return Difference(value, value - half_width, value + half_width, p, error)


def sign_flip(nets: Sequence[int]) -> float:
    """The two-sided p-value of whether as many samples became better as worse, by clusters.

    If nothing has changed, an image's net change is as likely to have the other sign. The
    distribution over all signs is exact (Fisher's permutation test); a draw counts half (mid-p),
    because the number of changes is small and the test would be too strict.

    Args:
        nets: For each cluster how many samples became better, less how many became worse.
    """
    changes = []
    for net in nets:
        if net:
            changes.append(abs(net))
    if not changes:
        return 1.0
    reach = sum(changes)
    probability = np.zeros(2 * reach + 1)  # of each sum, from -reach to reach
    probability[reach] = 1.0
    for change in changes:
        up, down = np.zeros_like(probability), np.zeros_like(probability)
        up[change:] = probability[:-change]
        down[:-change] = probability[change:]
        probability = (up + down) / 2
    distance = np.abs(np.arange(-reach, reach + 1))
    observed = abs(sum(nets))
    beyond = probability[distance > observed].sum()
    return float(min(1.0, beyond + probability[distance == observed].sum() / 2))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure (Holm 1979).

    NaN stays NaN and does not count.
    """
    usable = sorted((p, index) for index, p in enumerate(values) if not np.isnan(p))
    corrected = [float("nan")] * len(values)
    largest = 0.0
    # The smallest is multiplied by all tests, the next by one less, and so on.
    for rank, (p, index) in enumerate(usable):
        # A corrected p-value is never smaller than that of a smaller p-value.
        largest = max(largest, min(1.0, (len(usable) - rank) * p))
        corrected[index] = largest
    return corrected


def detectable(error: float, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at 5 % finds with this power.

    Args:
        error: Standard error of the difference.
        power: Probability of finding it.
    """
    from scipy.special import ndtri

    return float((ndtri((1 + LEVEL) / 2) + ndtri(power)) * error)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def ratios(sums: Floats) -> Floats:
    """Quotients of columns side by side: (B, 2 k) → (B, k)."""
    return ratio(sums[:, 0::2], sums[:, 1::2])


def complement(estimate: Estimate) -> Estimate:
    """Of a share, that of the others."""
    return Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low)


def cluster_sums(terms: Floats, clusters: Ints) -> Floats:
    """The samples' contributions (samples, sums) added up by cluster, shape (groups, sums)."""
    groups = int(clusters.max()) + 1
    sums = np.zeros((groups, terms.shape[1]))
    for column, values in enumerate(terms.T):
        sums[:, column] = np.bincount(clusters, weights=values, minlength=groups)
    return sums


def _as_columns(values: Floats) -> Floats:
    return values[:, None] if values.ndim == 1 else values


def _t_quantile(degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def _two_sided_t(ratio_to_error: float, degrees: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(ratio_to_error)))


def _wilson(
    value: float, trials: float, quantile: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) of a share of `trials`, mapped onto `bounds`."""
    lowest, highest = bounds
    p = (value - lowest) / (highest - lowest)
    z2 = quantile**2
    shrink = 1 + z2 / trials
    centre = (p + z2 / (2 * trials)) / shrink
    half_width = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / shrink
    low = lowest + max(centre - half_width, 0.0) * (highest - lowest)
    high = lowest + min(centre + half_width, 1.0) * (highest - lowest)
    # Rounding must not put a value of 1 outside of its interval.
    return float(min(low, value)), float(max(high, value))
