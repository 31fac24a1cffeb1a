"""MMHal-Bench reviews: the official reading of a rating, and what the rule hides.

Rule: eval_gpt4.py of MMHal-Bench (arXiv 2309.14525).
"""

from __future__ import annotations

HALLUCINATION_BELOW = 3


def ratings_in(review: str) -> list[int]:
    """The distinct s in 0..6 for which "rating: s" occurs in the lower-cased review."""
    lowered = review.lower()
    return [s for s in range(7) if f"rating: {s}" in lowered]


def official_rating(review: str) -> int:
    """The rating by the official rule: exactly one is it, anything else is 0."""
    found = ratings_in(review)
    return found[0] if len(found) == 1 else 0


def informativeness(rating: int) -> int:
    """How informative the rubric calls an answer of this rating: 0 not … 3 very, with good analysis or reasoning.

    The scale orders answers without hallucination (3..6) and with one (0..2) by informativeness; this is the
    place on that order, so that an honest but empty answer (3) shows as uninformative (0).
    """
    return rating - HALLUCINATION_BELOW if rating >= HALLUCINATION_BELOW else rating
