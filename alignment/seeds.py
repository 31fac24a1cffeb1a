"""Recipes over several seeds: a training is a draw too, and one of them may be lucky.

Every value is the mean over the seeds' trainings, σ is the standard deviation between them, and
differences hold both sources of chance, the images and the trainings
(`bench.metrics.paired.paired_over_seeds`). p-values are corrected by Holm over each table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alignment.stages.evaluate import RecipeResults, RunPair
from bench.metrics.paired import Paired, format_change, paired_over_seeds
from bench.runs.run import Run
from bench.stats import holm
from bench.types import Figure, scale_of

RATING_DIGITS, PERCENT_DIGITS = 2, 1


class SeedCell(NamedTuple):
    """A figure of two conditions over seeds."""

    figure: Figure
    column: str  # the recipe, or the control that it is compared with
    paired: Paired
    between: float  # the standard deviation between the seeds' values of the second side


def tables(all_results: Sequence[RecipeResults], controls: Sequence[str] = ()) -> str:
    """Markdown: every recipe against the base, then the first against each control.

    Args:
        all_results: Results of the same seeds for every recipe; the first one is the main one.
        controls: Names of recipes that are controls.
    """
    by_recipe: dict[str, list[RecipeResults]] = {}
    for results in all_results:
        by_recipe.setdefault(results.recipe, []).append(results)
    seeds = sorted({results.seed for results in all_results})
    listed = ", ".join(map(str, seeds))
    cells = []
    for name, group in by_recipe.items():
        cells += _cells(name, [results.runs for results in group])
    parts = [f"Means over seeds {listed}, base → recipe:\n\n{_table(cells)}"]
    main = all_results[0].recipe
    against: list[SeedCell] = []
    for control in controls:
        if control in by_recipe and control != main:
            sides = _seed_by_seed(by_recipe[control], by_recipe[main])
            against += _cells(control, sides)
    if against:
        parts.append(f"Means over seeds {listed}, control → {main}:\n\n{_table(against)}")
    return "\n\n".join(parts) + "\n"


def _seed_by_seed(
    first: Sequence[RecipeResults], second: Sequence[RecipeResults]
) -> list[list[tuple[Run, Run]]]:
    """The aligned runs of two recipes, benchmark by benchmark, of each seed that both have."""
    second_of: Mapping[int, Sequence[RunPair]] = {item.seed: item.runs for item in second}
    sides = []
    for item in first:
        if item.seed in second_of:
            runs = zip(item.runs, second_of[item.seed], strict=True)
            sides.append([(one.aligned, two.aligned) for one, two in runs])
    return sides


def _cells(name: str, sides: Sequence[Sequence[tuple[Run, Run]]]) -> list[SeedCell]:
    """A cell for each figure of each benchmark; of each seed the benchmarks' two runs."""
    cells = []
    for of_benchmark in zip(*sides, strict=True):  # of each seed a pair of runs
        for figure in of_benchmark[0][0].figures:
            scores = [(first.scores, second.scores) for first, second in of_benchmark]
            item = paired_over_seeds(figure, scores)
            if item is None:
                continue
            between = statistics.stdev(item.seeds) if len(item.seeds) > 1 else math.nan
            cells.append(SeedCell(figure, name, item.paired, between))
    return cells


def _table(cells: Sequence[SeedCell]) -> str:
    """A row for each figure, a column for each recipe or control."""
    corrected = holm([cell.paired.difference.p for cell in cells])
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows: dict[str, dict[str, str]] = {}
    for cell, p in zip(cells, corrected, strict=True):
        digits = RATING_DIGITS if cell.figure.unit == "rating" else PERCENT_DIGITS
        item = cell.paired
        change = format_change(
            cell.figure.unit,
            item.first.value,
            item.second.value,
            item.difference[:3],
            p,
            digits,
        )
        spread = f"{scale_of(cell.figure.unit) * cell.between:.{digits}f}"
        p_text = f", p {change.p}" if change.p else ""
        values = f"{change.first} → {change.second} (σ {spread})"
        text = f"{values}, {change.difference} {change.interval}{p_text}"
        rows.setdefault(cell.figure.title, {})[cell.column] = text
    for title, texts in rows.items():
        lines.append([title, *(texts.get(name, "–") for name in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
