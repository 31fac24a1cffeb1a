"""Vision-language models that are asked yes/no questions about images.

All questions about an image share one encoding of it (`bench/models/shared_image.py`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import registry
from bench.metrics.yes_no import yes_probability
from bench.types import Benchmark, Model, Request


class ImageQuestion(NamedTuple):
    """A question about an image, named by the caller."""

    image: str
    question: str


Probabilities = dict[ImageQuestion, float]


def ask(
    model: Model,
    questions: Sequence[ImageQuestion],
    path_of: Mapping[str, Path],
    done: Sequence[ImageQuestion] = (),
) -> Iterator[list[tuple[ImageQuestion, float | None]]]:
    """Batches of P = P(yes) / (P(yes) + P(no)), None if the model gives no probability.

    A question whose image cannot be read is left out.

    Args:
        model: A model of the bench.
        questions: All questions, those of an image one after the other.
        path_of: The images' files.
        done: Those that have been asked.
    """
    # POPE's own suffix: the model answers the question as it would in that benchmark.
    pope: Benchmark = registry.benchmark("pope")
    suffix = model.suffix(pope)
    question_of: dict[str, ImageQuestion] = {}
    requests = []
    done_keys = set()
    for question in questions:
        prompt = f"{question.question}\n{suffix}" if suffix else question.question
        key = f"{question.image}/{question.question}"
        question_of[key] = question
        requests.append(
            Request(
                key,
                question.image,
                path_of[question.image],
                question.question,
                prompt,
                1,
                True,
                (),
            )
        )
    for question in done:
        done_keys.add(f"{question.image}/{question.question}")
    for batch in model.answer(requests, frozenset(done_keys)):
        answered = []
        for request, answer in batch:
            if request.key not in done_keys and answer.error is None:
                p = yes_probability(answer.p_yes, answer.p_no)
                answered.append((question_of[request.key], p))
        yield answered


def mean_over(panel: Sequence[Probabilities]) -> Probabilities:
    """The mean over the models that answered, NaN if one of them gives no probability."""
    answers: dict[ImageQuestion, list[float]] = {}
    for probabilities in panel:
        for question, p in probabilities.items():
            answers.setdefault(question, []).append(p)
    return {question: statistics.fmean(ps) for question, ps in answers.items()}


def as_number(p: float | None) -> float:
    """NaN for a probability that a model does not give."""
    return math.nan if p is None else p
