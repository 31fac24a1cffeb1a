"""What several benchmarks share: metrics from figures and estimates, scores by subset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metrics.paired import whole
from bench.stats import NOTHING, SHARE, Bounds, Estimate, Floats, Ints, clustered_mean, labels
from bench.types import Better, Figure, Metric, Sample, Score, Verdict


def scored(scores: Sequence[Score]) -> list[Score]:
    """Those of `scores` that have values."""
    return [score for score in scores if score.unscored is None]


def values_of(scores: Sequence[Score], key: str) -> Floats:
    """One value of scores that have values, as numbers, shape (scores,)."""
    return np.array([float(score.values[key]) for score in scores])


def equals(scores: Sequence[Score], key: str, value: object) -> Floats:
    """1 where a value of scores is `value`, else 0, shape (scores,)."""
    return np.array([float(score.values[key] == value) for score in scores])


def metric(
    figure: Figure,
    subset: str,
    estimate: Estimate,
    scores: Sequence[Score],
    caveats: tuple[str, ...] = (),
) -> Metric:
    """A metric of a declared figure over `scores`, those of the subset, unscored ones included."""
    value, low, high = map(float, estimate)
    # An unscored sample is left out and told, never counted as wrong.
    n = len(scored(scores))
    unscored = len(scores) - n
    return Metric(
        figure.metric, subset, value, low, high, n, unscored, figure.better, figure.unit, caveats
    )


def count(
    name: str, subset: str, value: int, scores: Sequence[Score], better: Better = "lower"
) -> Metric:
    """A counted metric, without an interval."""
    n = len(scored(scores))
    unscored = len(scores) - n
    return Metric(name, subset, float(value), np.nan, np.nan, n, unscored, better, "count")


def mean_of(scores: Sequence[Score], key: str, bounds: Bounds = SHARE) -> Estimate:
    """Clustered mean of one value over the scored of `scores`.

    Args:
        scores: Scores of a subset.
        key: The value's name.
        bounds: Its smallest and largest possible value; None if there are none.
    """
    with_values = scored(scores)
    return clustered_mean(values_of(with_values, key), clusters_of(with_values), bounds)


def unscored(sample: Sample, reason: str) -> Score:
    """A sample without values, and why."""
    return Score(sample.id, sample.subset, sample.cluster, unscored=reason)


def unjudged(sample: Sample, verdict: Verdict | None) -> Score:
    """The score of an answer without a verdict, or whose judge failed."""
    return unscored(sample, "not judged" if verdict is None else f"no verdict: {verdict.error}")


def whole_groups(scores: Sequence[Score], key: str) -> Estimate:
    """The share of groups of which every sample is right, over the scored of `scores`.

    Args:
        scores: Scores of a subset.
        key: The value that tells a score's group.
    """
    with_values = scored(scores)
    if not with_values:
        return NOTHING
    values, clusters = whole(with_values, key, clusters_of(with_values))
    return clustered_mean(values, clusters)


def clusters_of(scores: Sequence[Score]) -> Ints:
    """Cluster labels of scores, shape (scores,)."""
    return labels([score.cluster for score in scores])


def by_subset(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Scores grouped by subset, in order of first appearance."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.subset, []).append(score)
    return groups
