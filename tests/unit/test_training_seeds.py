"""Differences over several trainings hold the images' chance and the trainings'."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.metrics.paired import mean_of_value, paired, paired_over_seeds
from bench.types import Figure, Score

RATE = Figure("correct", "rate", "higher", mean_of_value("correct"))
AMOUNT = Figure("amount", "amount", "higher", mean_of_value("amount"), "amount", bounds=None)


def scores_of(name: str, values: np.ndarray) -> dict[str, Score]:
    """A sample for each image."""
    scores = {}
    for index, value in enumerate(values):
        scores[str(index)] = Score(str(index), "all", str(index), {name: float(value)})
    return scores


def test_of_one_seed_it_is_the_paired_difference():
    rng = np.random.default_rng(0)
    first, second = (scores_of("correct", rng.random(60) < share) for share in (0.5, 0.7))
    one = paired_over_seeds(RATE, [(first, second)]).paired
    plain = paired(RATE, first, second)
    assert one.difference.value == pytest.approx(plain.difference.value)
    assert one.difference.p == pytest.approx(plain.difference.p)
    assert one.difference.error == pytest.approx(plain.difference.error, rel=0.05)


def test_both_sources_of_chance_are_in_the_error():
    """Written out: variance over images of the seeds' mean, and that of the seeds, added."""
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, 50)
    trained = [base + shift + rng.normal(0, 0.3, 50) for shift in (0.2, 0.5, 0.9)]
    pairs = [(scores_of("amount", base), scores_of("amount", values)) for values in trained]
    item, seeds_values = paired_over_seeds(AMOUNT, pairs)
    assert seeds_values == pytest.approx([np.mean(values) for values in trained])
    of_images = np.mean([values - base for values in trained], axis=0)
    of_seeds = [np.mean(values - base) for values in trained]
    images, seeds = of_images.var(ddof=1) / 50, np.var(of_seeds, ddof=1) / 3
    assert item.difference.value == pytest.approx(of_images.mean())
    assert item.difference.error == pytest.approx(np.sqrt(images + seeds))
    degrees = (images + seeds) ** 2 / (images**2 / 49 + seeds**2 / 2)
    half = stats.t.ppf(0.975, degrees) * item.difference.error
    assert item.difference.high - item.difference.value == pytest.approx(half)
    ratio = item.difference.value / item.difference.error
    assert item.difference.p == pytest.approx(2 * stats.t.sf(abs(ratio), degrees))


@pytest.mark.parametrize(("spread", "most"), [(0.0, 0.995), (0.05, 0.985), (0.2, 0.975)])
def test_intervals_cover_what_all_images_and_trainings_would_give(spread, most):
    """Images of different rates, three trainings that differ, a base that was not trained.

    Without any difference between trainings the interval is a little too wide, as it says.
    """
    rng = np.random.default_rng(int(100 * spread))
    gain, images, covered, repeats = 0.15, 150, 0, 400
    for _ in range(repeats):
        rates = rng.beta(2, 3, images) * 0.6
        base = scores_of("correct", rng.random(images) < rates)
        pairs = []
        for _ in range(3):
            shift = gain + rng.normal(0, spread)
            own = np.clip(rates + shift, 0, 1)
            pairs.append((base, scores_of("correct", rng.random(images) < own)))
        difference = paired_over_seeds(RATE, pairs).paired.difference
        covered += difference.low <= gain <= difference.high
    assert 0.925 <= covered / repeats <= most


def test_an_interval_over_images_alone_would_be_too_narrow():
    rng = np.random.default_rng(5)
    alone = 0
    for _ in range(200):
        rates = rng.beta(2, 3, 150) * 0.6
        base = scores_of("correct", rng.random(150) < rates)
        own = np.clip(rates + 0.15 + rng.normal(0, 0.2), 0, 1)
        difference = paired(RATE, base, scores_of("correct", rng.random(150) < own)).difference
        alone += difference.low <= 0.15 <= difference.high
    assert alone / 200 < 0.6


def test_samples_that_one_training_lacks_are_left_out_for_all():
    first = scores_of("correct", np.ones(4))
    lacking = {name: score for name, score in first.items() if name != "2"}
    assert paired_over_seeds(RATE, [(first, first), (first, lacking)]).paired.samples == 3
    assert paired_over_seeds(RATE, [(first, {})]) is None
