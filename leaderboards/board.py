"""The board: published rows and runs in one table; what is derived, disputed or measured is told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.store import RunFolder
from bench.types import Metric, scale_of
from leaderboards.published import Figure, derived, disputed, read_published

COLUMNS = (  # column, its heading, the subset of a run's metric
    ("pope.accuracy", "POPE acc", "mean"),
    ("pope.precision", "prec", "mean"),
    ("pope.recall", "recall", "mean"),
    ("pope.f1", "F1", "mean"),
    ("pope.yes_ratio", "yes %", "mean"),
    ("mmhal.score", "MMHal", "all"),
    ("mmhal.hallucination_rate", "hal %", "all"),
    ("chair.chair_s", "CHAIRs", "all"),
    ("chair.chair_i", "CHAIRi", "all"),
    ("chair.recall", "recall", "all"),
    ("objhal.chair_s", "ObjHal s", ""),
    ("objhal.chair_i", "ObjHal i", ""),
    ("amber.chair", "AMBER CHAIR", "generative"),
    ("amber.cover", "Cover", "generative"),
    ("amber.accuracy", "acc", "discriminative"),
)


@dataclass(frozen=True)
class Cell:
    """A value in percent or as a rating; `low` and `high` only where measured, `others` where sources disagree."""

    value: float
    source: str
    low: float = math.nan
    high: float = math.nan
    derived: bool = False
    others: Sequence[Figure] = ()


@dataclass(frozen=True)
class Line:
    """A model with its cells by column; `measured` where they come from runs."""

    model: str
    measured: bool
    cells: Mapping[str, Cell]


class Run(NamedTuple):
    """A finished run: its folder, model, benchmark, record and metrics."""

    folder: Path
    model: str
    benchmark: str
    record: Mapping[str, Any]
    metrics: Sequence[Metric]


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in the folders, and remarks on those that cannot be used."""
    found, remarks = [], []
    for folder in folders:
        files = [folder] if (folder / "run.json").is_file() else [f.parent for f in sorted(folder.glob("**/run.json"))]
        if not files:
            remarks.append(f"{folder} holds no run.")
        for file in files:
            try:
                store = RunFolder(file)
                record = store.record()
                found.append(Run(file, model_name(record), str(record["benchmark"]["name"]), record, store.metrics()))
            except (BenchError, KeyError, TypeError, AttributeError) as error:
                remarks.append(f"{file} was left out: {' '.join(str(error).split())}")
    return found, remarks


def board(folders: Sequence[Path]) -> tuple[list[Line], list[str]]:
    """Published rows, then a row for each run's model; and remarks on runs that could not be read."""
    runs, remarks = read_runs(folders)
    return lines_of(runs), remarks


def lines_of(runs: Sequence[Run]) -> list[Line]:
    """Published rows, then a row for each run's model."""
    return [*_published(), *_measured(runs)]


def _published() -> list[Line]:
    figures = read_published()
    apart = disputed(figures)
    models: dict[str, dict[str, Cell]] = {}
    for figure in [*figures, *derived(figures)]:
        others = [other for other in apart.get((figure.model, figure.column), ()) if other.value != figure.value]
        cell = Cell(figure.value, figure.source, derived=figure.derived, others=others)
        models.setdefault(figure.model, {}).setdefault(figure.column, cell)
    return [Line(name, False, cells) for name, cells in models.items()]


def _measured(runs: Sequence[Run]) -> list[Line]:
    models: dict[str, dict[str, Cell]] = {}
    for run in runs:
        cells = models.setdefault(run.model, {})
        for column, _, subset in COLUMNS:
            for metric in run.metrics:
                same = metric.subset == subset or metric.subset.startswith(f"{subset}:")
                if column == f"{run.benchmark}.{metric.name}" and same:
                    scale = scale_of(metric.unit)
                    value, low, high = (scale * end for end in (metric.value, metric.low, metric.high))
                    cells[column] = Cell(value, str(run.folder), low, high)
    return [Line(name, True, cells) for name, cells in models.items()]


def model_name(record: Mapping[str, Any]) -> str:
    """The model, its adapter by fingerprint where it has one, and what it was asked on where that is not official."""
    model = record["model"]
    adapter = model.get("adapter_sha256")
    data = record["source"]["data"]
    return f"{model['name']}{f' {adapter[:8]}' if adapter else ''}{' on scenes' if data == 'scenes' else ''}"


def as_text(lines: Sequence[Line], remarks: Sequence[str]) -> str:
    """A table for a terminal: * derived, † sources disagree (listed below), ± half of the 95 % interval."""
    shown = [line for line in lines if any(column in line.cells for column, *_ in COLUMNS)]
    used = [item for item in COLUMNS if any(item[0] in line.cells for line in shown)]
    rows = [["model", *(heading for _, heading, _ in used)]]
    rows += [[line.model, *(cell_text(line.cells.get(column)) for column, *_ in used)] for line in shown]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    text = [
        "  ".join(cell.ljust(width) if not place else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip
    text.insert(1, "─" * len(text[0]))
    notes = ["* derived from accuracy and precision on as many yes as no questions; ± half of the 95 % interval"]
    for line in shown:
        for column, heading, _ in used:
            cell = line.cells.get(column)
            if cell and cell.others:
                told = "; ".join(f"{other.value:g} in {other.source}" for other in cell.others)
                notes.append(f"† {line.model}, {heading}: {cell.value:g} in {cell.source}; {told}")
    return "\n".join([*text, "", *notes, *remarks])


def cell_text(cell: Cell | None) -> str:
    """The value as tables show it, with its marks."""
    if cell is None or math.isnan(cell.value):
        return "–"
    spread = "" if math.isnan(cell.low) else f" ±{(cell.high - cell.low) / 2:.1f}"
    return f"{cell.value:.2f}{spread}{'*' * cell.derived}{'†' * bool(cell.others)}"


def as_json(lines: Sequence[Line], remarks: Sequence[str]) -> str:
    """Every cell with its source, for machines."""
    rows = [
        {
            "model": line.model,
            "measured": line.measured,
            "cells": {
                column: {
                    "value": cell.value,
                    "source": cell.source,
                    "derived": cell.derived,
                    **({} if math.isnan(cell.low) else {"low": cell.low, "high": cell.high}),
                    **({"others": [other._asdict() for other in cell.others]} if cell.others else {}),
                }
                for column, cell in line.cells.items()
                if not math.isnan(cell.value)
            },
        }
        for line in lines
    ]
    return json.dumps({"board": rows, "remarks": list(remarks)}, indent=2, ensure_ascii=False)
