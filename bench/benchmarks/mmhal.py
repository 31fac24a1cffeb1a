"""MMHal-Bench: 96 open questions of eight types, each answer rated 0-6 by a judge.

Paper: Sun et al., arXiv 2309.14525. Reference scorer: eval_gpt4.py of MMHal-Bench. A recorded
official review without exactly one rating counts as 0 by the official rule; `unrated` says how many
there were. A sample whose judge gave no review, or none that can be read, is unscored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.benchmarks.scoring import (
    by_subset,
    count,
    mean_of,
    metric,
    scored,
    unjudged,
    unscored,
    values_of,
)
from bench.files import read_rows
from bench.metrics.claim_reviews import claims_in
from bench.metrics.paired import mean_of_value
from bench.metrics.ratings import (
    HALLUCINATION_BELOW,
    HIGHEST,
    informativeness,
    official_rating,
    ratings_in,
    rubric_rating,
)
from bench.types import Answer, Data, Figure, Metric, Sample, Score, Verdict

TYPES = tuple(
    "attribute adversarial comparison counting relation environment holistic other".split()
)
TEMPLATE = "mmhal/mmhal-bench_answer_template.json"
FIELDS = {
    "image_id": str,
    "image_src": str,
    "question": str,
    "gt_answer": str,
    "image_content": list[str],
}


@dataclass(frozen=True)
class MMHal:
    """MMHal-Bench; a sample's type is its index mod 8, as the official scorer has it."""

    name: str = "mmhal"
    title: str = "MMHal-Bench"
    images: str = "mmhal"
    version: str = "1"
    suffix: str = ""
    judged: bool = True

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return (SCORE, HALLUCINATION_RATE, INFORMATIVENESS)

    def samples(self, data: Data) -> list[Sample]:
        """The items of the official template, in order, ids by image."""
        rows = read_rows(data.file(TEMPLATE), FIELDS)
        return [self._sample(index, row) for index, row in enumerate(rows)]

    def _sample(self, index: int, row: dict[str, Any]) -> Sample:
        image = row["image_src"].rsplit("/", 1)[-1]  # published as an address
        kind = TYPES[index % len(TYPES)]
        metadata = {"index": index, "image_content": row["image_content"]}
        return Sample(
            row["image_id"], image, row["question"], row["gt_answer"], image, kind, metadata
        )

    def max_tokens(self, sample: Sample) -> int:
        """Open answers: the 512 tokens of the common evaluations."""
        return 512

    def yes_no(self, sample: Sample) -> bool:
        """Open questions."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The rating of the judge's review, by the official rule if the review is official."""
        # No verdict is no rating: such a sample is unscored, not a hallucination.
        if verdict is None or verdict.error is not None:
            return unjudged(sample, verdict)
        is_official = verdict.official
        rating = official_rating(verdict.text) if is_official else rubric_rating(verdict.text)
        if rating is None:
            return unscored(sample, "the review has no single rating from 0 to 6")
        values: dict[str, Any] = {
            "rating": rating,
            "hallucination": rating < HALLUCINATION_BELOW,
            "informativeness": informativeness(rating),
            "correct": rating >= HALLUCINATION_BELOW,
            "unrated": is_official and len(ratings_in(verdict.text)) != 1,
        }
        # A judge that lists claims tells which of them are false; people are shown their words.
        claims = claims_in(verdict.text)
        if claims:
            false = [claim.subject for claim in claims if not claim.holds]
            values["false_claims"] = list(dict.fromkeys(false))
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Overall and by question type."""
        rows = []
        for subset, group in {"all": list(scores), **by_subset(scores)}.items():
            rows += _metrics(subset, group)
        return rows


def _metrics(subset: str, scores: Sequence[Score]) -> list[Metric]:
    # Reviews without exactly one rating, which the rule calls 0.
    unrated = int(values_of(scored(scores), "unrated").sum())
    informative = mean_of(scores, "informativeness", (0, 3))
    return [
        metric(SCORE, subset, mean_of(scores, "rating", (0, HIGHEST)), scores),
        metric(HALLUCINATION_RATE, subset, mean_of(scores, "hallucination"), scores),
        metric(INFORMATIVENESS, subset, informative, scores),
        count("unrated", subset, unrated, scores),
    ]


SCORE = Figure(
    "score",
    "MMHal score",
    "higher",
    mean_of_value("rating"),
    "rating",
    heading="MMHal",
    margin=0.2,
    bounds=(0, HIGHEST),
)
HALLUCINATION_RATE = Figure(
    "hallucination_rate",
    "MMHal hallucination rate",
    "lower",
    mean_of_value("hallucination"),
    heading="hal %",
    margin=0.01,
    by_subset=True,
)
INFORMATIVENESS = Figure(
    "informativeness",
    "MMHal informativeness",
    "higher",
    mean_of_value("informativeness"),
    "rating",
    bounds=(0, 3),
)

MMHAL = MMHal()
