"""Intervals and tests against second implementations and against the coverage that they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from bench.metrics.paired import FunctionOfSums, paired, quotient
from bench.stats import (
    clustered_mean,
    estimates_of_sums,
    holm,
    labels,
    paired_difference,
    sign_flip,
)
from bench.types import Figure, Score
from tests import simulations


def clustered_sample(random, groups=80, size=6):
    """Yes/no values that agree within an image: mean 0.7, intra-cluster correlation about 0.4."""
    rates = random.beta(1.05, 0.45, groups)
    return (random.random((groups, size)) < rates[:, None]).astype(float).ravel(), np.repeat(
        np.arange(groups), size
    )


def test_independent_samples_get_the_textbook_t_interval():
    values = np.random.default_rng(0).normal(5, 2, 40)
    estimate = clustered_mean(values, np.arange(40))
    low, high = scipy_stats.t.interval(0.95, 39, values.mean(), scipy_stats.sem(values))
    assert estimate == pytest.approx((values.mean(), low, high))


def test_repeating_every_sample_changes_no_interval():
    """Ten copies of an image's question are no new evidence; a naive interval would shrink
    threefold."""
    values = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    once = clustered_mean(values, np.arange(50))
    assert clustered_mean(np.repeat(values, 10), np.repeat(np.arange(50), 10)) == pytest.approx(
        once
    )


def test_equal_values_get_an_honest_interval_not_a_point():
    value, low, high = clustered_mean(np.ones(60), np.arange(60) // 3, (0, 1))
    assert (value, high) == (1, pytest.approx(1)) and 0.8 < low < 0.9  # Wilson for 20 images
    assert clustered_mean(np.full(60, 6.0), np.arange(60), (0, 6)).low > 5.5


def test_empty_and_single():
    assert np.isnan(clustered_mean(np.array([]), np.array([], dtype=int))).all()
    value, low, high = clustered_mean(np.array([1.0, 0.0]), np.array([0, 0]))
    assert value == 0.5 and np.isnan([low, high]).all()
    (alone,) = estimates_of_sums(np.ones((3, 2)) / 2, np.zeros(3, dtype=int), quotient, None)
    assert alone.value == 1 and np.isnan(alone[1:]).all(), "one image tells nothing about others"
    (nothing,) = estimates_of_sums(np.zeros((0, 2)), np.array([], dtype=int), quotient)
    assert np.isnan(nothing).all()


def test_the_error_of_a_ratio_is_that_of_leaving_out_whole_images():
    random = np.random.default_rng(0)
    values, clusters = clustered_sample(random)
    weight = random.integers(1, 5, len(values)).astype(float)
    terms = np.stack([values * weight, weight], axis=1)
    (estimate,) = estimates_of_sums(terms, clusters, quotient, None)
    assert estimate.value == pytest.approx((values * weight).sum() / weight.sum())
    by_hand = []
    for image in range(80):
        rest = clusters != image
        by_hand.append((values * weight)[rest].sum() / weight[rest].sum())
    error = np.sqrt(79 / 80 * np.square(by_hand - np.mean(by_hand)).sum())
    half_width = scipy_stats.t.ppf(0.975, 79) * error
    assert estimate.high - estimate.value == pytest.approx(half_width)
    assert estimate.value - estimate.low == pytest.approx(half_width)


def test_it_is_close_to_a_bootstrap_of_whole_images():
    random = np.random.default_rng(1)
    values, clusters = clustered_sample(random)
    weight = random.integers(1, 5, len(values)).astype(float)
    (estimate,) = estimates_of_sums(np.stack([values * weight, weight], 1), clusters, quotient)
    drawn = []
    for _ in range(2000):
        images = random.integers(0, 80, 80)
        rows = np.concatenate([np.flatnonzero(clusters == image) for image in images])
        drawn.append((values * weight)[rows].sum() / weight[rows].sum())
    assert estimate[1:] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.012)


@pytest.mark.parametrize(("right", "n"), [(3, 20), (10, 20), (19, 20), (480, 500), (0, 30)])
def test_independent_samples_get_wilsons_interval(right, n):
    """Against statsmodels. With few samples the quantile is Student's, so ours is wider."""
    values = np.array([1.0] * right + [0.0] * (n - right))
    estimate = clustered_mean(values, np.arange(n), (0, 1))
    expected = proportion_confint(right, n, method="wilson")
    assert estimate[1:] == pytest.approx(expected, abs=0.75 / n if right else 1e-12)
    assert estimate.low <= expected[0] + 1e-9 and estimate.high >= expected[1] - 1e-9


