"""POPE: does the model say yes to objects that are not there? (Li et al., arXiv 2305.10355)

Reference scorer: AoiDragon/POPE evaluate.py and LLaVA's eval_pope.py. Official files are read as
published; the yes-ratio is of predictions. Beside the rule, `contrary` counts answers that begin
with the other word ("Yes, there is one, but there is no lamp." is no by the rule), and `unparsed`
these and what it calls yes although the word yes is not in it. P(yes) of the first answer token
gives ROC-AUC, average precision and calibration error, which a mere shift of the threshold does not
move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.benchmarks.scoring import (
    by_subset,
    clusters_of,
    count,
    equals,
    metric,
    scored,
    values_of,
)
from bench.errors import DataError
from bench.files import read_rows
from bench.metrics.paired import MeanOverSubsets, RankingOf
from bench.metrics.yes_no import (
    CONFUSION,
    MIN_MASS,
    Ranking,
    confusion,
    confusion_statistics,
    first_word,
    mean_confusion,
    pope_answer,
    ranking,
    says_yes,
    yes_no_mass,
    yes_probability,
)
from bench.stats import NOTHING, Floats
from bench.types import Answer, Better, Data, Figure, Metric, Sample, Score, Values, Verdict

SUBSETS = ("random", "popular", "adversarial")
FIELDS = {"question_id": str | int, "image": str, "text": str, "label": str}
COUNTS = ("tp", "fp", "tn", "fn")  # positive is yes
Files = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pope:
    """POPE on one image source.

    Args:
        name: What `--suite` calls it.
        title: What tables call it.
        label: What its figures begin with.
        images: The sub-folder of DIR/images to prefer.
        files: (subset, official question file) pairs.
        version: Raised whenever a number can change.
        suffix: What follows every question.
        judged: Its answers need no judge.
    """

    name: str
    title: str
    label: str
    images: str
    files: Files
    version: str = "1"
    suffix: str = "Answer the question using a single word or phrase."
    judged: bool = False

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return tuple(figures(self.label).values())

    def samples(self, data: Data) -> list[Sample]:
        """All questions, ids "subset/question_id".

        Raises DataError if a file, an id or a label is not as published.
        """
        samples = []
        for subset, file in self.files:
            if data.subsets is None or subset in data.subsets:
                samples += self._subset(data, subset, file)
        return samples

    def _subset(self, data: Data, subset: str, file: str) -> list[Sample]:
        path = data.file(file)
        samples = []
        for row in read_rows(path, FIELDS):
            if row["label"] not in ("yes", "no"):
                raise DataError(
                    f"{path}: question {row['question_id']} has the label {row['label']!r}.",
                    "POPE knows yes and no.",
                    "Restore the file from its source.",
                )
            sample_id = f"{subset}/{row['question_id']}"
            image = row["image"]
            samples.append(Sample(sample_id, image, row["text"], row["label"], image, subset))
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """LLaVA's evaluation allows 128."""
        return 128

    def yes_no(self, sample: Sample) -> bool:
        """P(yes) is recorded for every question."""
        return True

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The official reading of the answer beside its label."""
        # The official rule, whatever it makes of the answer; `unparsed` says what it hides.
        reading = pope_answer(answer.text)
        is_contrary = first_word(answer.text) not in (None, reading)
        values = {
            "answer": reading,
            "label": sample.reference,
            "correct": reading == sample.reference,
            "unparsed": is_contrary or (reading == "yes" and not says_yes(answer.text)),
            "contrary": is_contrary,
            "p_yes": yes_probability(answer.p_yes, answer.p_no),
            "yes_no_mass": _sum(answer.p_yes, answer.p_no),
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Each subset, all pooled, and the mean over subsets that papers quote."""
        declared = figures(self.label)
        groups = by_subset(scores)
        rows = []
        for subset, group in groups.items():
            rows += _metrics(declared, subset, group)
        rows += _metrics(declared, "all", scores)
        with_values = scored(scores)
        # Papers quote the mean over subsets; LLaVA's zoo quotes the mean of F1.
        means = mean_confusion(
            *_arrays(with_values), [score.subset for score in with_values], list(groups)
        )
        return rows + [metric(declared[name], "mean", means[name], scores) for name in CONFUSION]


def _arrays(with_values: Sequence[Score]) -> tuple[Floats, Floats, np.ndarray]:
    """Answers and labels (1 for yes, else 0) and clusters, each of shape (scores,)."""
    answers = equals(with_values, "answer", "yes")
    truth = equals(with_values, "label", "yes")
    return answers, truth, clusters_of(with_values)


