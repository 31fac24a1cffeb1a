"""Yes/no answers: the POPE rule, the confusion metrics, and what P(yes) says beyond the threshold.

Rule and metrics: POPE's evaluate.py (AoiDragon/POPE, arXiv 2305.10355), as LLaVA's eval_pope.py
repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.stats import (
    NOTHING,
    SHARE,
    Estimate,
    Floats,
    Ints,
    estimates_of_sums,
    interval,
    jackknife_error,
    ratio,
)

CONFUSION = ("accuracy", "precision", "recall", "f1", "yes_ratio")
CALIBRATION_BINS = 10
# The least mean of P(yes) + P(no) that ranks anything: a model that thinks first, or answers in
# sentences, begins with another word, and what is left for these two is noise.
MIN_MASS = 0.01


def pope_answer(text: str) -> str:
    """ "yes" or "no" by the official rule.

    Whatever does not say no, before the first full stop, is yes.

    >>> pope_answer("No, there is no dog."), pope_answer("Certainly. No.")
    ('no', 'yes')
    """
    first_sentence = text.split(".")[0] if "." in text else text
    # Only the single space splits, and case counts, bug for bug.
    words = first_sentence.replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no") for word in words) else "yes"


def says_yes(text: str) -> bool:
    """Whether the word yes stands anywhere in the answer; the official rule does not ask."""
    return re.search(r"\byes\b", text, re.IGNORECASE) is not None


def first_word(text: str) -> str | None:
    """ "yes" or "no" if an answer begins with it, None if it begins otherwise.

    >>> first_word("**Yes**, there is one, but no lamp"), first_word("The dog is not here")
    ('yes', None)
    """
    match = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return match.group(1).lower() if match else None


def yes_probability(p_yes: float | None, p_no: float | None) -> float | None:
    """P(yes) / (P(yes) + P(no)) of the first answer token.

    None if the probabilities were not recorded or both are 0. What it is worth depends on their
    sum: see MIN_MASS.
    """
    if p_yes is None or p_no is None or p_yes + p_no <= 0:
        return None
    return p_yes / (p_yes + p_no)


def yes_no_mass(values: Sequence[Mapping[str, Any]]) -> float:
    """The mean of P(yes) + P(no), of scores' values that have it; 1 if none has."""
    masses = []
    for value in values:
        if value.get("yes_no_mass") is not None:
            masses.append(value["yes_no_mass"])
    return float(np.mean(masses)) if masses else 1.0


def confusion_terms(answers: Floats, labels: Floats) -> Floats:
    """(tp, fp, tn, fn) of every sample, shape (n, 4).

    Args:
        answers: 1 for the positive class, else 0, shape (n,).
        labels: The same of the labels, shape (n,).
    """
    true_positive = answers * labels
    false_positive = answers * (1 - labels)
    true_negative = (1 - answers) * (1 - labels)
    false_negative = (1 - answers) * labels
    return np.stack([true_positive, false_positive, true_negative, false_negative], axis=1)


def confusion_statistics(sums: Floats) -> Floats:
    """Accuracy, precision, recall, F1 and yes-ratio, in the order of CONFUSION.

    The yes-ratio is of predictions. F1 is 2PR/(P+R). A ratio over nothing is NaN.

    Args:
        sums: Sums of (tp, fp, tn, fn), shape (B, 4).

    Returns:
        Values of shape (B, 5).
    """
    tp, fp, tn, fn = sums.T
    total = tp + fp + tn + fn
    columns = [
        ratio(tp + tn, total),
        ratio(tp, tp + fp),
        ratio(tp, tp + fn),
        ratio(2 * tp, 2 * tp + fp + fn),
        ratio(tp + fp, total),
    ]
    return np.stack(columns, axis=1)


def confusion(answers: Floats, labels: Floats, clusters: Ints) -> dict[str, Estimate]:
    """The five confusion metrics with intervals clustered by image.

    Args:
        answers: 1 for yes, else 0, shape (n,).
        labels: The same of the labels, shape (n,).
        clusters: Cluster labels, shape (n,).
    """
    terms = confusion_terms(answers, labels)
    estimates = estimates_of_sums(terms, clusters, confusion_statistics)
    return dict(zip(CONFUSION, estimates, strict=True))


def subset_blocks(terms: Floats, subsets: Sequence[str], names: Sequence[str]) -> Floats:
    """Each sample's terms in the block of columns of its subset, zeros elsewhere.

    Sums over the result are the sums of every subset side by side.

    Args:
        terms: Shape (n, k).
        subsets: The subset of each sample.
        names: The subsets, in the order of the blocks.

    Returns:
        Shape (n, len(names) * k).
    """
    width = terms.shape[1]
    blocks = np.zeros((len(terms), len(names), width))
    index_of = {name: index for index, name in enumerate(names)}
    for row, subset in enumerate(subsets):
        blocks[row, index_of[subset]] = terms[row]
    return blocks.reshape(len(terms), len(names) * width)