def test_rare_and_common_shares_have_intervals_on_both_sides():
    values = np.zeros(40)
    values[0] = 1
    value, low, high = clustered_mean(values, np.arange(40), (0, 1))
    assert 0 < low < value < high and high - value > 2 * (value - low)
    assert clustered_mean(6 * values, np.arange(40), (0, 6))[1:] == pytest.approx(
        [6 * low, 6 * high]
    )


def test_a_difference_has_students_p_value_below_any_resolution():
    """A bootstrap of 2,000 draws cannot tell p = 1e-20 from p = 0.0005; Holm needs it."""
    random = np.random.default_rng(3)
    first, second = random.normal(0, 1, 100), random.normal(3, 1, 100)
    without = [(x.sum() - x) / 99 for x in (first, second)]
    difference = paired_difference(first.mean(), second.mean(), *without)
    expected = scipy_stats.ttest_rel(second, first)
    assert difference.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert difference.p < 1e-20
    interval = expected.confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_no_change_among_few_samples_says_little():
    zeros = np.zeros(2)
    difference = paired_difference(0.5, 0.5, zeros, zeros, floor=1 / 4)
    assert difference.p == 1 and difference.low < -1 and difference.high > 1
    zeros = np.zeros(500)
    difference = paired_difference(0.5, 0.5, zeros, zeros, floor=1 / 9002)
    assert difference.p == 1 and -0.001 < difference.low < 0 < difference.high < 0.001


def test_images_that_all_change_alike_are_not_certain():
    without = np.full(5, 0.2)
    difference = paired_difference(0.0, 0.2, np.zeros(5), without, floor=0.05)
    assert difference.p == 2**-4


@pytest.mark.parametrize(
    ("nets", "p"),
    [
        ([], 1.0),
        ([0, 0], 1.0),
        ([1], 0.5),  # half of both outcomes, each as far
        ([1, 1], 0.25),
        ([1, -1], 0.75),  # beyond: 2 of 4; as far: 2 of 4
        ([3, 1], 0.25),  # sums 4, 2, -2, -4: beyond none, as far 2 of 4
        ([2, 2, -1], 0.375),  # sums ±5, ±3, ±1, ±1: beyond 2 of 8, as far 2 of 8
    ],
)
def test_sign_flips_are_counted_over_all_signs(nets, p):
    assert sign_flip(nets) == pytest.approx(p)


def test_sign_flips_against_drawn_signs():
    random = np.random.default_rng(4)
    nets = random.integers(-3, 5, 60)
    drawn = np.abs((random.choice([-1, 1], (200_000, 60)) * nets).sum(1))
    observed = abs(nets.sum())
    expected = (drawn > observed).mean() + (drawn == observed).mean() / 2
    assert sign_flip(nets.tolist()) == pytest.approx(expected, abs=0.002)


def test_a_value_lies_within_its_interval_whatever_the_rounding():
    for images in range(2, 400):
        for share in (0.0, 1.0):
            value, low, high = clustered_mean(np.full(images, share), np.arange(images), (0, 1))
            assert 0 <= low <= value <= high <= 1
        value, low, high = clustered_mean(np.full(images, 6.0), np.arange(images), (0, 6))
        assert low <= value <= high <= 6


