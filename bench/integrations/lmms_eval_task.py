"""`lmms:TASK`: any generation task of lmms-eval with one image a question.

It is asked, recorded and scored here. The task's own code makes the question and the image, scores
the answer (`process_results`) and sums up (`aggregation`); runner, store and intervals are ours.
`--data hub` takes lmms-eval's tasks, `--data DIR` those of a folder as well (its `--include_path`).
Written against lmms-eval 0.7.3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from bench.benchmarks.scoring import scored
from bench.data.images import keep_image
from bench.errors import DataError, one_line
from bench.metrics.paired import number_of, quotient
from bench.stats import (
    NOTHING,
    SHARE,
    Estimate,
    estimates_of_sums,
    interval,
    jackknife_error,
    labels,
)
from bench.types import Answer, Better, Data, Figure, Metric, Sample, Score, Unit, Verdict

PATIENCE = 4.0  # seconds that the interval of a metric without a known form may take
BLOCKS = 100  # of images, left out one at a time
INSTALL = "pip install 'synth-align[lmms]'; docs/lmms-eval.md has the whole recipe."


class LmmsTask:
    """One task.

    Raises DataError if lmms-eval is missing, or the task is unknown or of another kind.
    """

    title = "a task of lmms-eval"
    suffix = ""
    judged = False
    images = ""
    # Only the task's code knows how it sums up, so its recorded means are compared.
    figures: Sequence[Figure] = ()

    def __init__(self, task: str) -> None:
        self.task, self.name, self.title = task, f"lmms:{task}", f"{task} (lmms-eval)"
        try:
            self.version = f"lmms-eval {version('lmms-eval')}"
        except ImportError as error:
            raise DataError(
                f"lmms:{task} needs lmms-eval.", "It is not installed.", INSTALL
            ) from error
        self._loaded: Any = None

    def samples(self, data: Data) -> list[Sample]:
        """Every document; its image is kept under a name that its content gives.

        Raises DataError if the task cannot be loaded, has documents without just one image, or is
        not of the kind generate_until.
        """
        task = self._loaded = self._load(data.root)
        samples = []
        for number, doc in enumerate(task.eval_docs):
            images = task.doc_to_visual(doc)
            if len(images) != 1 or not hasattr(images[0], "convert"):
                raise self._cannot_run(
                    f"Document {number} has {len(images)} images, or something else than an image."
                )
            image = keep_image(images[0], data.image_root)
            reference = str(task.doc_to_target(doc))
            question = task.doc_to_text(doc)
            samples.append(
                Sample(str(number), image, question, reference, image, "all", {"doc": number})
            )
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """The task's own bound."""
        return int(self._generation_settings.get("max_new_tokens", 1024))

    def yes_no(self, sample: Sample) -> bool:
        """The task's prompt is complete: nothing is added."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """What the task's process_results makes of the answer.

        `correct` comes from its first number between 0 and 1.
        """
        task = self._loaded
        # Decoding the image again for a scorer that does not look at it would take most time.
        wants_image = getattr(task.config, "process_results_use_image", False)
        docs = task.eval_docs if wants_image else task.eval_docs_no_media
        process_results = type(task).process_results
        # lmms-eval wraps it to write a file of its own.
        process_results = getattr(process_results, "__wrapped__", process_results)
        try:
            results = process_results(task, docs[sample.metadata["doc"]], [answer.text])
        except Exception as error:  # another's code on a model's text
            reason = f"the task's scorer failed: {type(error).__name__}: {str(error)[:100]}"
            return Score(sample.id, sample.subset, sample.cluster, unscored=reason)
        values: dict[str, Any] = {name: _plain(value) for name, value in results.items()}
        for value in list(values.values()):
            number = number_of(value)
            if number is not None and 0 <= number <= 1:
                values["correct"] = number >= 0.5
                break
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """The task's own metrics, with intervals clustered by image if it sums up fast enough."""
        with_values = scored(scores)
        higher_is_better = self._loaded.higher_is_better()
        rows = []
        for name, aggregate in self._loaded.aggregation().items():
            members = []
            for score in with_values:
                if name in score.values:
                    members.append(score)
            estimate = _estimate(
                [score.values[name] for score in members],
                [score.cluster for score in members],
                aggregate,
            )
            if estimate is None:
                continue
            unit: Unit = "fraction" if 0 <= estimate.value <= 1 else "rating"
            better: Better = "higher" if higher_is_better.get(name, True) else "lower"
            n = len(members)
            rows.append(Metric(name, "all", *estimate, n, len(scores) - n, better, unit))
        return rows

    @cached_property
    def _generation_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self._loaded.config.generation_kwargs or {}
        if settings.get("do_sample") or settings.get("num_beams", 1) != 1:
            raise self._cannot_run("It samples or searches with beams; runs here are greedy.")
        return settings

    def _load(self, include: Any) -> Any:
        try:
            from lmms_eval.tasks import TaskManager, get_task_dict
            from loguru import logger

            # Its loader logs every task file that it looks at.
            logger.disable("lmms_eval")
            manager = TaskManager("ERROR", include_path=include and str(include))
            task = get_task_dict([self.task], manager)[self.task]
        except Exception as error:  # imports, retried downloads, YAML: everything a task can do
            reason = error.__cause__ or error
            raise self._cannot_run(f"{type(reason).__name__}: {one_line(reason, 200)}.") from error
        if isinstance(task, dict):
            raise self._cannot_run("It is a group, not a single task of the kind generate_until.")
        if task.OUTPUT_TYPE != "generate_until":
            raise self._cannot_run(
                f"It is {task.OUTPUT_TYPE}, not a single task of the kind generate_until."
            )
        return task

    def _cannot_run(self, reason: str) -> DataError:
        return DataError(
            f"lmms-eval's task {self.task} cannot be run here.",
            reason,
            "`lmms-eval --tasks list` shows all.",
        )


