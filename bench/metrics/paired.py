"""Figures: how they are computed from scores, and how two models are compared by one of them.

A `Statistic` gives its value on all scores and without each image, from which the jackknife error
of any figure, and of the difference of two models, is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.metrics.seeds import seed_of
from bench.metrics.yes_no import MIN_MASS, Ranking, subset_blocks, yes_no_mass
from bench.stats import (
    Bounds,
    Difference,
    Estimate,
    Floats,
    Ints,
    cluster_sums,
    informative,
    interval,
    jackknife_error,
    labels,
    paired_difference,
    ratio,
    variance_between,
    with_seeds,
)
from bench.types import Figure, Fit, Metric, Score, Values, format_p, scale_of

Terms = Callable[[Values], Sequence[float]]
Combine = Callable[[Floats], Floats]


@dataclass(frozen=True)
class FunctionOfSums:
    """A function of sums over samples.

    Args:
        terms: What a sample adds to each of k sums, from its score's values.
        combine: Maps sums (B, k) to values (B,).
        reported: The value as the official script prints it, if it rounds: sums (B, k) → (B,).
    """

    terms: Terms
    combine: Combine
    reported: Combine | None = None

    def all_terms(self, scores: Sequence[Score]) -> Floats:
        """The terms of all samples, shape (samples, k)."""
        return np.array([self.terms(score.values) for score in scores], dtype=float)

    def fit(self, scores: Sequence[Score], clusters: Ints) -> Fit:
        """See `bench.types.Statistic`."""
        sums = cluster_sums(self.all_terms(scores), clusters)  # (groups, k)
        total = sums.sum(0, keepdims=True)
        without = self.combine(total - sums)
        groups = informative(self.combine(sums))
        if self.reported is None:
            return Fit(float(self.combine(total)[0]), without, groups)
        # Rounded values jump; errors come from the function that is not rounded.
        value = float(self.reported(total)[0])
        return Fit(value, without + (value - self.combine(total)[0]), groups)

    def alone(self, scores: Sequence[Score]) -> Floats:
        """See `bench.types.Statistic`."""
        return self.combine(self.all_terms(scores))


@dataclass(frozen=True)
class MeanOverSubsets(FunctionOfSums):
    """The mean over subsets of a function of sums, as papers quote POPE."""

    def fit(self, scores: Sequence[Score], clusters: Ints) -> Fit:
        """See `bench.types.Statistic`."""
        terms = self.all_terms(scores)
        subsets = [score.subset for score in scores]
        names = list(dict.fromkeys(subsets))
        sums = cluster_sums(subset_blocks(terms, subsets, names), clusters)
        width = terms.shape[1]

        def mean(sums: Floats) -> Floats:
            blocks = sums.reshape(-1, width)  # (B * subsets, k)
            each = self.combine(blocks).reshape(-1, len(names))  # (B, subsets)
            return np.asarray(each.mean(axis=1))

        total = sums.sum(0, keepdims=True)
        return Fit(float(mean(total)[0]), mean(total - sums), informative(mean(sums)))


@dataclass(frozen=True)
class WholeGroups:
    """The share of groups of which every sample is right: figures, pairs of questions.

    Scores need the values `correct` and `name`, which tells the group; a group lies in one cluster.
    """

    name: str

    def fit(self, scores: Sequence[Score], clusters: Ints) -> Fit:
        """See `bench.types.Statistic`."""
        values, cluster_of_group = whole(scores, self.name, clusters)
        terms = np.stack([values, np.ones(len(values))], axis=1)  # (groups, 2)
        num_clusters = int(clusters.max()) + 1
        sums = np.zeros((num_clusters, 2))
        np.add.at(sums, cluster_of_group, terms)
        total = sums.sum(0, keepdims=True)
        return Fit(float(quotient(total)[0]), quotient(total - sums), informative(quotient(sums)))

    def alone(self, scores: Sequence[Score]) -> Floats:
        """See `bench.types.Statistic`."""
        return np.array([float(score.values["correct"]) for score in scores])


def whole(scores: Sequence[Score], name: str, clusters: Ints) -> tuple[Floats, Ints]:
    """For each group of scores, 1 if all are right, and its cluster; both of shape (groups,)."""
    is_right: dict[tuple[str, int | None], bool] = {}
    cluster_of: dict[tuple[str, int | None], int] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        # Of several answers to a question, each belongs to the others of its seed.
        group = (score.values[name], seed_of(score.sample))
        is_right[group] = is_right.get(group, True) and bool(score.values["correct"])
        cluster_of[group] = int(cluster)
    values = np.array([float(right) for right in is_right.values()])
    return values, np.array(list(cluster_of.values()), dtype=int)


def quotient(sums: Floats) -> Floats:
    """The first of two sums over the second: (B, 2) → (B,)."""
    return ratio(sums[:, 0], sums[:, 1])


def ratio_of_sums(
    above: Callable[[Values], float], below: Callable[[Values], float] | None = None
) -> FunctionOfSums:
    """Σ above / Σ below over samples; without `below`, the mean of `above`."""

    def terms(values: Values) -> Sequence[float]:
        return above(values), below(values) if below else 1.0

    return FunctionOfSums(terms, quotient)


def mean_of_value(name: str) -> FunctionOfSums:
    """The mean of one value of the scores."""

    def value(values: Values) -> float:
        return float(values[name])

    return ratio_of_sums(value)


@dataclass(frozen=True)
class RankingOf:
    """One of `Ranking`'s metrics of P(yes); `index` is its place in `Ranking.NAMES`.

    Scores need the values `p_yes` and `label`, and have `yes_no_mass`. Its mean decides whether
    there is anything to rank.
    """

    index: int

    def fit(self, scores: Sequence[Score], clusters: Ints) -> Fit:
        """See `bench.types.Statistic`."""
        probabilities, truth = np.zeros(len(scores)), np.zeros(len(scores))
        for row, score in enumerate(scores):
            probabilities[row] = score.values["p_yes"]
            truth[row] = score.values["label"] == "yes"
        if yes_no_mass([score.values for score in scores]) < MIN_MASS:
            groups = int(clusters.max()) + 1
            return Fit(np.nan, np.full(groups, np.nan), groups)
        ranking = Ranking(probabilities, truth, clusters)
        without = ranking.without_each()[:, self.index]
        return Fit(ranking.full()[self.index], without, len(without))

    def alone(self, scores: Sequence[Score]) -> Floats:
        """See `bench.types.Statistic`: one sample has no rank."""
        return np.full(len(scores), np.nan)


class Paired(NamedTuple):
    """A figure of two models on the samples that both have.

    Args:
        figure: The figure.
        samples: How many samples both have.
        first: The first model's value with its interval.
        second: The second model's.
        difference: Second less first, paired by image.
    """

    figure: Figure
    samples: int
    first: Estimate
    second: Estimate
    difference: Difference


def paired(
    figure: Figure, first: Mapping[str, Score], second: Mapping[str, Score]
) -> Paired | None:
    """Second against first, by sample id.

    None if they share no scored sample that the figure counts.
    """
    sides = _on_the_same_samples(figure, [first, second])
    if not sides[0]:
        return None
    fits = _fits(figure, sides)
    difference = paired_difference(
        fits[0].value,
        fits[1].value,
        fits[0].without,
        fits[1].without,
        _change_of_one_sample(figure, *sides),
        min(fit.groups for fit in fits),
    )
    estimates = []
    for fit in fits:
        error = jackknife_error(fit.value, fit.without)
        estimates.append(interval(fit.value, error, fit.groups, figure.bounds))
    difference = _possible(difference, figure.bounds)
    return Paired(figure, len(sides[0]), estimates[0], estimates[1], difference)


def _possible(difference: Difference, bounds: Bounds) -> Difference:
    """The difference with an interval that ends where differences do."""
    if bounds is None:
        return difference
    span = bounds[1] - bounds[0]
    low, high = np.clip([difference.low, difference.high], -span, span).tolist()
    return difference._replace(low=low, high=high)


def _on_the_same_samples(figure: Figure, sides: Sequence[Mapping[str, Score]]) -> list[list[Score]]:
    """Each side's scores of the samples that all sides have: another set is another question."""
    shared: list[list[Score]] = [[] for _ in sides]
    for name in sides[0]:
        if all(name in scores and _counts(figure, scores[name]) for scores in sides):
            for side, scores in zip(shared, sides, strict=True):
                side.append(scores[name])
    return shared


