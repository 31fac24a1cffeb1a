"""The nouns of the bench: sample, request, answer, verdict, score, metric, figure.

Only the standard library is imported here, so that `bench list` and `bench --help` stay fast.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Better = Literal["higher", "lower", "neither"]
Unit = Literal["fraction", "count", "rating", "amount"]  # amount: words, claims
Values = Mapping[str, Any]  # what a benchmark recorded of one scored sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image.

    Args:
        id: Unique within the benchmark.
        image: File name of the image.
        question: The question as published, without the protocol's suffix.
        reference: What the scorer compares with: a label, a text or a collection of object names.
        cluster: What makes samples dependent (the image). Intervals are clustered by it.
        subset: The part of the benchmark that the sample belongs to.
        metadata: Whatever else the benchmark's scorer or a judge needs.
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

    Args:
        key: Identifies the pair in answers.jsonl.
        image: File name of the image.
        path: Where the image lies; None if it was not found.
        question: The question as published.
        prompt: The question with the protocol's suffix.
        max_tokens: Upper bound of the answer's length.
        yes_no: Whether to record P(yes) and P(no) of the first answer token.
        samples: Ids of the samples that share this request.
        thinking_tokens: How many tokens a reasoning model may think before its answer.
        reasoning_tags: What stands before and behind its thoughts, beside the known marks.
    """

    key: str
    image: str
    path: Path | None
    question: str
    prompt: str
    max_tokens: int
    yes_no: bool
    samples: tuple[str, ...]
    thinking_tokens: int = 0
    reasoning_tags: tuple[str, str] | None = None

    @property
    def limit(self) -> int:
        """The most tokens that are generated, thoughts included."""
        return self.max_tokens + self.thinking_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one request.

    Args:
        text: The answer, stripped.
        tokens: Generated tokens, without the one that ended the answer.
        seconds: The answer's share of its batch's time.
        finish: Why the answer ended; "recorded" for replayed answers.
        p_yes: Probability, over the whole vocabulary, that the first token is a form of yes.
        p_no: The same for no.
        error: Why there is no answer.
        prompt_tokens: Prompt tokens that a server counted; None for local models.
        thoughts: What a reasoning model thought before its answer; empty if it did not.
    """

    text: str
    tokens: int = 0
    seconds: float = 0.0
    finish: Literal["stop", "length", "recorded"] = "stop"
    p_yes: float | None = None
    p_no: float | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    thoughts: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one sample's answer.

    Args:
        text: The review as it was given.
        error: Why there is none that can be read. It is then asked for again at the next start.
        official: Whether it is a recorded review of the official scorer, which reads what has not
            exactly one rating as 0.
    """

    text: str
    error: str | None = None
    official: bool = False


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """What a judge does with an answer instead of rating it: `metadata["judge_task"]` of a sample.

    Args:
        prompt: With {question} and {answer}.
        fault: From a reply to why it cannot be read, None if it can.
    """

    prompt: str
    fault: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Score:
    """One sample's values under a benchmark, or the reason (`unscored`) why it has none.

    Every benchmark has the value `correct`: whether the answer is right, or, for open answers,
    free of hallucination.
    """

    sample: str
    subset: str
    cluster: str
    values: Values = field(default_factory=dict)
    unscored: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A named number over scores with its 95 % interval.

    `value` is NaN over an empty set; `low` and `high` are NaN if no interval applies (counts).
    `n` samples were counted, `unscored` samples were left out. Of all of them `cut_off` answers
    ended at the token limit. `caveats` are what a reader must know beside the number. `by_seed` are
    its values for each of several seeds.
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
    caveats: tuple[str, ...] = ()
    by_seed: tuple[float, ...] = ()
    cut_off: int = 0

    @property
    def between_seeds(self) -> float:
        """The standard deviation between seeds; NaN of fewer than two."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else math.nan


class Fit(NamedTuple):
    """A statistic on scores of G clusters.

    Args:
        value: On all scores.
        without: Without each cluster, an array of shape (G,).
        groups: How many clusters say anything about it.
    """

    value: float
    without: Any
    groups: int


class Statistic(Protocol):
    """How a figure is computed from scores."""

    def fit(self, scores: Sequence[Score], clusters: Any) -> Fit:
        """The value on all scores and without each cluster.

        Args:
            scores: The scored samples.
            clusters: Their cluster labels 0 … G-1, an array of shape (samples,).
        """

    def alone(self, scores: Sequence[Score]) -> Any:
        """The value of each score alone, shape (samples,); NaN if one score does not give it."""


def _any_sample(values: Values) -> bool:
    return True


@dataclass(frozen=True)
class Figure:
    """A number by which models are compared, gated, plotted and tabled.

    A benchmark declares its figures; nothing else knows them.

    Args:
        metric: The metric's name in metrics.json.
        title: What tables call it; unique over all benchmarks.
        better: Which direction is better.
        statistic: How it is computed from scores.
        unit: Fractions are shown in percent.
        subset: The subset whose metric stands for the whole benchmark, on the board for one.
        over: Which scored samples count.
        heading: The board's column heading; an empty one keeps the figure off the board.
        margin: How much worse the gate accepts by default; None if it is not gated by default.
        by_subset: Whether to plot it for each subset of the benchmark.
        bounds: The smallest and the largest possible value, None if there are none.
        beside: The metric without which it misleads, and over which it is plotted: who says less
            hallucinates less.
    """

    metric: str
    title: str
    better: Better
    statistic: Statistic
    unit: Unit = "fraction"
    subset: str = "all"
    over: Callable[[Values], bool] = _any_sample
    heading: str = ""
    margin: float | None = None
    by_subset: bool = False
    bounds: tuple[float, float] | None = (0.0, 1.0)
    beside: str | None = None

    def stands_for_whole(self, metric: Metric) -> bool:
        """Whether a recorded metric is this figure over the whole benchmark.

        A subset may name a variant of the rule behind a colon, such as "generative:relation-only".
        """
        same_subset = metric.subset == self.subset or metric.subset.startswith(f"{self.subset}:")
        return metric.name == self.metric and same_subset


def scale_of(unit: str) -> int:
    """What a value is multiplied by to be shown: fractions are shown in percent."""
    return 100 if unit == "fraction" else 1


def format_p(p: float) -> str:
    """A p-value as shown.

    >>> format_p(0.00004), format_p(0.0123)
    ('< 0.001', '0.012')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


