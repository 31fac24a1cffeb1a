"""Claims: how much of what captions say of any images is false, by a judge that looks at them.

There is no list of questions and no ground truth: the images at hand, or those of recorded
captions, are described, and `--judge grounding:MODEL+MODEL` checks what is claimed. Another
judge's ratings give the rate of captions with a false claim only. Splitting responses into claims
that a model checks is the divide and conquer of RLAIF-V (arXiv 2405.17220).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.benchmarks.scoring import clusters_of, mean_of, metric, scored, unjudged, unscored
from bench.errors import DataError
from bench.metrics.claim_reviews import claims_in
from bench.metrics.paired import FunctionOfSums, mean_of_value, quotient
from bench.metrics.ratings import HALLUCINATION_BELOW, rubric_rating
from bench.stats import Floats, estimates_of_sums, ratio
from bench.types import Answer, Data, Figure, Metric, Sample, Score, Values, Verdict

QUESTION = "Please describe this image in detail."


@dataclass(frozen=True)
class FalseClaims:
    """Descriptions of the images at hand."""

    name: str = "claims"
    title: str = "False claims"
    images: str = "claims"
    version: str = "1"
    suffix: str = ""
    judged: bool = True

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return (WITH_FALSE, FALSE_CLAIMS, CLAIMS_MADE, LENGTH)

    def samples(self, data: Data) -> list[Sample]:
        """One sample for each image. Raises DataError if there is none."""
        names = data.image_names(self.images)
        if not names:
            raise DataError(
                "There is no image to describe.",
                f"{data.label} has none.",
                "Put images under DIR/images, or pass their folder with --images.",
            )
        return [Sample(name, name, QUESTION, "", name, "all") for name in names]

    def max_tokens(self, sample: Sample) -> int:
        """512, as in the common evaluations."""
        return 512

    def yes_no(self, sample: Sample) -> bool:
        """Captions."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The claims in the judge's review, or its rating alone."""
        if verdict is None or verdict.error is not None:
            return unjudged(sample, verdict)
        rating = rubric_rating(verdict.text)
        if rating is None:
            return unscored(sample, "the review has no single rating from 0 to 6")
        claims = claims_in(verdict.text) or []
        false = [claim.subject for claim in claims if not claim.holds]
        values = {
            "rating": rating,
            "any_false": rating < HALLUCINATION_BELOW,
            "correct": rating >= HALLUCINATION_BELOW,
            "claims": len(claims),
            "false": len(false),
            "false_claims": list(dict.fromkeys(false)),
            "length": len(answer.text.split()),
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Captions with a false claim, false claims, claims and words of a caption."""
        with_values = scored(scores)
        terms = np.array([_terms(score.values) for score in with_values]).reshape(-1, 2)
        (false_claims,) = estimates_of_sums(terms, clusters_of(with_values), _rate)
        return [
            metric(WITH_FALSE, "all", mean_of(scores, "any_false"), scores),
            metric(FALSE_CLAIMS, "all", false_claims, scores),
            metric(CLAIMS_MADE, "all", mean_of(scores, "claims", None), scores),
            metric(LENGTH, "all", mean_of(scores, "length", None), scores),
        ]


def _terms(values: Values) -> tuple[float, float]:
    return values["false"], values["claims"]


def _rate(sums: Floats) -> Floats:
    """(B, 2) → (B, 1): the share of claims that are false."""
    return ratio(sums[:, 0], sums[:, 1])[:, None]


WITH_FALSE = Figure(
    "with_false_claim",
    "captions with a false claim",
    "lower",
    mean_of_value("any_false"),
    heading="false",
    beside="claims",
    margin=0.01,
)
FALSE_CLAIMS = Figure(
    "false_claims",
    "false claims",
    "lower",
    FunctionOfSums(_terms, quotient),
    heading="of claims",
    margin=0.01,
)
CLAIMS_MADE = Figure(
    "claims", "claims a caption", "neither", mean_of_value("claims"), "amount", bounds=None
)
LENGTH = Figure("length", "claims words", "neither", mean_of_value("length"), "amount", bounds=None)

CLAIMS = FalseClaims()