def _fits(figure: Figure, sides: Sequence[Sequence[Score]]) -> list[Fit]:
    """The figure on each side's scores, all of the same samples."""
    clusters = labels([score.cluster for score in sides[0]])
    return [figure.statistic.fit(scores, clusters) for scores in sides]


class PairedSeeds(NamedTuple):
    """A figure of two conditions, each a mean over trainings.

    Args:
        paired: The means and their difference.
        seeds: The second condition's value in each training.
    """

    paired: Paired
    seeds: Sequence[float]


def paired_over_seeds(
    figure: Figure, pairs: Sequence[tuple[Mapping[str, Score], Mapping[str, Score]]]
) -> PairedSeeds | None:
    """The second condition against the first, each a mean over trainings of other seeds.

    Two sources of chance are in the error: the images, by a jackknife of the mean over seeds, and
    the trainings, by the variance of the seeds' own differences over their number. What differs
    between images from seed to seed is in both, so the interval is a little too wide rather than
    too narrow. Its degrees of freedom are Satterthwaite's (1946).

    Args:
        figure: The figure.
        pairs: Of each seed both conditions' scores by sample id; a base model that was not trained
            is the same in all.

    Returns:
        None if not all share a scored sample that the figure counts.
    """
    firsts, seconds = zip(*pairs, strict=True)
    sides = _on_the_same_samples(figure, [*firsts, *seconds])
    if not sides[0]:
        return None
    fits = _fits(figure, sides)
    first, second = _over_seeds(fits[: len(pairs)]), _over_seeds(fits[len(pairs) :])
    groups = min(fit.groups for fit in fits)
    by_image = paired_difference(
        first.value, second.value, first.without, second.without, groups=groups
    )
    seed_differences = np.subtract(second.seeds, first.seeds)
    difference = with_seeds(by_image, groups, seed_differences.tolist())
    estimates = []
    for side in (first, second):
        of_images = jackknife_error(side.value, side.without)
        of_seeds = math.sqrt(variance_between(side.seeds))
        error = math.hypot(of_images, of_seeds)
        estimates.append(interval(side.value, error, groups, figure.bounds))
    difference = _possible(difference, figure.bounds)
    item = Paired(figure, len(sides[0]), estimates[0], estimates[1], difference)
    return PairedSeeds(item, second.seeds)