CAVEAT = "‡"  # marks a number with caveats wherever it stands
ASYMMETRY = 0.1  # of half the interval, up to which it is shown as ±


def format_value(metric: Metric, bracketed: bool = False) -> str:
    """A metric as shown: "87.43 ±1.52" (percent), "5.90 [5.41, 5.98]" (ratings), "12" (counts).

    `bracketed` shows both ends even if they lie as far from the value. Of several seeds with the
    standard deviation between them: "87.43 ±1.52 (σ 0.31)". A metric over no samples is "–".
    """
    if math.isnan(metric.value):
        return "–"
    if metric.unit == "count":
        return f"{metric.value:.1f}" if metric.by_seed else f"{metric.value:.0f}"
    scale = scale_of(metric.unit)
    value, low, high = (scale * end for end in (metric.value, metric.low, metric.high))
    text = f"{value:.2f}{format_spread(value, low, high, bracketed=bracketed)}"
    if math.isnan(metric.between_seeds):
        return text
    return f"{text} (σ {scale * metric.between_seeds:.2f})"


def caveats_of(metrics: Iterable[Metric]) -> list[str]:
    """All caveats of some metrics, each once."""
    return list(dict.fromkeys(caveat for metric in metrics for caveat in metric.caveats))


def format_spread(
    value: float, low: float, high: float, digits: int = 2, bracketed: bool = False
) -> str:
    """An interval behind its value: " ±1.52", or " [91.20, 99.40]" if that would mislead.

    Near the smallest and the largest possible value one side is longer. Empty without an interval:
    a single image says nothing about others.

    >>> format_spread(50.0, 48.0, 52.0), format_spread(99.0, 95.0, 99.8)
    (' ±2.00', ' [95.00, 99.80]')
    >>> format_spread(50.0, 48.0, 52.0, bracketed=True)
    ' [48.00, 52.00]'
    """
    if math.isnan(low) or math.isnan(high):
        return ""
    half_width = (high - low) / 2
    is_symmetric = abs((low + high) / 2 - value) <= ASYMMETRY * half_width
    if is_symmetric and not bracketed:
        return f" ±{half_width:.{digits}f}"
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


class Data(Protocol):
    """Where a benchmark's files and images come from."""

    root: Path  # official files
    image_root: Path  # images, at any depth
    # What a run is about; None for all. The files of other subsets need not be there.
    subsets: Sequence[str] | None
    recorded: Sequence[str] | None  # the images that recorded answers exist for, if they do

    @property
    def label(self) -> str:
        """What the user called it."""

    def file(self, relative: str) -> Path:
        """The path of an official file. Raises DataError if it is missing."""

    def digests(self) -> dict[str, str]:
        """The sha256 of every official file that was asked for so far."""

    def image(self, name: str, folder: str) -> Path | None:
        """The image of that file name, preferably from the sub-folder `folder`."""

    def image_names(self, folder: str) -> Sequence[str]:
        """The names of the images at hand."""


