"""`lmms:TASK`: any generation task of lmms-eval with one image a question, asked, recorded and scored here.

The task's own code makes the question and the picture, scores the answer (`process_results`) and sums up
(`aggregation`); runner, store and intervals are ours. `--data hub` takes lmms-eval's tasks, `--data DIR` those of a
folder as well (its `--include_path`). Written against lmms-eval 0.7.3.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.stats import NOTHING, Estimate, bootstrap_sums, cluster_weights, interval, labels, ratio
from bench.types import Answer, Better, Data, Metric, Sample, Score, Unit, Verdict

PATIENCE = 4.0  # seconds that the bootstrap of a metric without a known form may take
REPLICATES = 200
INSTALL = "pip install 'synth-align[lmms]'; docs/lmms-eval.md has the whole recipe."


class LmmsTask:
    """One task. Raises DataError where lmms-eval is missing, or the task is unknown or of another kind."""

    suffix = ""
    judged = False
    images = ""

    def __init__(self, task: str) -> None:
        self.task, self.name, self.title = task, f"lmms:{task}", f"{task} (lmms-eval)"
        try:
            self.version = f"lmms-eval {version('lmms-eval')}"
        except ImportError as error:
            raise DataError(f"lmms:{task} needs lmms-eval.", "It is not installed.", INSTALL) from error
        self._loaded: Any = None

    def samples(self, data: Data) -> list[Sample]:
        """Every document that has one picture; the pictures are kept by their content.

        Raises DataError where the task cannot be loaded, has documents without just one picture, or is not of the
        kind generate_until.
        """
        from bench.data.images import keep_image

        task = self._loaded = self._load(data.root)
        samples = []
        for number, doc in enumerate(task.eval_docs):
            visuals = task.doc_to_visual(doc)
            if len(visuals) != 1 or not hasattr(visuals[0], "convert"):
                raise self._wrong(f"Document {number} has {len(visuals)} images, or something else than an image.")
            name = keep_image(visuals[0], data.image_root)
            target = str(task.doc_to_target(doc))
            samples.append(Sample(str(number), name, task.doc_to_text(doc), target, name, "all", {"doc": number}))
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """The task's own bound."""
        return int(self._settings.get("max_new_tokens", 1024))

    def yes_no(self, sample: Sample) -> bool:
        """The task's prompt is complete: nothing is added."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """What the task's process_results makes of the answer; `correct` from the first figure between 0 and 1."""
        task, number = self._loaded, sample.metadata["doc"]
        docs = task.eval_docs if self._wants_pictures else task.eval_docs_no_media
        own = type(task).process_results
        try:
            found = getattr(own, "__wrapped__", own)(task, docs[number], [answer.text])
        except Exception as error:  # another's code on a model's text
            reason = f"the task's scorer failed: {type(error).__name__}: {str(error)[:100]}"
            return Score(sample.id, sample.subset, sample.cluster, unscored=reason)
        values: dict[str, Any] = {name: _plain(value) for name, value in found.items()}
        told = [figure for value in values.values() if (figure := _figure(value)) is not None and 0 <= figure <= 1]
        return Score(sample.id, sample.subset, sample.cluster, values | ({"correct": told[0] >= 0.5} if told else {}))

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """The task's own metrics, with intervals clustered by image where it sums up in a second or so."""
        good = [score for score in scores if score.unscored is None]
        better = self._loaded.higher_is_better()
        made = []
        for name, summed in self._loaded.aggregation().items():
            had = [score for score in good if name in score.values]
            found = _estimate([s.values[name] for s in had], [s.cluster for s in had], summed)
            if found is None:
                continue
            unit: Unit = "fraction" if 0 <= found.value <= 1 else "rating"
            way: Better = "higher" if better.get(name, True) else "lower"
            made.append(Metric(name, "all", *found, len(had), len(scores) - len(had), way, unit))
        return made

    @cached_property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self._loaded.config.generation_kwargs or {}
        if settings.get("do_sample") or settings.get("num_beams", 1) != 1:
            raise self._wrong("It samples or searches with beams; runs here are greedy.")
        return settings

    @property
    def _wants_pictures(self) -> bool:
        return bool(getattr(self._loaded.config, "process_results_use_image", False))

    def _load(self, include: Any) -> Any:
        try:
            from lmms_eval.tasks import TaskManager, get_task_dict
            from loguru import logger

            logger.disable("lmms_eval")
            task = get_task_dict([self.task], TaskManager("ERROR", include_path=include and str(include)))[self.task]
        except Exception as error:  # imports, retried downloads, YAML: everything a task's files can do
            reason = error.__cause__ or error
            raise self._wrong(f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}.") from error
        if isinstance(task, dict) or task.OUTPUT_TYPE != "generate_until":
            kind = "a group" if isinstance(task, dict) else task.OUTPUT_TYPE
            raise self._wrong(f"It is {kind}, not a single task of the kind generate_until.")
        return task

    def _wrong(self, reason: str) -> DataError:
        return DataError(
            f"lmms-eval's task {self.task} cannot be run here.", reason, "`lmms-eval --tasks list` shows all."
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


def _figure(value: Any) -> float | None:
    """A value's figure: itself, or its "score"."""
    value = value.get("score") if isinstance(value, dict) else value
    return float(value) if isinstance(value, bool | int | float) else None


def _estimate(values: Sequence[Any], clusters: Sequence[str], summed: Any) -> Estimate | None:
    """The task's aggregate with its interval: exact for means, else a bootstrap of the task's own function.

    None where the aggregate is no number; no interval where the function takes too long to be repeated.
    """
    if not values:
        return NOTHING
    started = time.perf_counter()
    value = summed(list(values))
    took = time.perf_counter() - started
    if not isinstance(value, int | float | np.number):
        return None
    groups = labels([*clusters])
    figures = [_figure(item) for item in values]
    numbers = [figure for figure in figures if figure is not None]
    if len(numbers) == len(values) and math.isclose(float(np.mean(numbers)), float(value), abs_tol=1e-12):
        terms = np.array([[number, 1.0] for number in numbers])
        return bootstrap_sums(terms, groups, lambda sums: ratio(sums[:, 0], sums[:, 1]))[0]
    if took * REPLICATES > PATIENCE:
        return Estimate(float(value), np.nan, np.nan)
    members = [np.flatnonzero(groups == group).tolist() for group in range(int(groups.max()) + 1)]
    drawn = []
    for weights in cluster_weights(len(members))[:REPLICATES]:
        places = [
            place for own, times in zip(members, weights, strict=True) for _ in range(int(times)) for place in own
        ]
        drawn.append(float(summed([values[place] for place in places])))
    return interval(float(value), np.array(drawn))
