"""How far two judges agree on the same answers: a hallucination rate is only as good as its judge.

All figures are functions of one table, ratings of the first judge by ratings of the second, and
their intervals are clustered by image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench import stats
from bench.errors import JudgeError
from bench.metrics.ratings import HALLUCINATION_BELOW, HIGHEST
from bench.stats import Estimate, Floats
from bench.types import Score

RATINGS = HIGHEST + 1
SHOWN = 10


@dataclass(frozen=True)
class Agreement:
    """Two judges on the answers that both rated.

    Args:
        samples: How many answers both rated.
        left_out: How many lack a rating by one of them.
        spearman: Rank correlation of the ratings.
        kappa: Cohen's kappa on hallucination or not.
        weighted_kappa: With quadratic weights on the ratings.
        rates: The two hallucination rates.
        worst: (sample, rating, rating) of the answers on which they differ most.
    """

    samples: int
    left_out: int
    spearman: Estimate
    kappa: Estimate
    weighted_kappa: Estimate
    rates: tuple[float, float]
    worst: Sequence[tuple[str, int, int]]


def agreement(first: Mapping[str, Score], second: Mapping[str, Score]) -> Agreement:
    """Compares scores by sample id.

    Raises JudgeError if the two judges have no rated answer in common.
    """
    # A judge that gave no rating neither agrees nor disagrees.
    first_ratings, second_ratings = _ratings(first), _ratings(second)
    both = []
    for name in first_ratings:
        if name in second_ratings:
            both.append(name)
    if not both:
        raise JudgeError(
            "The judges have no rated answer in common.",
            f"They gave {len(first_ratings)} and {len(second_ratings)} ratings.",
            "Look at their texts in verdicts.jsonl.",
        )
    a = np.array([first_ratings[name] for name in both])
    b = np.array([second_ratings[name] for name in both])
    # One-hot over the cells of the table, so that the table is a sum over samples.
    terms = np.zeros((len(both), RATINGS * RATINGS))
    terms[np.arange(len(both)), RATINGS * a + b] = 1
    clusters = stats.labels([first[name].cluster for name in both])
    spearman, kappa, weighted_kappa = stats.estimates_of_sums(
        terms, clusters, _coefficients, (-1.0, 1.0)
    )
    rates = ((a < HALLUCINATION_BELOW).mean(), (b < HALLUCINATION_BELOW).mean())
    worst = []
    # The answers that a person should look at first.
    for index in np.argsort(-abs(a - b), kind="stable")[:SHOWN]:
        if a[index] != b[index]:
            worst.append((both[index], int(a[index]), int(b[index])))
    return Agreement(
        len(both),
        len(first.keys() | second.keys()) - len(both),
        spearman,
        kappa,
        weighted_kappa,
        (float(rates[0]), float(rates[1])),
        worst,
    )


def as_text(first: str, second: str, agreed: Agreement) -> str:
    """How far two judges agree, and where they differ most, for a terminal."""
    lines = [
        f"{first} and {second} on {agreed.samples} answers ({agreed.left_out} not rated by both)"
    ]
    coefficients = {
        "spearman": agreed.spearman,
        "kappa": agreed.kappa,
        "weighted kappa": agreed.weighted_kappa,
    }
    for name, (value, low, high) in coefficients.items():
        lines.append(f"  {name:16}{value:6.2f} [{low:.2f}, {high:.2f}]")
    one, other = (100 * rate for rate in agreed.rates)
    lines.append(f"  hallucination   {one:6.2f} % and {other:.2f} %")
    for sample, one_rating, other_rating in agreed.worst:
        lines.append(f"  {sample}: {one_rating} and {other_rating}")
    return "\n".join(lines)


def _ratings(scores: Mapping[str, Score]) -> dict[str, int]:
    """The ratings by sample id; a review without exactly one rating is none."""
    ratings = {}
    for name, score in scores.items():
        if score.unscored is None and not score.values.get("unrated"):
            ratings[name] = int(score.values["rating"])
    return ratings


def _coefficients(sums: Floats) -> Floats:
    """(B, 49) tables → (B, 3): Spearman's rho, Cohen's kappa, quadratically weighted kappa."""
    tables = sums.reshape(-1, RATINGS, RATINGS)
    scale = np.arange(RATINGS)
    side = (scale < HALLUCINATION_BELOW).astype(int)
    onto_side = np.eye(2)[side]  # (7, 2)
    two_by_two = onto_side.T @ tables @ onto_side  # (B, 2, 2)
    squared_distance = np.square(scale[:, None] - scale[None]).astype(np.float64)
    # Chance agreement depends on how often each judge uses each rating, which the table holds.
    coefficients = [
        _spearman(tables),
        _kappa(two_by_two, 1 - np.eye(2)),
        _kappa(tables, squared_distance),
    ]
    return np.stack(coefficients, -1)


def _spearman(tables: Floats) -> Floats:
    """Pearson's correlation of mid-ranks (Spearman 1904), ties and all, of tables (B, m, m)."""
    row_ranks, row_totals = _centred_mid_ranks(tables.sum(2))
    column_ranks, column_totals = _centred_mid_ranks(tables.sum(1))
    covariance = np.einsum("bij,bi,bj->b", tables, row_ranks, column_ranks)
    row_variance = (row_totals * row_ranks**2).sum(-1)
    column_variance = (column_totals * column_ranks**2).sum(-1)
    return stats.ratio(covariance, np.sqrt(row_variance * column_variance))


def _centred_mid_ranks(totals: Floats) -> tuple[Floats, Floats]:
    """Mid-ranks less their mean, of how often each rating occurs (B, m); and `totals`."""
    mid_ranks = totals.cumsum(-1) - totals / 2
    count = totals.sum(-1, keepdims=True)
    return mid_ranks - (totals * mid_ranks).sum(-1, keepdims=True) / count, totals


def _kappa(tables: Floats, weights: Floats) -> Floats:
    """1 less observed over expected disagreement (Cohen 1968), of tables (B, m, m).

    `weights` (m, m) say how much each cell disagrees.
    """
    count = tables.sum((1, 2))[:, None, None]
    expected = tables.sum(2)[:, :, None] * tables.sum(1)[:, None, :] / count
    observed_disagreement = (weights * tables).sum((1, 2))
    expected_disagreement = (weights * expected).sum((1, 2))
    return 1 - stats.ratio(observed_disagreement, expected_disagreement)
