"""Intervals against brute force and against the coverage they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.stats import bootstrap_sums, clustered_mean, labels, ratio


def clustered_sample(random, groups=80, size=6):
    """Yes/no values that agree within an image: mean 0.7, intra-cluster correlation about 0.4."""
    rates = random.beta(1.05, 0.45, groups)
    return (random.random((groups, size)) < rates[:, None]).astype(float).ravel(), np.repeat(np.arange(groups), size)


def test_independent_samples_get_the_textbook_t_interval():
    values = np.random.default_rng(0).normal(5, 2, 40)
    estimate = clustered_mean(values, np.arange(40))
    low, high = scipy_stats.t.interval(0.95, 39, values.mean(), scipy_stats.sem(values))
    assert estimate == pytest.approx((values.mean(), low, high))


def test_repeating_every_sample_changes_no_interval():
    """Ten copies of an image's question are no new evidence; a naive interval would shrink threefold."""
    values = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    once = clustered_mean(values, np.arange(50))
    assert clustered_mean(np.repeat(values, 10), np.repeat(np.arange(50), 10)) == pytest.approx(once)


def test_equal_values_get_an_honest_interval_not_a_point():
    value, low, high = clustered_mean(np.ones(60), np.arange(60) // 3, (0, 1))
    assert (value, high) == (1, pytest.approx(1)) and 0.8 < low < 0.9  # Wilson for 20 images
    assert clustered_mean(np.full(60, 6.0), np.arange(60), (0, 6)).low > 5.5


def test_empty_and_single():
    assert np.isnan(clustered_mean(np.array([]), np.array([], dtype=int))).all()
    value, low, high = clustered_mean(np.array([1.0, 0.0]), np.array([0, 0]))
    assert value == 0.5 and np.isnan([low, high]).all()
    (alone,) = bootstrap_sums(np.ones((3, 2)), np.zeros(3, dtype=int), lambda s: ratio(s[:, 0], s[:, 1]))
    assert alone.value == 1 and np.isnan(alone[1:]).all(), "one image tells nothing about others"
    (nothing,) = bootstrap_sums(np.zeros((0, 2)), np.array([], dtype=int), lambda s: ratio(s[:, 0], s[:, 1]))
    assert np.isnan(nothing).all()


def test_bootstrap_equals_resampling_whole_images_by_hand():
    random = np.random.default_rng(0)
    values, clusters = clustered_sample(random)
    weight = random.integers(1, 5, len(values)).astype(float)
    terms = np.stack([values * weight, weight], axis=1)
    (estimate,) = bootstrap_sums(terms, clusters, lambda s: ratio(s[:, 0], s[:, 1]))
    assert estimate.value == pytest.approx((values * weight).sum() / weight.sum())
    by_hand = []
    for _ in range(2000):
        drawn = random.integers(0, 80, 80)
        rows = np.concatenate([np.flatnonzero(clusters == g) for g in drawn])
        by_hand.append((values * weight)[rows].sum() / weight[rows].sum())
    assert estimate[1:] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.01)


def test_bootstrap_is_seeded():
    values, clusters = clustered_sample(np.random.default_rng(0))
    terms = np.stack([values, np.ones_like(values)], axis=1)
    first, again = (bootstrap_sums(terms, clusters, lambda s: ratio(s[:, 0], s[:, 1])) for _ in range(2))
    assert first == again


def test_intervals_cover_what_they_claim_under_clustering_and_naive_ones_do_not():
    """1,500 data sets of 80 images × 6 questions: 95 % intervals cover 93-97 %; ignoring images covers far less."""
    random = np.random.default_rng(7)
    truth = 1.05 / 1.5
    covered = {"sandwich": 0, "bootstrap": 0, "naive": 0}
    for _ in range(1500):
        values, clusters = clustered_sample(random)
        terms = np.stack([values, np.ones_like(values)], axis=1)
        (boot,) = bootstrap_sums(terms, clusters, lambda s: ratio(s[:, 0], s[:, 1]))
        intervals = {
            "sandwich": clustered_mean(values, clusters),
            "bootstrap": boot,
            "naive": clustered_mean(values, np.arange(len(values))),
        }
        for name, (_, low, high) in intervals.items():
            covered[name] += low <= truth <= high
    shares = {name: count / 1500 for name, count in covered.items()}
    assert 0.93 <= shares["sandwich"] <= 0.97, shares
    assert 0.93 <= shares["bootstrap"] <= 0.97, shares
    assert shares["naive"] < 0.85, shares


def test_labels_are_dense_in_order_of_appearance():
    assert labels(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