def _plain(value: Any) -> Any:
    """A value that JSON can hold; others as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _estimate(
    values: Sequence[Any], clusters: Sequence[str], aggregate: Callable[[list[Any]], Any]
) -> Estimate | None:
    """The task's aggregate with its interval: from sums if it is a mean, else by jackknife.

    None if the aggregate is no number. There is no interval if the function takes too long to be
    repeated.

    Args:
        values: What process_results gave for each sample.
        clusters: The image of each sample.
        aggregate: The task's function over all values.
    """
    if not values:
        return NOTHING
    # How long it takes once decides whether it can be repeated for an interval.
    started = time.perf_counter()
    value = aggregate(list(values))
    seconds = time.perf_counter() - started
    if not isinstance(value, int | float | np.number):
        return None
    value = float(value)
    groups = labels(clusters)
    numbers = []
    for number in map(number_of, values):
        if number is not None:
            numbers.append(number)
    is_mean = len(numbers) == len(values) and math.isclose(
        float(np.mean(numbers)), value, abs_tol=1e-12
    )
    # Of a mean, the interval comes from sums; no need to call the task's function again.
    if is_mean:
        terms = np.array([[number, 1.0] for number in numbers])
        bounds = SHARE if min(numbers) >= 0 and max(numbers) <= 1 else None
        return estimates_of_sums(terms, groups, quotient, bounds)[0]
    # Blocks of images are left out in place of single ones if these are too many.
    blocks = groups % min(int(groups.max()) + 1, BLOCKS)
    count = int(blocks.max()) + 1
    if seconds * count > PATIENCE:
        return Estimate(value, np.nan, np.nan)
    without = []
    for block in range(count):
        rest = [values[index] for index in np.flatnonzero(blocks != block).tolist()]
        without.append(float(aggregate(rest)) if rest else np.nan)
    error = jackknife_error(value, np.array(without))
    return interval(value, error, count, SHARE if 0 <= value <= 1 else None)
