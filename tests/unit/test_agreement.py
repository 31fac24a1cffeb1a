"""How far two judges agree, against scipy and against sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bench.agreement import agreement
from bench.errors import JudgeError
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
    chance = np.random.default_rng(3)
    first = chance.integers(0, 7, 90)
    second = np.clip(first + chance.integers(-2, 3, 90), 0, 6)
    found = agreement(scores(first), scores(second))
    pairs = list(zip(first, second, strict=True))
    assert found.spearman.value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert found.weighted_kappa.value == pytest.approx(by_hand(pairs, 7, lambda a, b: (int(a) - int(b)) ** 2))
    said = [(a < 3, b < 3) for a, b in pairs]
    assert found.kappa.value == pytest.approx(by_hand(said, 2, lambda a, b: a != b))
    assert found.rates == pytest.approx((np.mean(first < 3), np.mean(second < 3)))
    for name in ("spearman", "kappa", "weighted_kappa"):
        value, low, high = getattr(found, name)
        assert low < value < high
    assert len(found.worst) == 10 and {abs(a - b) for _, a, b in found.worst} == {2}


def test_the_same_judge_twice_agrees_and_unrated_answers_are_left_out():
    ratings = [0, 3, 6, 2, 5, 4]
    found = agreement(scores(ratings), scores(ratings, unrated=(1,)) | {"x": Score("x", "all", "x", unscored="no")})
    assert (found.samples, found.left_out, found.worst) == (5, 2, [])
    assert (found.spearman.value, found.kappa.value, found.weighted_kappa.value) == pytest.approx((1, 1, 1))


def test_nothing_in_common_is_an_error():
    with pytest.raises(JudgeError, match="no rated answer in common"):
        agreement(scores([1, 2]), scores([1, 2], unrated=(0, 1)))