class _MeanOfSeeds(NamedTuple):
    """A condition's mean over trainings, the same without each image, and each training's value."""

    value: float
    without: Floats  # (groups,)
    seeds: list[float]


def _over_seeds(fits: Sequence[Fit]) -> _MeanOfSeeds:
    seeds = [fit.value for fit in fits]
    without = np.mean([fit.without for fit in fits], axis=0)
    return _MeanOfSeeds(float(np.mean(seeds)), without, seeds)


def _change_of_one_sample(figure: Figure, *sides: Sequence[Score]) -> float:
    """How much one sample more or less would change a figure; 0 if it has no bounds."""
    if figure.bounds is None:
        return 0.0
    # A sample without a mention cannot change a ratio over mentions.
    counts = [int(np.isfinite(figure.statistic.alone(scores)).sum()) for scores in sides]
    samples = min(counts) or len(sides[0])
    return (figure.bounds[1] - figure.bounds[0]) / (samples + 2)


def _counts(figure: Figure, score: Score) -> bool:
    return score.unscored is None and figure.over(score.values)


def recorded_means(
    metrics: Sequence[Metric], scores: Mapping[str, Score], benchmark: str
) -> list[Figure]:
    """Figures of a benchmark that declares none: recorded metrics that are means of a value.

    This is all that can be known of a benchmark that is not installed here, and of a task of
    lmms-eval, whose own code alone sums up.

    Args:
        metrics: The run's recorded metrics.
        scores: Its scores by sample.
        benchmark: The benchmark's name, for the figures' titles.
    """
    scored = []
    for score in scores.values():
        if score.unscored is None:
            scored.append(score)
    figures = []
    for metric in metrics:
        values = [number_of(score.values.get(metric.name)) for score in scored]
        known = []
        for value in values:
            if value is not None:
                known.append(value)
        is_mean = known and np.isclose(float(np.mean(known)), metric.value, atol=1e-9)
        if metric.subset == "all" and metric.unit != "count" and is_mean:
            figures.append(
                Figure(
                    metric.name,
                    f"{benchmark} {metric.name}",
                    metric.better,
                    ratio_of_sums(_number_in(metric.name)),
                    metric.unit,
                    over=_has_number(metric.name),
                    bounds=(0.0, 1.0) if metric.unit == "fraction" else None,
                    margin=0.01 if metric.unit == "fraction" else None,
                )
            )
    return figures


def number_of(value: Any) -> float | None:
    """A value that is a number, or holds one as its "score", as lmms-eval's do."""
    if isinstance(value, Mapping):
        value = value.get("score")
    return float(value) if isinstance(value, bool | int | float) else None


def _number_in(name: str) -> Callable[[Values], float]:
    def number(values: Values) -> float:
        value = number_of(values[name])
        assert value is not None  # `_has_number` was asked first
        return value

    return number


def _has_number(name: str) -> Callable[[Values], bool]:
    def has_number(values: Values) -> bool:
        return number_of(values.get(name)) is not None

    return has_number


class Change(NamedTuple):
    """A comparison in words: values as shown, difference and interval with their signs.

    `str(change)` is "54.17 → 25.00, difference -29.17 [-34.00, -24.30]".
    """

    first: str
    second: str
    difference: str
    interval: str
    p: str

    def __str__(self) -> str:
        return f"{self.first} → {self.second}, difference {self.difference} {self.interval}"


def format_change(
    unit: str,
    first: float,
    second: float,
    difference: Sequence[float],
    p: float,
    digits: int = 2,
) -> Change:
    """The parts of "a → b, difference [low, high], p", the same in every table and message.

    Args:
        unit: Fractions are shown in percent.
        first: The first model's value. A value that is not known (NaN) is "–".
        second: The second model's value.
        difference: Its value, low and high end.
        p: The p-value; NaN gives an empty text.
        digits: Decimals.
    """
    scale = scale_of(unit)
    change, low, high = (scale * end for end in difference[:3])
    return Change(
        "–" if np.isnan(first) else f"{scale * first:.{digits}f}",
        "–" if np.isnan(second) else f"{scale * second:.{digits}f}",
        "–" if np.isnan(change) else f"{change:+.{digits}f}",
        "no interval" if np.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]",
        "" if np.isnan(p) else format_p(p),
    )


def change_of(item: Paired, p: float | None = None) -> Change:
    """`format_change` of a comparison, with its own p-value or a corrected one."""
    shown_p = item.difference.p if p is None else p
    return format_change(
        item.figure.unit, item.first.value, item.second.value, item.difference[:3], shown_p
    )
