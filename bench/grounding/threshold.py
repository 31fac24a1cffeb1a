"""The probability at which a claim is worth nothing, chosen without labels.

A false claim costs twice what a true one gains, so a claim should be worth nothing where two of
three hold. P(yes) does not say where that is: a panel that shares the responses' models believes
what they invent. How often the responses to an image agree on a claim does. It is measured among
the claims that the panel is surest of, for and against; between the two, the mean agreement of
claims of one P(yes) tells the share of them that hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HOLD = 2 / 3  # of the claims at the threshold: +1 for each of them, -2 for the others
SURE = 0.1  # of all claims are taken as those that surely hold, and as many that surely do not
FEWEST = 50  # claims
CONTRAST = 0.1  # the least difference in agreement between the two


class AgreedClaim(NamedTuple):
    """A claim about an image.

    Args:
        p: The panel's P(yes).
        agreement: The share of the image's responses that make it.
    """

    p: float
    agreement: float


class Choice(NamedTuple):
    """A threshold and what it was chosen from.

    Args:
        threshold: The probability.
        claims: How many claims there were.
        agreement_against: The mean agreement on what the panel denies most surely.
        agreement_for: The mean agreement on what it affirms most surely.
    """

    threshold: float
    claims: int
    agreement_against: float
    agreement_for: float


def choose_threshold(claims: Sequence[AgreedClaim]) -> Choice | str:
    """The threshold, or why none can be chosen.

    Args:
        claims: The distinct assertions about images with several responses.
    """
    from scipy.optimize import isotonic_regression

    if len(claims) < FEWEST:
        return f"There are {len(claims)} claims, and {FEWEST} are needed."
    in_order = sorted(claims)
    p = np.array([claim.p for claim in in_order])
    agreement = np.array([claim.agreement for claim in in_order])
    num_sure = int(SURE * len(in_order))
    against = float(agreement[:num_sure].mean())
    for_ = float(agreement[-num_sure:].mean())
    if for_ - against < CONTRAST:
        return (
            f"Responses agree on what the panel affirms ({for_:.0%} of an image's) hardly more "
            f"than on what it denies ({against:.0%})."
        )
    # Agreement that falls with P is noise.
    smoothed = isotonic_regression(agreement).x
    share_that_holds = (smoothed - against) / (for_ - against)
    first = int(np.searchsorted(share_that_holds, HOLD))
    return Choice(float(p[first]), len(in_order), against, for_)
