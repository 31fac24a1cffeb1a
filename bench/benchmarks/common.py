"""What several benchmarks share: reading official files, and metrics from estimates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.stats import Estimate, clustered_mean, labels
from bench.types import Better, Metric, Score, Unit


def read_rows(file: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON array or a JSON-lines file, whichever it is.

    Raises DataError naming the line or item that is truncated, not JSON, or lacks a field of `required`.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read.", f"{error}.", "Restore the file from its source.") from error
    rows = _array(file, text) if text.lstrip().startswith("[") else _lines(file, text)
    if not rows:
        raise DataError(f"{file} is empty.", "It holds no question.", "Restore the file from its source.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{file}: item {number} is no JSON object.", f"It is {row!r:.60}.", "Restore the file from its source."
            )
        missing = [name for name in required if row.get(name) is None]
        if missing:
            raise DataError(
                f"{file}: item {number} has no {', '.join(missing)}.",
                "Every item needs " + ", ".join(required) + ".",
                "Complete the item or restore the file from its source.",
            )
    return rows


def _array(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{file} is truncated or corrupt.", f"It is not JSON: {error}.", "Restore the file from its source."
        ) from error
    return list(rows)


def _lines(file: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{file} is truncated or corrupt in line {number}.",
                f"The line is not JSON: {error}.",
                "Restore the file from its source.",
            ) from error
    return rows


def metric(
    name: str, subset: str, estimate: Estimate, scores: Sequence[Score], better: Better, unit: Unit = "fraction"
) -> Metric:
    """A Metric over `scores` (those of the subset, unscored ones included)."""
    unscored = sum(score.unscored is not None for score in scores)
    value, low, high = map(float, estimate)
    return Metric(name, subset, value, low, high, len(scores) - unscored, unscored, better, unit)


def count(name: str, subset: str, value: int, scores: Sequence[Score], better: Better = "lower") -> Metric:
    """A counted figure: no interval."""
    return metric(name, subset, Estimate(float(value), np.nan, np.nan), scores, better, "count")


def mean_of(scores: Sequence[Score], key: str, bounds: tuple[float, float] | None = (0, 1)) -> Estimate:
    """Clustered mean of one value over the scored of `scores`."""
    scored = [score for score in scores if score.unscored is None]
    values = np.array([float(score.values[key]) for score in scored])
    return clustered_mean(values, labels([score.cluster for score in scored]), bounds)


def by_subset(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Scores grouped by subset, in order of first appearance."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.subset, []).append(score)
    return groups
