"""Reviews that list claims: written by the judges `grounding` and `scene`, read by benchmarks.

    2 claims, 1 of them false
    true | 0.98 | Is there a dog in the image? | dog
    false | 0.03 | Is there a cat in the image? | cat
    Rating: 1

A denied claim has "not" before its question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CLAIM = re.compile(r"(true|false) \| (\d\.\d{3}) \| (not )?(.+?) \| (.*)")


class CheckedClaim(NamedTuple):
    """A claim and what models say of it.

    Args:
        holds: Whether the response is right about it.
        p: P(yes) of the question.
        denied: Whether the response says that it is not so.
        question: The question.
        subject: What it is about.
    """

    holds: bool
    p: float
    denied: bool
    question: str
    subject: str


def review_of(claims: Sequence[CheckedClaim], rating: int) -> str:
    """The review of an answer by its claims."""
    num_false = sum(not claim.holds for claim in claims)
    lines = [f"{len(claims)} claims, {num_false} of them false"]
    for claim in claims:
        verdict = "true" if claim.holds else "false"
        denial = "not " if claim.denied else ""
        # A line is a claim, whatever a model wrote into its words.
        question, subject = (" ".join(text.split()) for text in (claim.question, claim.subject))
        question = question.replace("|", "/")
        lines.append(f"{verdict} | {claim.p:.3f} | {denial}{question} | {subject}")
    return "\n".join([*lines, f"Rating: {rating}"])


def claims_in(review: str) -> list[CheckedClaim] | None:
    """The claims that a review lists; None if it is another kind of review.

    >>> claims_in("Good. Rating: 5") is None
    True
    """
    lines = review.splitlines()
    if not lines or not re.fullmatch(r"\d+ claims, \d+ of them false", lines[0]):
        return None
    claims = []
    for line in lines:
        match = CLAIM.fullmatch(line)
        if match:
            verdict, p, denial, question, subject = match.groups()
            claims.append(
                CheckedClaim(verdict == "true", float(p), denial is not None, question, subject)
            )
    return claims
