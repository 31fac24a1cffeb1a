"""A finished or unfinished run, and how runs are found in folders.

Every command that takes runs finds them here, so that all of them see the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from bench import registry
from bench.errors import BenchError, StoreError, one_line
from bench.files import check_ours
from bench.runs.store import RECORD, Recorded, RunFolder
from bench.types import Figure, Metric, Score


class CommonValues(TypedDict, total=False):
    """What tables, plots and pages read of scores, whatever their benchmark is."""

    correct: bool | float | None
    p_yes: Annotated[float, Field(ge=0, le=1)] | None
    rating: float | None
    hallucinated: list[str] | None
    false_claims: list[str] | None


class Results(Protocol):
    """What is known of a benchmark's outcome: what was run, its metrics, its scores by sample."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of run.json."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """The recorded metrics."""

    @property
    def scores(self) -> Mapping[str, Score]:
        """The scores by sample id."""


class Run:
    """One benchmark's run of one model.

    Each file is read when something of it is asked for, and only once. Reading raises StoreError if
    the file is missing or corrupt.

    Args:
        folder: The folder that holds run.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RunFolder(folder)
        self._label: str | None = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        return self.store.record()

    @cached_property
    def metrics(self) -> list[Metric]:
        """The recorded metrics."""
        return self.store.metrics()

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The scores by sample id, unscored samples included."""
        scores = self.store.scores()
        check_values(self.benchmark, scores.values(), self.store.scores_file)
        return scores

    @cached_property
    def answers(self) -> dict[str, Recorded]:
        """The recorded answers by request key."""
        return self.store.answers()

    @cached_property
    def figures(self) -> Sequence[Figure]:
        """What the run is compared, gated, plotted and tabled by."""
        return figures_of(self)

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.record["benchmark"]["name"])

    @property
    def title(self) -> str:
        """What people call the benchmark; its name if it is not installed here."""
        try:
            return str(registry.benchmark(self.benchmark).title)
        except BenchError:
            return self.benchmark

    @property
    def model_name(self) -> str:
        """The model's own name, or what `--name` calls it.

        An adapter is told by the first digits of its sha256, for it has no name of its own.
        """
        model = self.record["model"]
        adapter = model.get("adapter_sha256")
        name = f"{model['name']} {adapter[:8]}" if adapter else str(model["name"])
        return self.record.get("name") or name

    @property
    def model(self) -> str:
        """What the model is called if no other one of that name is beside it.

        The built-in world is named, for its numbers must not be taken for the published data's.
        """
        name = self.model_name
        return f"{name} on scenes" if self.record["source"]["data"] == "scenes" else name

    def move(self, data: str | None, images: Path | None) -> None:
        """Says where the data and the images lie now, if their folders have moved.

        Args:
            data: As in `bench run --data`; None if it has not moved.
            images: A folder of images; None if it has not moved.
        """
        moved: dict[str, str] = {}
        if data is not None:
            moved["data"] = data if data in ("hub", "scenes") else str(Path(data).resolve())
        if images is not None:
            moved["images"] = str(images.resolve())
        self.record["source"] = {**self.record["source"], **moved}

    @property
    def label(self) -> str:
        """What tables call the model; `bench.runs.labels.give_labels` tells equal names apart."""
        return self._label or self.model

    @label.setter
    def label(self, label: str) -> None:
        self._label = label

    @property
    def scored(self) -> dict[str, Score]:
        """The scores by sample id, without unscored samples."""
        return {name: score for name, score in self.scores.items() if score.unscored is None}

    @property
    def finished(self) -> bool:
        """Whether metrics.json is there."""
        return self.store.metrics_file.is_file()

    def whole(self) -> dict[str, Metric]:
        """The metrics that stand for the whole benchmark, by name, in the order of the figures."""
        metrics = {}
        for figure in self.figures:
            for metric in self.metrics:
                if figure.stands_for_whole(metric):
                    metrics[metric.name] = metric
        return metrics


def figures_of(results: Results) -> Sequence[Figure]:
    """The figures that the benchmark declares.

    Without any, or if the benchmark is not installed here, they are what the recorded metrics
    allow.
    """
    from bench.metrics.paired import recorded_means

    name = str(results.record["benchmark"]["name"])
    return _declared(name) or recorded_means(results.metrics, results.scores, name)


def _declared(benchmark: str) -> Sequence[Figure]:
    try:
        figures: Sequence[Figure] = registry.benchmark(benchmark).figures
    except BenchError:
        return ()
    return figures


def check_values(benchmark: str, scores: Iterable[Score], file: Path) -> None:
    """Raises StoreError if the values of scores are not what its benchmark's figures are made of.

    Args:
        benchmark: The benchmark's name.
        scores: Of the file.
        file: The file.
    """
    scored = [score for score in scores if score.unscored is None]
    check_ours(list[CommonValues], [score.values for score in scored], file)
    try:
        for figure in _declared(benchmark):
            counted = [score for score in scored if figure.over(score.values)]
            if counted:
                figure.statistic.fit(counted, np.zeros(len(counted), dtype=int))
    # What is not there, or of a type that nothing can be made of.
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{file} is not as it was written.",
            f"It gives no {figure.title}: {type(error).__name__}: {one_line(error)}.",
            "Restore it, or score the run again: `bench score RUN`.",
        ) from error


def find_runs(path: Path) -> list[Run]:
    """The run in a folder, or all runs below it at any depth, in the order of their paths.

    Raises StoreError if there is none.
    """
    if (path / RECORD).is_file():
        return [Run(path)]
    runs = [Run(file.parent) for file in sorted(path.glob(f"**/{RECORD}"))]
    if not runs:
        raise StoreError(
            f"{path} holds no run.",
            f"It has no {RECORD}.",
            "`bench list runs` shows the runs there are.",
        )
    return runs


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in the folders, and remarks on those that cannot be used.

    A folder's runs stand in the registry's order of their benchmarks, as the board's columns do.
    """
    runs: list[Run] = []
    remarks: list[str] = []
    for folder in folders:
        try:
            runs_of_folder = find_runs(folder)
        except StoreError as error:
            remarks.append(error.fact)
            continue
        usable = []
        for run in runs_of_folder:
            try:
                # Whatever any table needs, so that a damaged run is left out of all of them.
                _ = run.benchmark, run.model, run.metrics, run.scores
            except (BenchError, KeyError, TypeError, AttributeError) as error:
                remarks.append(f"{run.folder} was left out: {' '.join(str(error).split())}")
            else:
                usable.append(run)
        runs += sorted(usable, key=_registry_position)
    return runs, remarks


def _registry_position(run: Run) -> int:
    """Where the benchmark stands in the registry; behind all if it is not one of its names."""
    known = list(registry.names("benchmarks"))
    name = run.benchmark.partition(":")[0]
    return known.index(name) if name in known else len(known)


def group_by_benchmark(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each benchmark, in the order in which they are given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.benchmark, []).append(run)
    return groups


def by_benchmark(runs: Sequence[Run]) -> dict[str, Run]:
    """One run for each benchmark. Raises StoreError naming the folders if one has several."""
    single = {}
    for name, group in group_by_benchmark(runs).items():
        if len(group) > 1:
            folders = ", ".join(str(run.folder) for run in group)
            number = "two" if len(group) == 2 else str(len(group))
            raise StoreError(
                f"There are {number} runs of {name}, and one is needed.",
                f"They are {folders}.",
                "Name the folder of one of them.",
            )
        single[name] = group[0]
    return single
