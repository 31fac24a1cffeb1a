"""POPE: does the model say yes to objects that are not there? (Li et al., arXiv 2305.10355)

Reference scorer: AoiDragon/POPE evaluate.py and LLaVA's eval_pope.py. Official files are read as published;
the yes-ratio is of predictions. Beside the rule: `unparsed` counts answers that it calls yes although the word
yes is not in them, and P(yes) of the first answer token gives ROC-AUC, average precision and calibration error,
which a mere shift of the threshold does not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.benchmarks.common import by_subset, count, metric, read_rows
from bench.errors import DataError
from bench.metrics.yes_no import (
    CONFUSION,
    Ranking,
    confusion,
    mean_confusion,
    pope_answer,
    ranking,
    says_yes,
    yes_probability,
)
from bench.stats import labels
from bench.types import Answer, Better, Data, Metric, Sample, Score, Verdict

SUBSETS = ("random", "popular", "adversarial")
BETTER: dict[str, Better] = {"yes_ratio": "neither", "calibration_error": "lower"}


@dataclass(frozen=True)
class Pope:
    """POPE on one image source; `files` maps each subset to its official question file."""

    name: str
    title: str
    images: str
    files: tuple[tuple[str, str], ...]
    version: str = "1"
    suffix: str = "Answer the question using a single word or phrase."
    judged: bool = False

    def samples(self, data: Data) -> list[Sample]:
        """All questions, ids "subset/question_id". Raises DataError on a file, id or label that is not as published."""
        return [sample for subset, file in self.files for sample in self._subset(data, subset, file)]

    def _subset(self, data: Data, subset: str, file: str) -> list[Sample]:
        path = data.file(file)
        samples = []
        for row in read_rows(path, ("question_id", "image", "text", "label")):
            if row["label"] not in ("yes", "no"):
                raise DataError(
                    f"{path}: question {row['question_id']} has the label {row['label']!r}.",
                    "POPE knows yes and no.",
                    "Restore the file from its source.",
                )
            sample_id = f"{subset}/{row['question_id']}"
            samples.append(Sample(sample_id, row["image"], row["text"], row["label"], row["image"], subset))
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """LLaVA's evaluation allows 128."""
        return 128

    def yes_no(self, sample: Sample) -> bool:
        """P(yes) is recorded for every question."""
        return True

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The official reading of the answer beside its label."""
        said = pope_answer(answer.text)
        values = {
            "answer": said,
            "label": sample.reference,
            "correct": said == sample.reference,
            "unparsed": said == "yes" and not says_yes(answer.text),
            "p_yes": yes_probability(answer.p_yes, answer.p_no),
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Each subset, all pooled, and the mean over subsets that papers quote."""
        groups = by_subset(scores)
        found = [item for subset, group in groups.items() for item in _metrics(subset, group)]
        found += _metrics("all", scores)
        scored = [score for score in scores if score.unscored is None]
        answers, truth, clusters = _arrays(scored)
        subsets = [score.subset for score in scored]
        means = mean_confusion(answers, truth, clusters, subsets, list(groups))
        return found + [metric(name, "mean", means[name], scores, BETTER.get(name, "higher")) for name in CONFUSION]


def _arrays(scored: Sequence[Score]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    answers = np.array([float(score.values["answer"] == "yes") for score in scored])
    truth = np.array([float(score.values["label"] == "yes") for score in scored])
    return answers, truth, labels([score.cluster for score in scored])


def _metrics(subset: str, scores: Sequence[Score]) -> list[Metric]:
    scored = [score for score in scores if score.unscored is None]
    answers, truth, clusters = _arrays(scored)
    rows = [
        metric(name, subset, estimate, scores, BETTER.get(name, "higher"))
        for name, estimate in confusion(answers, truth, clusters).items()
    ]
    rows.append(count("unparsed", subset, sum(score.values["unparsed"] for score in scored), scores))
    known = np.array([score.values["p_yes"] is not None for score in scored], dtype=bool)
    if not known.any():
        return rows
    p = np.array([score.values["p_yes"] for score, ok in zip(scored, known, strict=True) if ok])
    ranked = ranking(p, truth[known], labels([s.cluster for s, ok in zip(scored, known, strict=True) if ok]))
    return rows + [metric(name, subset, ranked[name], scores, BETTER.get(name, "higher")) for name in Ranking.NAMES]


def _files(pattern: str) -> tuple[tuple[str, str], ...]:
    return tuple((subset, pattern.format(subset)) for subset in SUBSETS)


COCO = Pope("pope", "POPE (COCO)", "coco", _files("pope/coco/coco_pope_{}.json"))
COCO_2910 = Pope(
    "pope-2910",
    "POPE (COCO, random split of 2910 rows as before 2023-08-10)",
    "coco",
    (("random", "pope/coco/coco_pope_random_2910.jsonl"), *COCO.files[1:]),
)
AOKVQA = Pope("pope-aokvqa", "POPE (A-OKVQA)", "coco", _files("pope/aokvqa/aokvqa_pope_seem_{}.json"))
GQA = Pope("pope-gqa", "POPE (GQA)", "gqa", _files("pope/gqa/gqa_pope_seem_{}.json"))
