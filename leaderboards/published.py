"""What papers and repositories publish: every figure with its source, disagreements kept, implied figures derived.

The tables are leaderboards/published/*.yaml: `source`, and `tables` of `name`, `columns` (benchmark.metric, with a
subset where it is not the whole) and `rows` by model. Percent, ratings, or counts, as published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.errors import BenchError, os_reason

FOLDER = Path(__file__).parent / "published"
PAPER = "synth_align"  # whose figures come first
ROUNDING = 0.05  # figures closer than this are the same one, rounded


class PublishedError(BenchError):
    """A table of published figures that cannot be read."""


class Figure(NamedTuple):
    """A published value; `source` names the document and table, `derived` says that arithmetic gave it."""

    model: str
    column: str
    value: float
    source: str
    derived: bool = False


def read_published(folder: Path = FOLDER) -> list[Figure]:
    """All figures, table after table. Raises PublishedError naming the file that is broken."""
    found: list[Figure] = []
    for file in sorted(folder.glob("*.yaml"), key=lambda file: (file.stem != PAPER, file.name)):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            for table in content["tables"]:
                found += _figures(table, f"{content['source']}, {table['name']}")
        except OSError as error:
            raise PublishedError(f"{file} cannot be read.", f"{os_reason(error)}.", "Check the folder.") from error
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise PublishedError(
                f"{file} is no table of published figures.", f"{type(error).__name__}: {error}.",
                "It needs source and tables of name, columns and rows.",
            ) from error  # fmt: skip
    return found


def _figures(table: Mapping[str, Any], source: str) -> Iterable[Figure]:
    columns: Sequence[str] = table["columns"]
    for model, values in table["rows"].items():
        yield from (
            Figure(str(model), column, float(value), source)
            for column, value in zip(columns, values, strict=True)
            if value is not None
        )


def derived(figures: Sequence[Figure]) -> list[Figure]:
    """Recall, F1 and yes-ratio that POPE's accuracy and precision imply, where the same table gives both and not them.

    With as many yes as no questions, A = (r + 1 - f) / 2 and P = r / (r + f) of recall r and false-positive rate f give
    r = (2A - 1) P / (2P - 1), yes-ratio = r / 2P. Means over subsets make them approximate.
    """
    made = []
    given: dict[tuple[str, str, str], dict[str, float]] = {}
    for figure in figures:
        bench, metric, *part = figure.column.split(".")
        if bench == "pope":
            given.setdefault((figure.model, figure.source, ".".join(part)), {})[metric] = figure.value / 100
    for (model, source, subset), known in given.items():
        if not {"accuracy", "precision"} <= known.keys() or known["precision"] <= 0.5:
            continue
        accuracy, precision = known["accuracy"], known["precision"]
        recall = (2 * accuracy - 1) * precision / (2 * precision - 1)
        if not 0 < recall <= 1:
            continue
        implied = {
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "yes_ratio": recall / (2 * precision),
        }
        tail = f".{subset}" if subset else ""
        made += [
            Figure(model, f"pope.{metric}{tail}", 100 * value, source, derived=True)
            for metric, value in implied.items()
            if metric not in known
        ]
    return made


def disputed(figures: Sequence[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """(model, column) whose published values differ by more than rounding, with all of them."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        if not figure.derived:
            groups.setdefault((figure.model, figure.column), []).append(figure)
    return {
        key: group
        for key, group in groups.items()
        if max(f.value for f in group) - min(f.value for f in group) > 2 * ROUNDING
    }
