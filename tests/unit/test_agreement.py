"""How far two judges agree, against scipy and against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bench.errors import JudgeError
from bench.metrics.agreement import agreement
from bench.types import Score


def scores(ratings, unrated=()):
    return {
        f"s{i}": Score(f"s{i}", "all", f"c{i // 2}", {"rating": r, "unrated": i in unrated})
        for i, r in enumerate(ratings)
    }


def by_hand(pairs, levels, distance):
    """Cohen's kappa from the pairs themselves."""
    observed = np.mean([distance(a, b) for a, b in pairs])
    expected = np.mean([[distance(a, b) for _, b in pairs] for a, _ in pairs])
    return 1 - observed / expected


def test_figures_are_those_of_the_textbooks():
    rng = np.random.default_rng(3)
    first = rng.integers(0, 7, 90)
    second = np.clip(first + rng.integers(-2, 3, 90), 0, 6)
    measured = agreement(scores(first), scores(second))
    pairs = list(zip(first, second, strict=True))
    assert measured.spearman.value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert measured.weighted_kappa.value == pytest.approx(
        by_hand(pairs, 7, lambda a, b: (int(a) - int(b)) ** 2)
    )
    judgements = [(a < 3, b < 3) for a, b in pairs]
    assert measured.kappa.value == pytest.approx(by_hand(judgements, 2, lambda a, b: a != b))
    assert measured.rates == pytest.approx((np.mean(first < 3), np.mean(second < 3)))
    for name in ("spearman", "kappa", "weighted_kappa"):
        value, low, high = getattr(measured, name)
        assert low < value < high
    assert len(measured.worst) == 10 and {abs(a - b) for _, a, b in measured.worst} == {2}


def test_the_same_judge_twice_agrees_and_unrated_answers_are_left_out():
    ratings = [0, 3, 6, 2, 5, 4]
    measured = agreement(
        scores(ratings),
        scores(ratings, unrated=(1,)) | {"x": Score("x", "all", "x", unscored="no")},
    )
    assert (measured.samples, measured.left_out, measured.worst) == (5, 2, [])
    assert (
        measured.spearman.value,
        measured.kappa.value,
        measured.weighted_kappa.value,
    ) == pytest.approx((1, 1, 1))


def test_nothing_in_common_is_an_error():
    with pytest.raises(JudgeError, match="no rated answer in common"):
        agreement(scores([1, 2]), scores([1, 2], unrated=(0, 1)))