class Benchmark(Protocol):
    """Where samples come from, how they are asked, how answers are scored and summarised.

    `suffix` is appended to yes/no questions on a line of its own unless the protocol says
    otherwise. `judged` benchmarks need a judge's verdict before they can be scored. `images` is
    the sub-folder of DIR/images to prefer. `figures` are what models are compared by.
    """

    name: str
    version: str
    title: str
    suffix: str
    judged: bool
    images: str

    @property
    def figures(self) -> Sequence[Figure]:
        """What models are compared, gated, plotted and tabled by."""

    def samples(self, data: Data) -> list[Sample]:
        """All samples, ids unique. Raises DataError if the data is not as published."""

    def max_tokens(self, sample: Sample) -> int:
        """The longest answer, in tokens."""

    def yes_no(self, sample: Sample) -> bool:
        """Whether to record P(yes) and P(no), and to append the suffix."""

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The sample's values by the official rule, or why it has none."""

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """All metrics over all scores, unscored ones included."""


Batch = list[tuple[Request, Answer]]


class RecordedAnswers(Protocol):
    """Answers that were given before the run, each to a question of its own.

    `images` are the names of the images that they are about.
    """

    images: Sequence[str]

    def match(
        self, benchmark: Benchmark, samples: Sequence[Sample]
    ) -> tuple[list[str], dict[str, Any]]:
        """The subsets that were asked, and what run.json says of how rows and samples matched."""


class Model(Protocol):
    """An adapter that answers requests about images.

    `reads_images` says whether requests without an image must be held back. `source` is the local
    folder or file that it was read from, None if it came from the hub or is behind a server.
    `adapter` is the folder of a PEFT adapter on the model, None without one.
    """

    reads_images: bool
    source: Path | None
    adapter: Path | None

    @property
    def recorded(self) -> RecordedAnswers | None:
        """The answers that exist already; None if the model is asked."""

    def describe(self) -> dict[str, Any]:
        """Everything that can change an answer, as JSON for run.json; never a secret."""

    def suffix(self, benchmark: Benchmark) -> str:
        """The line that follows a yes/no question; empty for none."""

    def max_tokens(self, benchmark: Benchmark, sample: Sample) -> int:
        """The longest answer, in tokens."""

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Batches of (request, answer).

        Order and composition of the batches depend on `requests` only, never on `done`, so that a
        resumed run computes the same numbers as an undisturbed one. A batch whose keys are all in
        `done` is left out. An answer with `error` is reported and asked again at the next start.
        """


@runtime_checkable
class Checkable(Protocol):
    """A model or judge that can be tried before the first question, such as one behind a server."""

    def check(self) -> None:
        """Raises a BenchError if it cannot be asked."""


@runtime_checkable
class Negotiating(Protocol):
    """A model or judge whose server may refuse an argument, and is asked without it then."""

    @property
    def negotiated(self) -> Sequence[str]:
        """What was refused, in words."""


@runtime_checkable
class Batching(Protocol):
    """A model that may be asked in batches, which go on at a server when this process ends."""

    @property
    def in_batches(self) -> bool:
        """Whether it is asked so."""

    def begin_batches(self, requests: Sequence[Request], done: frozenset[str], file: Path) -> None:
        """Sends what is neither answered nor under way.

        Args:
            requests: All requests of a run.
            done: Keys of those that are answered.
            file: Where the ids of the run's batches are kept.
        """


@runtime_checkable
class Rewording(Protocol):
    """A model that is asked by a protocol, which may replace a benchmark's one question."""

    def question(self, benchmark: Benchmark) -> str | None:
        """What is asked in place of it; None if it stays."""


@runtime_checkable
class Repeating(Protocol):
    """A model that may answer a question several times, each time from another seed."""

    @property
    def seeds(self) -> int:
        """How often."""


@runtime_checkable
class LooksAtImages(Protocol):
    """A judge that looks at the images, and is told where they lie before it judges."""

    def look_at(self, images: Mapping[str, Path]) -> None:
        """Says where the images lie, by name."""


class Judge(Protocol):
    """Rates open answers."""

    def describe(self) -> dict[str, Any]:
        """Everything that can change a verdict, as JSON for run.json; never a secret."""

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order in which they come."""


Progress = Callable[[int], None]
