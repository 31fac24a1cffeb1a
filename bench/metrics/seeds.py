"""Several answers to one question, each drawn from a seed of its own.

Each is a sample: "random/12#seed3" is the fourth answer to "random/12". They belong to one image,
so that intervals clustered by image hold what differs between images and between draws together:
the draws are independent, there is nothing that all answers of a seed have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from bench.types import Sample, Score

MARK = "#seed"
SEED = re.compile("[0-9]{1,9}")


def of_seed(sample: Sample, seed: int, seeds: int) -> Sample:
    """The sample of one of several seeds; itself if there is one seed."""
    return sample if seeds == 1 else replace(sample, id=f"{sample.id}{MARK}{seed}")


def seed_of(sample: str) -> int | None:
    """The seed of a sample's id; None if its question has one answer.

    >>> seed_of("random/12#seed3"), seed_of("random/12")
    (3, None)
    """
    _, mark, seed = sample.rpartition(MARK)
    return int(seed) if mark and SEED.fullmatch(seed) else None


def question_of(sample: str) -> str:
    """The id without its seed.

    >>> question_of("random/12#seed3"), question_of("random/12")
    ('random/12', 'random/12')
    """
    return sample if seed_of(sample) is None else sample.rpartition(MARK)[0]


def alike(
    first: Mapping[str, Score], second: Mapping[str, Score]
) -> tuple[Mapping[str, Score], Mapping[str, Score]]:
    """Two runs' scores by sample id, such that answers stand against answers.

    A run with one answer to each question stands against every seed of another.
    """
    if has_seeds(second) and not has_seeds(first):
        return _repeated(first, second), second
    if has_seeds(first) and not has_seeds(second):
        return first, _repeated(second, first)
    return first, second


def has_seeds(scores: Mapping[str, Score]) -> bool:
    """Whether questions have several answers."""
    return any(seed_of(sample) is not None for sample in scores)


def _repeated(single: Mapping[str, Score], several: Mapping[str, Score]) -> dict[str, Score]:
    scores = {}
    for sample in several:
        score = single.get(question_of(sample))
        if score is not None:
            scores[sample] = replace(score, sample=sample)
    return scores
