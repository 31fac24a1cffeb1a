"""The POPE rule, the confusion metrics and the ranking metrics against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.yes_no import (
    Ranking,
    confusion,
    confusion_statistics,
    mean_confusion,
    pope_answer,
    ranking,
    says_yes,
    yes_probability,
)


@pytest.mark.parametrize(
    ("text", "answer", "has_yes"),
    [
        ("Yes", "yes", True),
        ("No", "no", False),
        ("no, there is none", "no", False),
        ("There is not a dog.", "no", False),
        ("NO", "yes", False),  # only "No", "no" and "not" count
        ("No.", "no", False),  # cut at the full stop
        ("Nope", "yes", False),
        ("No\n", "yes", False),  # split on the single space alone
        ("It is a cat. No dog.", "yes", False),  # what follows the first full stop is not read
        ("Yes, No", "no", True),  # commas go, words stay
        ("", "yes", False),
        ("I cannot tell", "yes", False),
        ("YES!", "yes", True),
        ("Yesterday", "yes", False),
    ],
)
def test_the_official_rule_bug_for_bug(text, answer, has_yes):
    assert pope_answer(text) == answer
    assert says_yes(text) is has_yes


def test_probability_is_of_yes_against_no():
    assert yes_probability(0.6, 0.2) == pytest.approx(0.75)
    assert yes_probability(None, 0.2) is None
    assert yes_probability(0.0, 0.0) is None


def test_confusion_by_hand_and_over_nothing():
    accuracy, precision, recall, f1, ratio = confusion_statistics(np.array([[3.0, 1, 4, 2]]))[0]
    assert (accuracy, precision, recall, ratio) == pytest.approx((0.7, 0.75, 0.6, 0.4))
    assert f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert np.isnan(confusion_statistics(np.zeros((1, 4)))).all()


def test_no_scored_sample_gives_nan_and_not_zero():
    empty, none = np.array([]), np.array([], dtype=int)
    assert all(np.isnan(estimate.value) for estimate in confusion(empty, empty, none).values())
    assert all(np.isnan(estimate.value) for estimate in ranking(empty, empty, none).values())


def test_the_mean_over_subsets_is_the_mean_of_their_values():
    random = np.random.default_rng(1)
    answers, truth = random.integers(0, 2, (2, 90)).astype(float)
    clusters, subsets = np.arange(90) % 15, ["a"] * 30 + ["b"] * 60
    mean = mean_confusion(answers, truth, clusters, subsets, ["a", "b"])
    parts = [confusion(answers[s], truth[s], clusters[s]) for s in (slice(30), slice(30, 90))]
    for name in ("accuracy", "f1", "precision"):
        assert mean[name].value == pytest.approx(np.mean([part[name].value for part in parts]))
        assert mean[name].low < mean[name].value < mean[name].high


def brute_force(p, y, w):
    """AUC by all pairs, average precision by all thresholds, both weighted."""
    positive, negative = y == 1, y == 0
    wins = (p[positive][:, None] > p[negative]) + 0.5 * (p[positive][:, None] == p[negative])
    pairs = w[positive][:, None] * w[negative]
    area, previous = 0.0, 0.0
    for threshold in sorted(set(p[w > 0]), reverse=True):
        taken = p >= threshold
        recall = (w * y)[taken].sum() / (w * y).sum()
        area += (recall - previous) * (w * y)[taken].sum() / w[taken].sum()
        previous = recall
    return (wins * pairs).sum() / pairs.sum(), area


@pytest.mark.parametrize("seed", range(5))
def test_ranking_metrics_equal_brute_force_with_ties_and_weights(seed):
    random = np.random.default_rng(seed)
    p = np.round(random.random(60), 1)
    y = random.integers(0, 2, 60).astype(float)
    clusters = np.arange(60) % 12
    weights = random.integers(0, 3, 12).astype(float)
    auc, precision, _ = Ranking(p, y, clusters).values(weights)
    assert (auc, precision) == pytest.approx(brute_force(p, y, weights[clusters]))


def test_calibration_error_of_known_miscalibration():
    """Half of the answers given with 0.85 are right: |0.85 - 0.5|; those with 0.05 never: 0.05."""
    p, y = np.array([0.85, 0.85, 0.05, 0.05]), np.array([1.0, 0, 0, 0])
    assert Ranking(p, y, np.arange(4)).values(np.ones(4))[2] == pytest.approx((0.35 + 0.05) / 2)


def test_a_shifted_threshold_moves_accuracy_and_not_auc():
    random = np.random.default_rng(3)
    y = np.repeat([1.0, 0.0], 200)
    p = np.clip(random.normal(0.35 + 0.3 * y, 0.2), 0.01, 0.99)
    shifted = p**0.3  # the same order, nearly always above one half
    clusters = np.arange(400)
    assert abs(((p > 0.5) == y).mean() - ((shifted > 0.5) == y).mean()) > 0.1
    one, other = (ranking(values, y, clusters)["auc"].value for values in (p, shifted))
    assert one == pytest.approx(other)


@pytest.mark.parametrize(
    ("mass", "ranks"), [(2e-7, False), (0.005, False), (0.05, True), (1.0, True)]
)
def test_probabilities_that_are_next_to_nothing_rank_nothing(mass, ranks):
    """A model that thinks first begins with another word than yes or no."""
    from bench.benchmarks.pope import COCO, figures
    from bench.metrics.paired import paired
    from bench.types import Answer, Sample

    rng = np.random.default_rng(0)
    scores = {}
    for number in range(40):
        label = "yes" if number % 2 else "no"
        sample = Sample(f"random/{number}", f"{number}.png", "?", label, f"{number}.png", "random")
        share = rng.beta(4, 2) if number % 2 else rng.beta(2, 4)
        answer = Answer("Yes", p_yes=mass * share, p_no=mass * (1 - share))
        scores[sample.id] = COCO.score(sample, answer, None)
    metrics = {(one.name, one.subset): one for one in COCO.metrics(list(scores.values()))}
    assert metrics["yes_no_mass", "all"].value == pytest.approx(mass)
    for name in ("auc", "average_precision", "calibration_error"):
        metric = metrics[name, "all"]
        compared = paired(figures("POPE")[name], scores, scores)
        assert np.isfinite(metric.value) == np.isfinite(compared.first.value) == ranks
        assert any("which ranks nothing" in text for text in metric.caveats) != ranks
    assert metrics["accuracy", "all"].value == 0.5
