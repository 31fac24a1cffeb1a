"""Yes/no answers: the POPE rule, the confusion metrics, and what P(yes) says beyond the threshold.

Rule and metrics: POPE's evaluate.py (AoiDragon/POPE, arXiv 2305.10355), as LLaVA's eval_pope.py repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from bench.stats import (
    NOTHING,
    REPLICATES,
    SEED,
    Estimate,
    Floats,
    Ints,
    bootstrap_sums,
    cluster_weights,
    clustered_mean,
    interval,
    ratio,
    relabelled,
)

CONFUSION = ("accuracy", "precision", "recall", "f1", "yes_ratio")
CALIBRATION_BINS = 10


def pope_answer(text: str) -> str:
    """ "yes" or "no" by the official rule: whatever does not say no, before the first full stop, is yes."""
    first = text.split(".")[0] if "." in text else text
    words = first.replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def says_yes(text: str) -> bool:
    """Whether the word yes stands anywhere in the answer; the official rule does not ask."""
    return re.search(r"\byes\b", text, re.IGNORECASE) is not None


def yes_probability(p_yes: float | None, p_no: float | None) -> float | None:
    """P(yes) / (P(yes) + P(no)) of the first answer token, None where it was not recorded or both are 0."""
    if p_yes is None or p_no is None or p_yes + p_no <= 0:
        return None
    return p_yes / (p_yes + p_no)


def confusion_terms(answers: Floats, labels: Floats) -> Floats:
    """(tp, fp, tn, fn) of every sample, shape (n, 4); `answers` and `labels` are 1 for the positive class."""
    return np.stack(
        [answers * labels, answers * (1 - labels), (1 - answers) * (1 - labels), (1 - answers) * labels], axis=1
    )


def confusion_statistics(sums: Floats) -> Floats:
    """Accuracy, precision, recall, F1 and yes-ratio (of predictions) from sums of (tp, fp, tn, fn): (B, 4) → (B, 5).

    F1 is 2PR/(P+R); a ratio over nothing is NaN.
    """
    tp, fp, tn, fn = sums.T
    total = tp + fp + tn + fn
    return np.stack(
        [
            ratio(tp + tn, total),
            ratio(tp, tp + fp),
            ratio(tp, tp + fn),
            ratio(2 * tp, 2 * tp + fp + fn),
            ratio(tp + fp, total),
        ],
        axis=1,
    )


def confusion(answers: Floats, labels: Floats, clusters: Ints) -> dict[str, Estimate]:
    """The five confusion metrics with intervals: sandwich for the means, cluster bootstrap for precision and F1.

    Recall is a mean too: the samples with a positive label are the same whatever the model says.
    """
    estimates = bootstrap_sums(confusion_terms(answers, labels), clusters, confusion_statistics)
    named = dict(zip(CONFUSION, estimates, strict=True))
    named["accuracy"] = clustered_mean((answers == labels).astype(float), clusters, (0, 1))
    named["yes_ratio"] = clustered_mean(answers, clusters, (0, 1))
    positive = labels == 1
    named["recall"] = clustered_mean(answers[positive], relabelled(clusters[positive]), (0, 1))
    return named


def mean_confusion(
    answers: Floats, labels: Floats, clusters: Ints, subsets: Sequence[str], names: Sequence[str]
) -> dict[str, Estimate]:
    """The mean over subsets `names` of each metric, as papers quote POPE; images are resampled jointly."""
    one_hot = np.array([[float(subset == name) for name in names] for subset in subsets]).reshape(len(answers), -1)
    terms = confusion_terms(answers, labels)
    blocks = (one_hot[:, :, None] * terms[:, None, :]).reshape(len(answers), len(names) * 4)

    def statistic(sums: Floats) -> Floats:
        each = confusion_statistics(sums.reshape(-1, 4)).reshape(len(sums), len(names), len(CONFUSION))
        return np.asarray(each.mean(axis=1))

    return dict(zip(CONFUSION, bootstrap_sums(blocks, clusters, statistic), strict=True))


class Ranking:
    """ROC-AUC, average precision and expected calibration error of P(yes) under sample weights.

    AUC is the weighted probability that a positive outranks a negative, ties counting half; average precision
    is Σ (R_k - R_{k-1}) P_k over distinct thresholds (both as in scikit-learn); calibration error is
    Σ_b w_b |mean P(yes) - share of yes| over 10 bins of equal width (Guo et al. 2017, equation 3).
    """

    NAMES = ("auc", "average_precision", "calibration_error")

    def __init__(self, probabilities: Floats, labels: Floats, clusters: Ints) -> None:
        order = np.argsort(-probabilities, kind="stable")
        self.p, self.y = probabilities[order], labels[order]
        self.groups = int(clusters.max()) + 1
        ends = np.flatnonzero(np.append(np.diff(self.p) != 0, True))
        self.starts = np.append(0, ends[:-1] + 1)
        self.clusters = clusters[order]
        self.bins = np.minimum((self.p * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)

    def values(self, weights: Floats) -> tuple[float, float, float]:
        """The three metrics with each cluster weighted by `weights` (G,)."""
        w = weights[self.clusters]
        positive = w * self.y
        gains = np.add.reduceat(positive, self.starts)
        losses = np.add.reduceat(w - positive, self.starts)
        found, fallen = gains.cumsum(), losses.cumsum()
        total, others = found[-1], fallen[-1]
        auc = precision = np.nan
        if total > 0 and others > 0:
            auc = float((losses * (found - gains / 2)).sum() / (total * others))
            seen = found + fallen
            precision = float((gains * np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)).sum() / total)
        gaps = np.bincount(self.bins, weights=w * (self.p - self.y), minlength=CALIBRATION_BINS)
        return auc, precision, float(np.abs(gaps).sum() / w.sum()) if w.sum() else np.nan

    def estimates(self, replicates: int = REPLICATES // 4, seed: int = SEED) -> dict[str, Estimate]:
        """The three metrics with cluster-bootstrap intervals."""
        full = self.values(np.ones(self.groups))
        drawn = np.array([self.values(row) for row in cluster_weights(self.groups, replicates, seed)]).reshape(-1, 3)
        return {name: interval(full[i], drawn[:, i]) for i, name in enumerate(self.NAMES)}


def ranking(probabilities: Floats, labels: Floats, clusters: Ints) -> Mapping[str, Estimate]:
    """`Ranking`'s metrics with intervals, NaN where there are no probabilities."""
    if len(probabilities) == 0:
        return dict.fromkeys(Ranking.NAMES, NOTHING)
    return Ranking(probabilities, labels, clusters).estimates()
