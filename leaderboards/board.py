"""The board: published rows and runs in one table.

What is derived, disputed or measured is told apart. Columns are what benchmarks declare for it
(`Figure.heading`), and what is published of benchmarks that are not here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench import registry
from bench.errors import BenchError, UnknownNameError
from bench.files import indented
from bench.runs.labels import give_labels
from bench.runs.run import Run, read_runs
from bench.text_tables import output_width, remark, text_table
from bench.types import CAVEAT, format_spread, scale_of
from leaderboards.published import Published, derived, disputed, read_published


class BoardColumn(NamedTuple):
    """A column of the board: benchmark.metric, and its heading."""

    id: str
    heading: str


# Published figures that no benchmark here measures; they stand behind the benchmark named.
PUBLISHED_ONLY = {
    # By GPT, and over the questions without a figure too.
    "hallusionbench": (
        BoardColumn("hallusionbench-gpt.aacc", "aAcc by GPT"),
        BoardColumn("hallusionbench-gpt.facc", "fAcc by GPT"),
        BoardColumn("hallusionbench-gpt.qacc", "qAcc by GPT"),
    ),
    "repope": (
        BoardColumn("dash-b.accuracy", "DASH-B acc"),
        BoardColumn("dash-b.tnr", "DASH-B TNR"),
        BoardColumn("dash-b.tpr", "DASH-B TPR"),
    ),
}


@dataclass(frozen=True)
class BoardCell:
    """A value in percent or as a rating.

    `low`, `high` and `caveats` are known only if it was measured. `others` are what other sources
    say.
    """

    value: float
    source: str
    low: float = math.nan
    high: float = math.nan
    derived: bool = False
    others: Sequence[Published] = ()
    caveats: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """A model with its cells by column id; `measured` if they come from runs."""

    model: str
    measured: bool
    cells: Mapping[str, BoardCell]


@dataclass(frozen=True)
class Board:
    """The columns in which at least one line has a cell, and the lines."""

    columns: Sequence[BoardColumn]
    lines: Sequence[Line]


def board(folders: Sequence[Path]) -> tuple[Board, list[str]]:
    """Published rows, then a row for each run's model; and remarks on runs left out."""
    runs, remarks = read_runs(folders)
    return board_of(runs), remarks


def board_of(runs: Sequence[Run]) -> Board:
    """Published rows, then a row for each run's model."""
    give_labels(runs)
    columns = _columns(run.benchmark for run in runs)
    lines = []
    for line in [*_published_lines(), *_measured_lines(runs)]:
        if any(column.id in line.cells for column in columns):
            lines.append(line)
    used = []
    for column in columns:
        if any(column.id in line.cells for line in lines):
            used.append(column)
    return Board(used, lines)


def _columns(recorded: Iterable[str]) -> list[BoardColumn]:
    """All columns, those of registered benchmarks first, then those of runs of other ones."""
    columns: dict[str, BoardColumn] = {}
    # In the order of the registry, so that the board looks the same whatever runs stand on it.
    for name in dict.fromkeys([*registry.BENCHMARKS, *registry.names("benchmarks"), *recorded]):
        try:
            figures = registry.benchmark(name).figures
        except BenchError:  # a plugin that cannot be loaded, or a class of benchmarks
            continue
        for figure in figures:
            if figure.heading:
                column = BoardColumn(f"{name}.{figure.metric}", figure.heading)
                columns.setdefault(column.id, column)
        for column in PUBLISHED_ONLY.get(name, ()):
            columns.setdefault(column.id, column)
    return list(columns.values())


def _published_lines() -> list[Line]:
    figures = read_published()
    apart = disputed(figures)
    models: dict[str, dict[str, BoardCell]] = {}
    for figure in [*figures, *derived(figures)]:
        # Sources that disagree are both kept; the first one's value is shown and marked.
        others = []
        for other in apart.get((figure.model, figure.column), ()):
            if other.value != figure.value:
                others.append(other)
        cell = BoardCell(figure.value, figure.source, derived=figure.derived, others=others)
        models.setdefault(figure.model, {}).setdefault(figure.column, cell)
    return [Line(name, False, cells) for name, cells in models.items()]


def _measured_lines(runs: Sequence[Run]) -> list[Line]:
    models: dict[str, dict[str, BoardCell]] = {}
    for run in runs:
        cells = models.setdefault(run.label, {})
        for name, metric in run.whole().items():
            scale = scale_of(metric.unit)
            cells[f"{run.benchmark}.{name}"] = BoardCell(
                scale * metric.value,
                str(run.folder),
                scale * metric.low,
                scale * metric.high,
                caveats=metric.caveats,
            )
    return [Line(name, True, cells) for name, cells in models.items()]


