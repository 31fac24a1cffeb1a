"""How often intervals cover the truth, and how often tests see a difference that is not there.

    python -m tests.simulations          # the tables of docs/statistics.md, some minutes

Samples of one image are alike: each image has a rate of its own, drawn from a beta distribution
whose intra-image correlation is ICC. Every statistic is computed by the functions that the bench
uses, on arrays as it makes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from bench.metrics.paired import paired
from bench.metrics.yes_no import confusion, ranking
from bench.stats import Estimate, clustered_mean, estimates_of_sums, ratio, sign_flip
from bench.types import Figure, Score

ICC = 0.1
IMAGES = (12, 30, 96, 500)
SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)
QUESTIONS = 6  # about an image, half of them with the answer yes
Rng = np.random.Generator


def rates(rng: Rng, share: float, images: int) -> np.ndarray:
    """Each image's own rate, mean `share`."""
    strength = 1 / ICC - 1
    return rng.beta(share * strength, (1 - share) * strength, images)


def questions(rng: Rng, hit: float, false_alarm: float, images: int):
    """Answers, labels and image of yes/no questions."""
    half = QUESTIONS // 2
    clusters = np.repeat(np.arange(images), QUESTIONS)
    labels = np.tile(np.repeat([1.0, 0.0], half), images)
    said_yes = np.where(
        labels == 1,
        np.repeat(rates(rng, hit, images), QUESTIONS),
        np.repeat(rates(rng, false_alarm, images), QUESTIONS),
    )
    answers = (rng.random(len(labels)) < said_yes).astype(float)
    return answers, labels, clusters


def mean(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    clusters = np.repeat(np.arange(images), QUESTIONS)
    rate = np.repeat(rates(rng, share, images), QUESTIONS)
    values = (rng.random(len(rate)) < rate).astype(float)
    return clustered_mean(values, clusters, (0, 1)), share


def rate(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """One answer an image, as in MMHal-Bench and CHAIRs."""
    values = (rng.random(images) < share).astype(float)
    return clustered_mean(values, np.arange(images), (0, 1)), share


def chair_i(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """Hallucinated mentions over mentions."""
    mentions = 1 + rng.poisson(4, images)
    hallucinated = rng.binomial(mentions, rates(rng, share, images))
    terms = np.stack([hallucinated, mentions], axis=1).astype(float)
    (estimate,) = estimates_of_sums(
        terms, np.arange(images), lambda sums: ratio(sums[:, 0], sums[:, 1])
    )
    return estimate, share


def f1(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """Recall `share`, and as many false alarms as misses."""
    answers, labels, clusters = questions(rng, share, 1 - share, images)
    return confusion(answers, labels, clusters)["f1"], share


def precision(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """Recall 0.8, and the false alarms that make the precision `share`."""
    answers, labels, clusters = questions(rng, 0.8, 0.8 * (1 - share) / share, images)
    return confusion(answers, labels, clusters)["precision"], share


def auc(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """P(yes) from a normal score with an image's own shift; `share` is the true AUC."""
    _, labels, clusters = questions(rng, 0.5, 0.5, images)
    shift = np.repeat(rng.normal(0, np.sqrt(ICC), images), QUESTIONS)
    distance = np.sqrt(2) * norm.ppf(share)
    noise = rng.normal(0, np.sqrt(1 - ICC), len(labels))
    scores = norm.cdf(distance * (labels - 0.5) + shift + noise)
    return ranking(scores, labels, clusters)["auc"], share


def rating(rng: Rng, share: float, images: int) -> tuple[Estimate, float]:
    """Ratings 0-6 of one answer an image, mean 6 · share."""
    values = rng.binomial(6, rng.beta(share * 1.5, (1 - share) * 1.5, images)).astype(float)
    return clustered_mean(values, np.arange(images), (0, 6)), 6 * share


STATISTICS: dict[str, tuple[Callable[[Rng, float, int], tuple[Estimate, float]], tuple]] = {
    "mean of six": (mean, SHARES),
    "rate": (rate, SHARES),
    "CHAIRi": (chair_i, (0.01, *SHARES)),
    "F1": (f1, SHARES[2:]),
    "precision": (precision, (*SHARES[2:], 0.997)),
    "AUC": (auc, SHARES[2:]),
    "score": (rating, SHARES),
}


def coverage(name: str, share: float, images: int, sets: int, seed: int = 0) -> float:
    """The share of data sets whose interval covers the truth."""
    statistic, _ = STATISTICS[name]
    rng = np.random.default_rng([seed, images, round(1000 * share)])
    covered = defined = 0
    for _ in range(sets):
        estimate, truth = statistic(rng, share, images)
        if np.isfinite(estimate.low):
            defined += 1
            covered += estimate.low - 1e-12 <= truth <= estimate.high + 1e-12
    return covered / defined


def two_models(rng: Rng, share: float, images: int) -> tuple[dict[str, Score], dict[str, Score]]:
    """Scores of two equally good models whose answers are alike, every question asked twice."""
    image_rates = rates(rng, share, images)
    models = ({}, {})
    for image in range(images):
        for question in range(QUESTIONS // 2):
            shared = rng.random() < image_rates[image]
            for scores in models:
                own = rng.random() < image_rates[image]
                correct = shared if rng.random() < 0.6 else own
                for copy in range(2):  # POPE's 9,000 rows are 5,127 questions
                    name = f"{image}/{question}/{copy}"
                    values = {"correct": bool(correct)}
                    scores[name] = Score(name, "all", str(image), values)
    return models


def false_positives(figure: Figure, share: float, images: int, sets: int) -> tuple[float, float]:
    """How often two equally good models differ at 5 %: by the paired test, by sign flips."""
    rng = np.random.default_rng([images, round(1000 * share)])
    by_difference = by_flips = 0
    for _ in range(sets):
        first, second = two_models(rng, share, images)
        item = paired(figure, first, second)
        by_difference += item.difference.p < 0.05
        nets: dict[str, int] = {}
        for name, score in first.items():
            change = int(second[name].values["correct"]) - int(score.values["correct"])
            nets[score.cluster] = nets.get(score.cluster, 0) + change
        by_flips += sign_flip(list(nets.values())) < 0.05
    return by_difference / sets, by_flips / sets


def accuracy_figure() -> Figure:
    from bench.metrics.paired import mean_of_value

    return Figure("accuracy", "accuracy", "higher", mean_of_value("correct"))


def main(sets: int) -> None:
    print(f"| statistic | true value | {' | '.join(f'{n} images' for n in IMAGES)} |")
    print("|---|---|" + "---|" * len(IMAGES))
    for name, (_, shares) in STATISTICS.items():
        for share in shares:
            cells = [f"{100 * coverage(name, share, n, sets):.1f}" for n in IMAGES]
            print(f"| {name} | {share} | {' | '.join(cells)} |", flush=True)
    print(f"\n| accuracy of both | {' | '.join(f'{n} images' for n in IMAGES)} |")
    print("|---|" + "---|" * len(IMAGES))
    figure = accuracy_figure()
    for share in (0.5, 0.8, 0.95):
        cells = []
        for images in IMAGES:
            both = false_positives(figure, share, images, min(sets, 1000))
            cells.append(" / ".join(f"{100 * p:.1f}" for p in both))
        print(f"| {share} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
