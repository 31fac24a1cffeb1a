"""MMHal-Bench: 96 open questions of eight types, each answer rated 0-6 by a judge (Sun et al., arXiv 2309.14525).

Reference scorer: eval_gpt4.py of MMHal-Bench. A review without exactly one rating counts as 0 by the official
rule; `unrated` says how many there were. A sample whose judge gave no review at all is unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.benchmarks.common import by_subset, count, mean_of, metric, read_rows
from bench.metrics.ratings import HALLUCINATION_BELOW, informativeness, official_rating, ratings_in
from bench.types import Answer, Data, Metric, Sample, Score, Verdict

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
TEMPLATE = "mmhal/mmhal-bench_answer_template.json"


@dataclass(frozen=True)
class MMHal:
    """MMHal-Bench; a sample's type is its index mod 8, as the official scorer has it."""

    name: str = "mmhal"
    title: str = "MMHal-Bench"
    images: str = "mmhal"
    version: str = "1"
    suffix: str = ""
    judged: bool = True

    def samples(self, data: Data) -> list[Sample]:
        """The items of the official template, in order, ids by image."""
        rows = read_rows(data.file(TEMPLATE), ("image_id", "image_src", "question", "gt_answer", "image_content"))
        return [self._sample(index, row) for index, row in enumerate(rows)]

    def _sample(self, index: int, row: dict[str, Any]) -> Sample:
        name = row["image_src"].rsplit("/", 1)[-1]
        metadata = {"index": index, "image_content": row["image_content"]}
        return Sample(row["image_id"], name, row["question"], row["gt_answer"], name, TYPES[index % 8], metadata)

    def max_tokens(self, sample: Sample) -> int:
        """Open answers: the 512 tokens of the common evaluations."""
        return 512

    def yes_no(self, sample: Sample) -> bool:
        """Open questions."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The official rating of the judge's review."""
        if verdict is None:
            return Score(sample.id, sample.subset, sample.cluster, unscored="not judged")
        if verdict.error is not None:
            return Score(sample.id, sample.subset, sample.cluster, unscored=f"no verdict: {verdict.error}")
        rating = official_rating(verdict.text)
        values = {
            "rating": rating,
            "hallucination": rating < HALLUCINATION_BELOW,
            "informativeness": informativeness(rating),
            "correct": rating >= HALLUCINATION_BELOW,
            "unrated": len(ratings_in(verdict.text)) != 1,
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Overall and by question type."""
        groups = {"all": list(scores), **by_subset(scores)}
        return [item for subset, group in groups.items() for item in _metrics(subset, group)]


def _metrics(subset: str, scores: Sequence[Score]) -> list[Metric]:
    unrated = sum(score.values["unrated"] for score in scores if score.unscored is None)
    informative = mean_of(scores, "informativeness", (0, 3))
    return [
        metric("score", subset, mean_of(scores, "rating", (0, 6)), scores, "higher", "rating"),
        metric("hallucination_rate", subset, mean_of(scores, "hallucination"), scores, "lower"),
        metric("informativeness", subset, informative, scores, "higher", "rating"),
        count("unrated", subset, unrated, scores),
    ]


MMHAL = MMHal()
