"""The nouns of the bench: sample, request, answer, verdict, score, metric. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Better = Literal["higher", "lower", "neither"]
Unit = Literal["fraction", "count", "rating", "words"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image.

    `cluster` names what makes samples dependent (the image); intervals are clustered by it.
    `reference` is what the scorer compares with: a label, a text or a collection of object names.
    """

    id: str
    image: str
    question: str
    reference: Any
    cluster: str
    subset: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One distinct (image, prompt) pair, asked once however many samples share it.

    `max_tokens` bounds the answer; `yes_no` asks for P(yes) and P(no) of the first answer token.
    """

    key: str
    image: str
    path: Path | None
    question: str
    prompt: str
    max_tokens: int
    yes_no: bool
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one request; `error` says why it said nothing.

    `p_yes` and `p_no` are the probabilities, over the whole vocabulary, that the first answer token is a
    form of yes or of no. `tokens` counts generated tokens, `prompt_tokens` those a server was paid to read;
    `seconds` is the share of its batch's time.
    """

    text: str
    tokens: int = 0
    seconds: float = 0.0
    finish: Literal["stop", "length", "recorded"] = "stop"
    p_yes: float | None = None
    p_no: float | None = None
    error: str | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one sample's answer: its raw `text`, kept whatever it says; `error` if it said nothing."""

    text: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One sample's values under a benchmark, or the reason (`unscored`) why it has none.

    Every benchmark has the value `correct`: whether the answer is right, or for open answers, free of hallucination.
    """

    sample: str
    subset: str
    cluster: str
    values: Mapping[str, Any] = field(default_factory=dict)
    unscored: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A named number over scores with its 95 % interval; `n` samples counted, `unscored` left out.

    `value` is NaN over an empty set; `low` and `high` are NaN where no interval applies (counts).
    """

    name: str
    subset: str
    value: float
    low: float
    high: float
    n: int
    unscored: int
    better: Better
    unit: Unit


def scale_of(unit: str) -> int:
    """What a value is multiplied by to be shown: fractions are shown in percent."""
    return 100 if unit == "fraction" else 1


def p_text(p: float) -> str:
    """A p-value as shown."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_value(metric: Metric) -> str:
    """ "87.43 ± 1.52" (percent), "2.08 ± 0.35" (ratings, words) or "12" (counts); "–" for NaN."""
    if math.isnan(metric.value):
        return "–"
    if metric.unit == "count":
        return f"{metric.value:.0f}"
    scale = scale_of(metric.unit)
    text = f"{scale * metric.value:.2f}"
    if math.isnan(metric.low):
        return text
    return f"{text} ±{scale * (metric.high - metric.low) / 2:.2f}"


class Data(Protocol):
    """Where a benchmark's files and images come from: official files under `root`, images under `image_root`."""

    root: Path
    image_root: Path

    @property
    def label(self) -> str:
        """What the user called it."""

    def file(self, relative: str) -> Path:
        """The path of an official file. Raises DataError where it is missing."""

    def digests(self) -> dict[str, str]:
        """The sha256 of every official file that was asked for so far."""

    def image(self, name: str, folder: str) -> Path | None:
        """The image of that file name, from sub-folder `folder` where several have it."""

    def image_names(self, folder: str) -> Sequence[str]:
        """The names of the images at hand."""


class Benchmark(Protocol):
    """Where samples come from, how they are asked, how answers are scored and summarised.

    `suffix` is appended to every question on a line of its own unless the protocol says otherwise;
    `judged` benchmarks need a judge's verdict before they can be scored.
    """

    name: str
    version: str
    title: str
    suffix: str
    judged: bool

    def samples(self, data: Data) -> list[Sample]:
        """All samples, ids unique. Raises DataError where the data is not as published."""

    def max_tokens(self, sample: Sample) -> int:
        """The longest answer, in tokens."""

    def yes_no(self, sample: Sample) -> bool:
        """Whether to record P(yes) and P(no), and to append the suffix."""

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The sample's values by the official rule, or why it has none."""

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """All metrics over all scores, unscored ones included."""


Batch = list[tuple[Request, Answer]]


class Model(Protocol):
    """An adapter that answers requests about images.

    `describe` holds everything that can change an answer. `answer` yields batches in an order and a
    composition that depend on `requests` alone, never on `done`, so that a resumed run computes the same
    numbers as an undisturbed one; a batch whose keys are all in `done` is left out.
    """

    reads_images: bool

    def describe(self) -> dict[str, Any]:
        """For run.json, as JSON; never a secret."""

    def suffix(self, benchmark: Benchmark) -> str:
        """The line that follows a yes/no question; empty for none."""

    def max_tokens(self, benchmark: Benchmark, sample: Sample) -> int:
        """The longest answer, in tokens."""

    def recorded_images(self) -> Sequence[str] | None:
        """The images that recorded answers exist for; None where any image can be asked about."""

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Batches of (request, answer); an answer with `error` is reported and asked again at the next start."""


class Judge(Protocol):
    """Judges answers. `describe` holds everything that can change a verdict."""

    def describe(self) -> dict[str, Any]:
        """For run.json, as JSON; never a secret."""

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order of the items."""


Progress = Callable[[int], None]