def mean_confusion_statistics(sums: Floats) -> Floats:
    """The mean over subsets of each confusion metric: (B, subsets * 4) → (B, 5)."""
    subsets = sums.shape[1] // 4
    each = confusion_statistics(sums.reshape(-1, 4))
    return np.asarray(each.reshape(len(sums), subsets, len(CONFUSION)).mean(axis=1))


def mean_confusion(
    answers: Floats,
    labels: Floats,
    clusters: Ints,
    subsets: Sequence[str],
    names: Sequence[str],
) -> dict[str, Estimate]:
    """The mean over subsets `names` of each metric, as papers quote POPE.

    An image is left out of all subsets together, because they ask about the same images.
    """
    terms = subset_blocks(confusion_terms(answers, labels), subsets, names)
    estimates = estimates_of_sums(terms, clusters, mean_confusion_statistics)
    return dict(zip(CONFUSION, estimates, strict=True))


class Ranking:
    """How well P(yes) ranks and how well it is calibrated, under weights of clusters.

    `auc` is the weighted probability that a positive outranks a negative, ties counting half.
    `average_precision` is Σ (R_k - R_{k-1}) P_k over distinct thresholds (both as in scikit-learn).
    `calibration_error` is Σ_b w_b |mean P(yes) - share of yes| over 10 bins of equal width
    (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Args:
        probabilities: P(yes), shape (n,).
        labels: 1 for yes, else 0, shape (n,).
        clusters: Cluster labels, shape (n,).
    """

    NAMES = ("auc", "average_precision", "calibration_error")

    def __init__(self, probabilities: Floats, labels: Floats, clusters: Ints) -> None:
        # Sorted once; a replicate only changes the weights.
        order = np.argsort(-probabilities, kind="stable")
        self.p, self.labels = probabilities[order], labels[order]
        self.clusters = clusters[order]
        self.groups = int(clusters.max()) + 1
        # Samples of equal P(yes) are one threshold; `starts` are where thresholds begin.
        is_last_of_tie = np.append(np.diff(self.p) != 0, True)
        last_of_tie = np.flatnonzero(is_last_of_tie)
        self.starts = np.append(0, last_of_tie[:-1] + 1)
        bins = (self.p * CALIBRATION_BINS).astype(int)
        self.bins = np.minimum(bins, CALIBRATION_BINS - 1)  # P(yes) = 1 belongs to the last one

    def values(self, cluster_weight: Floats) -> tuple[float, float, float]:
        """The three metrics, each cluster weighted by `cluster_weight` (groups,)."""
        weight = cluster_weight[self.clusters]  # (n,)
        positive = weight * self.labels
        gains = np.add.reduceat(positive, self.starts)  # positives at each threshold
        losses = np.add.reduceat(weight - positive, self.starts)  # negatives at each threshold
        true_positives, false_positives = gains.cumsum(), losses.cumsum()
        positives, negatives = true_positives[-1], false_positives[-1]
        auc = average_precision = np.nan
        # Without an image, no sample of one label may be left.
        if positives > 0 and negatives > 0:
            outranked = (losses * (true_positives - gains / 2)).sum()
            auc = float(outranked / (positives * negatives))
            predicted = true_positives + false_positives
            precision = np.zeros_like(true_positives)
            # A threshold may have no weight left.
            np.divide(true_positives, predicted, out=precision, where=predicted > 0)
            average_precision = float((gains * precision).sum() / positives)
        # Summed over a bin, this is its weight times (mean P(yes) - share of yes).
        gap = weight * (self.p - self.labels)
        gaps = np.bincount(self.bins, weights=gap, minlength=CALIBRATION_BINS)
        total = weight.sum()
        calibration_error = float(np.abs(gaps).sum() / total) if total else np.nan
        return auc, average_precision, calibration_error

    def full(self) -> tuple[float, float, float]:
        """The three metrics of all samples."""
        return self.values(np.ones(self.groups))

    def without_each(self) -> Floats:
        """The three metrics without each cluster, shape (groups, 3)."""
        rows = []
        for group in range(self.groups):
            weight = np.ones(self.groups)
            weight[group] = 0
            rows.append(self.values(weight))
        return np.array(rows)

    def estimates(self) -> dict[str, Estimate]:
        """The three metrics with jackknife intervals."""
        without = self.without_each()
        estimates = {}
        for index, name in enumerate(self.NAMES):
            value = self.full()[index]
            error = jackknife_error(value, without[:, index])
            estimates[name] = interval(value, error, self.groups, SHARE)
        return estimates


def ranking(probabilities: Floats, labels: Floats, clusters: Ints) -> Mapping[str, Estimate]:
    """`Ranking`'s metrics with intervals, NaN if there are no probabilities."""
    if len(probabilities) == 0:
        return dict.fromkeys(Ranking.NAMES, NOTHING)
    return Ranking(probabilities, labels, clusters).estimates()