def chosen_columns(table: Board, names: Sequence[str]) -> Board:
    """The board with only these columns, and the lines that have one of them.

    Args:
        table: The board.
        names: Benchmarks (`pope`) or single columns (`pope.accuracy`).

    Raises:
        UnknownNameError: A name is none of them.
    """
    benchmarks = list(dict.fromkeys(map(_benchmark_of, table.columns)))
    ids = [column.id for column in table.columns]
    for name in names:
        if name not in (*benchmarks, *ids):
            raise UnknownNameError(
                f"The board has no column '{name}'.",
                registry.did_you_mean(name, [*benchmarks, *ids])
                or f"It has columns of {', '.join(benchmarks)}, such as {ids[0]}.",
                "Name benchmarks or single columns, with commas between them.",
            )
    columns = []
    for column in table.columns:
        if _benchmark_of(column) in names or column.id in names:
            columns.append(column)
    lines = []
    for line in table.lines:
        cells = {column.id: line.cells[column.id] for column in columns if column.id in line.cells}
        if cells:
            lines.append(replace(line, cells=cells))
    return Board(columns, lines)


def _benchmark_of(column: BoardColumn) -> str:
    return column.id.rpartition(".")[0]


def as_text(table: Board, remarks: Sequence[str]) -> str:
    """A table for each benchmark, of the models that have a figure of it; runs stand below a line.

    * is derived; † says that sources disagree and ‡ that a number has caveats, both listed below;
    ± is half of the 95 % interval.
    """
    width = output_width()
    text = []
    for benchmark in dict.fromkeys(map(_benchmark_of, table.columns)):
        columns = [column for column in table.columns if _benchmark_of(column) == benchmark]
        rows = [[benchmark, *(column.heading for column in columns)]]
        first_measured = 0
        for line in table.lines:
            if any(column.id in line.cells for column in columns):
                if line.measured and not first_measured:
                    first_measured = len(rows)
                cells = [cell_text(line.cells.get(column.id)) for column in columns]
                rows.append([line.model, *cells])
        text += [*text_table(rows, width, (first_measured,)), ""]
    notes = [
        "* derived from accuracy and precision on as many yes as no questions; "
        "± half of the 95 % interval, or [low, high]"
    ]
    for line in table.lines:
        for column in table.columns:
            cell = line.cells.get(column.id)
            if cell and cell.others:
                others = "; ".join(f"{other.value:g} in {other.source}" for other in cell.others)
                notes.append(
                    f"† {line.model}, {column.heading}: {cell.value:g} in {cell.source}; {others}"
                )
    for line in table.lines:
        notes += caveat_notes(line, table.columns)
    for note in [*notes, *remarks]:
        text += remark(note)
    return "\n".join(text)


def caveat_notes(line: Line, columns: Sequence[BoardColumn]) -> list[str]:
    """What ‡ stands for in a line, each caveat with the columns that have it."""
    headings_of: dict[str, list[str]] = {}
    for column in columns:
        cell = line.cells.get(column.id)
        for caveat in cell.caveats if cell else ():
            headings_of.setdefault(caveat, []).append(column.heading)
    notes = []
    for caveat, headings in headings_of.items():
        notes.append(f"{CAVEAT} {line.model}, {', '.join(headings)}: {caveat}")
    return notes


def cell_text(cell: BoardCell | None) -> str:
    """The value as tables show it, with its marks."""
    if cell is None or math.isnan(cell.value):
        return "–"
    spread = format_spread(cell.value, cell.low, cell.high, 1)
    marks = ("*" if cell.derived else "") + ("†" if cell.others else "")
    marks += CAVEAT if cell.caveats else ""
    return f"{cell.value:.2f}{spread}{marks}"


def as_json(table: Board, remarks: Sequence[str]) -> str:
    """Every cell with its source, for machines."""
    lines = []
    for line in table.lines:
        cells = {}
        for column, cell in line.cells.items():
            if not math.isnan(cell.value):
                cells[column] = _cell_object(cell)
        lines.append({"model": line.model, "measured": line.measured, "cells": cells})
    return indented({"board": lines, "remarks": remarks})


def _cell_object(cell: BoardCell) -> dict[str, Any]:
    content: dict[str, Any] = {
        "value": cell.value,
        "source": cell.source,
        "derived": cell.derived,
    }
    if not math.isnan(cell.low):
        content |= {"low": cell.low, "high": cell.high}
    if cell.caveats:
        content["caveats"] = list(cell.caveats)
    if cell.others:
        content["others"] = [other._asdict() for other in cell.others]
    return content
