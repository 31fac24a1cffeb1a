"""How far two judges agree on the same answers: a hallucination rate is only as good as its judge.

All figures are functions of one table, ratings of the first judge by ratings of the second, and their intervals are a
cluster bootstrap's over images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench import stats
from bench.errors import JudgeError
from bench.stats import Estimate, Floats
from bench.types import Score

RATINGS = 7
HALLUCINATES = 3  # ratings below are of hallucinations
SHOWN = 10


@dataclass(frozen=True)
class Agreement:
    """Two judges on `samples` answers that both rated; `left_out` lack a rating by one of them.

    `spearman` is the rank correlation of the ratings, `kappa` Cohen's on hallucination or not, `weighted_kappa` with
    quadratic weights on the ratings. `rates` are the two hallucination rates; `worst` (sample, rating, rating) are the
    answers on which they differ most.
    """

    samples: int
    left_out: int
    spearman: Estimate
    kappa: Estimate
    weighted_kappa: Estimate
    rates: tuple[float, float]
    worst: Sequence[tuple[str, int, int]]


def agreement(first: Mapping[str, Score], second: Mapping[str, Score]) -> Agreement:
    """Compares scores by sample id. Raises JudgeError where the two judges have no rated answer in common."""
    both = [name for name, score in first.items() if _rated(score) and name in second and _rated(second[name])]
    if not both:
        raise JudgeError(
            "The judges have no rated answer in common.",
            f"They gave {sum(map(_rated, first.values()))} and {sum(map(_rated, second.values()))} ratings.",
            "Look at their texts in verdicts.jsonl.",
        )
    pairs = [(int(first[name].values["rating"]), int(second[name].values["rating"])) for name in both]
    terms = np.zeros((len(both), RATINGS * RATINGS))
    terms[np.arange(len(both)), [RATINGS * a + b for a, b in pairs]] = 1
    clusters = stats.labels([first[name].cluster for name in both])
    spearman, kappa, weighted = stats.bootstrap_sums(terms, clusters, _figures)
    rates = np.mean([(a < HALLUCINATES, b < HALLUCINATES) for a, b in pairs], axis=0)
    apart = sorted(zip(both, pairs, strict=True), key=lambda item: -abs(item[1][0] - item[1][1]))[:SHOWN]
    worst = [(name, a, b) for name, (a, b) in apart if a != b]
    left_out = len(first.keys() | second.keys()) - len(both)
    return Agreement(len(both), left_out, spearman, kappa, weighted, (float(rates[0]), float(rates[1])), worst)


def _rated(score: Score) -> bool:
    return score.unscored is None and not score.values["unrated"]


def _figures(sums: Floats) -> Floats:
    """(B, 49) tables → (B, 3): Spearman's rho, Cohen's kappa, quadratically weighted kappa."""
    tables = sums.reshape(-1, RATINGS, RATINGS)
    groups = np.eye(2)[(np.arange(RATINGS) < HALLUCINATES).astype(int)]  # (7, 2)
    told = groups.T @ tables @ groups
    scale = np.arange(RATINGS)
    squares = np.square(scale[:, None] - scale[None]).astype(np.float64)
    return np.stack([_spearman(tables), _kappa(told, 1 - np.eye(2)), _kappa(tables, squares)], -1)


def _spearman(tables: Floats) -> Floats:
    """Pearson's correlation of mid-ranks (Spearman 1904), ties and all, of tables (B, m, m)."""
    ranks = []
    for axis in (2, 1):
        totals = tables.sum(axis)
        middle = totals.cumsum(-1) - totals / 2
        count = totals.sum(-1, keepdims=True)
        ranks.append((middle - (totals * middle).sum(-1, keepdims=True) / count, totals))
    (x, n), (y, m) = ranks
    covariance = np.einsum("bij,bi,bj->b", tables, x, y)
    return stats.ratio(covariance, np.sqrt((n * x**2).sum(-1) * (m * y**2).sum(-1)))


def _kappa(tables: Floats, weights: Floats) -> Floats:
    """1 less observed over expected disagreement (Cohen 1968), of tables (B, m, m) under disagreement `weights`."""
    count = tables.sum((1, 2))[:, None, None]
    expected = tables.sum(2)[:, :, None] * tables.sum(1)[:, None, :] / count
    return 1 - stats.ratio((weights * tables).sum((1, 2)), (weights * expected).sum((1, 2)))