def _metrics(declared: dict[str, Figure], subset: str, scores: Sequence[Score]) -> list[Metric]:
    """One subset's confusion metrics, unparsed answers, and what P(yes) says if it is known."""
    with_values = scored(scores)
    answers, truth, clusters = _arrays(with_values)
    rows = []
    for name, estimate in confusion(answers, truth, clusters).items():
        rows.append(metric(declared[name], subset, estimate, scores))
    for index, name in enumerate(COUNTS):
        total = sum(int(_confusion_of(score.values)[index]) for score in with_values)
        rows.append(count(name, subset, total, scores, "neither"))
    # What the rule may have misread.
    for name in ("unparsed", "contrary"):
        total = sum(bool(score.values.get(name)) for score in with_values)
        rows.append(count(name, subset, total, scores))
    with_probability = []
    for score in with_values:
        if has_probability(score.values):
            with_probability.append(score)
    if not with_probability:
        return rows
    probabilities = values_of(with_probability, "p_yes")
    _, truth, clusters = _arrays(with_probability)
    estimates = ranking(probabilities, truth, clusters)
    mass = yes_no_mass([score.values for score in with_probability])
    caveats: tuple[str, ...] = ()
    if mass < MIN_MASS:
        estimates = dict.fromkeys(estimates, NOTHING)
        caveats = (f"P(yes) and P(no) together are {mass:.1g}, which ranks nothing",)
    for name, estimate in estimates.items():
        rows.append(metric(declared[name], subset, estimate, scores, caveats))
    size, unscored = len(with_probability), len(scores) - len(with_probability)
    rows.append(
        Metric("yes_no_mass", subset, mass, np.nan, np.nan, size, unscored, "neither", "fraction")
    )
    return rows


def _sum(p_yes: float | None, p_no: float | None) -> float | None:
    """P(yes) + P(no), None if they were not recorded."""
    return None if p_yes is None or p_no is None else p_yes + p_no


def has_probability(values: Values) -> bool:
    """Whether P(yes) was recorded."""
    return values["p_yes"] is not None


def _confusion_of(values: Values) -> tuple[float, float, float, float]:
    """(tp, fp, tn, fn) of one sample."""
    said_yes, is_yes = values["answer"] == "yes", values["label"] == "yes"
    return (
        float(said_yes and is_yes),
        float(said_yes and not is_yes),
        float(not said_yes and not is_yes),
        float(not said_yes and is_yes),
    )


def _column(index: int) -> MeanOverSubsets:
    """One of the confusion metrics as the mean over subsets."""

    def combine(sums: Floats) -> Floats:
        return np.asarray(confusion_statistics(sums)[:, index])

    return MeanOverSubsets(_confusion_of, combine)


@cache
def figures(label: str) -> dict[str, Figure]:
    """What models are compared by, by metric; `label` begins the titles.

    Accuracy decides; the gate leaves the others to whoever writes margins for them.
    """
    names: dict[str, tuple[str, str, Better]] = {
        "accuracy": ("accuracy", "acc", "higher"),
        "precision": ("precision", "prec", "higher"),
        "recall": ("recall", "recall", "higher"),
        "f1": ("F1", "F1", "higher"),
        "yes_ratio": ("yes-ratio", "yes %", "neither"),
    }
    declared = {}
    for index, name in enumerate(CONFUSION):
        words, heading, better = names[name]
        is_accuracy = name == "accuracy"
        declared[name] = Figure(
            name,
            f"{label} {words}",
            better,
            _column(index),
            subset="mean",
            heading=f"{label} {heading}" if is_accuracy else heading,
            margin=0.01 if is_accuracy else None,
            by_subset=is_accuracy,
        )
    ranks: dict[str, tuple[str, Better]] = {
        "auc": ("AUC", "higher"),
        "average_precision": ("average precision", "higher"),
        "calibration_error": ("calibration error", "lower"),
    }
    for index, name in enumerate(Ranking.NAMES):
        words, better = ranks[name]
        title = f"{label} {words}"
        declared[name] = Figure(name, title, better, RankingOf(index), over=has_probability)
    return declared


# Official files are read under the names that their repository gives them.
def _files(pattern: str) -> Files:
    return tuple((subset, pattern.format(subset)) for subset in SUBSETS)


COCO = Pope("pope", "POPE (COCO)", "POPE", "coco", _files("pope/coco/coco_pope_{}.json"))
COCO_2910 = Pope(
    "pope-2910",
    "POPE (COCO, random split of 2910 rows as before 2023-08-10)",
    "POPE-2910",
    "coco",
    (("random", "pope/coco/coco_pope_random_2910.jsonl"), *COCO.files[1:]),
)
# POPE's COCO questions with corrected labels, ambiguous ones left out (Neuhaus and Hein, arXiv
# 2504.15707).
REPOPE = Pope("repope", "RePOPE", "RePOPE", "coco", _files("pope/repope/coco_repope_{}.json"))
AOKVQA = Pope(
    "pope-aokvqa",
    "POPE (A-OKVQA)",
    "POPE-A-OKVQA",
    "coco",
    _files("pope/aokvqa/aokvqa_pope_seem_{}.json"),
)
GQA = Pope("pope-gqa", "POPE (GQA)", "POPE-GQA", "gqa", _files("pope/gqa/gqa_pope_seem_{}.json"))