def test_equal_images_are_no_certainty_whatever_the_rounding():
    """Each image a third right: the sums differ in the last digit."""
    terms = np.tile([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]], (30, 1)) * 0.1
    (estimate,) = estimates_of_sums(terms, np.repeat(np.arange(30), 3), quotient)
    assert estimate.high - estimate.low > 0.2


def said_yes_once(right: float, images: int = 500):
    """Terms of a precision: one image has the only answer yes."""
    terms = np.zeros((images, 2))
    terms[7] = [right, 1.0]
    return terms


def test_one_image_that_makes_a_ratio_says_nothing_about_others():
    (estimate,) = estimates_of_sums(said_yes_once(1.0), np.arange(500), quotient)
    assert estimate.value == 1 and np.isnan(estimate[1:]).all()


def test_only_images_with_a_denominator_count():
    terms = np.zeros((500, 2))
    terms[:6] = [1.0, 1.0]
    (few,) = estimates_of_sums(terms, np.arange(500), quotient)
    (alone,) = estimates_of_sums(terms[:6], np.arange(6), quotient)
    assert few == pytest.approx(alone) and few.low < 0.7


def test_two_models_that_say_yes_once_do_not_differ_for_sure():
    def score(values):
        return values["hit"], values["yes"]

    figure = Figure("p", "p", "higher", FunctionOfSums(score, quotient))
    sides = []
    for hit in (1.0, 0.0):
        scores = {}
        for n in range(100):
            values = {"hit": hit if n == 3 else 0.0, "yes": float(n == 3)}
            scores[str(n)] = Score(str(n), "all", str(n), values)
        sides.append(scores)
    difference = paired(figure, *sides).difference
    assert difference.value == -1 and np.isnan([difference.low, difference.p]).all()


def test_holm_is_statsmodels():
    p_values = np.random.default_rng(5).random(20) ** 3
    assert holm(p_values.tolist()) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_ignoring_images_covers_far_less_than_it_claims():
    """1,500 data sets of 80 images x 6 questions."""
    random = np.random.default_rng(7)
    truth = 1.05 / 1.5
    covered = {"by image": 0, "naive": 0}
    for _ in range(1500):
        values, clusters = clustered_sample(random)
        intervals = {
            "by image": clustered_mean(values, clusters, (0, 1)),
            "naive": clustered_mean(values, np.arange(len(values)), (0, 1)),
        }
        for name, (_, low, high) in intervals.items():
            covered[name] += low <= truth <= high
    assert 0.93 <= covered["by image"] / 1500 <= 0.97
    assert covered["naive"] / 1500 < 0.85


@pytest.mark.parametrize("name", simulations.STATISTICS)
@pytest.mark.parametrize("images", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_intervals_cover_the_truth_in_the_middle(name, images):
    """Few data sets; the slow test has all shares, sizes and more data sets."""
    assert 0.92 <= simulations.coverage(name, 0.9, images, 400) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", simulations.STATISTICS)
@pytest.mark.parametrize("images", simulations.IMAGES)
def test_intervals_cover_the_truth(name, images):
    """93-97 %, and a little more room where a share of some images is lumpy: 1,000 data sets have
    an error of 0.7 points, and of 12 images 0, 1 or 2 are wrong."""
    for share in simulations.STATISTICS[name][1]:
        lowest, highest = (0.93, 0.97)
        is_rare = min(share, 1 - share) * images < 10
        if is_rare or images == 12:
            lowest, highest = (0.90, 0.99)
        covered = simulations.coverage(name, share, images, 1000)
        assert lowest - 0.014 <= covered <= highest + 0.014, (share, covered)


@pytest.mark.slow
@pytest.mark.parametrize("images", [30, 96, 500])
def test_equal_models_differ_once_in_twenty(images):
    figure = simulations.accuracy_figure()
    sets = min(1500, 90_000 // images)
    error = np.sqrt(0.05 * 0.95 / sets)
    for p in simulations.false_positives(figure, 0.6, images, sets):
        assert 0.04 - 2 * error <= p <= 0.06 + 2 * error


def test_labels_are_dense_in_order_of_appearance():
    assert labels(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
