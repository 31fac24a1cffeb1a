"""Runs as tables: each benchmark's metrics by model, and the paper's tables with published beside measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.figures import FIGURES, paired, read_scores
from bench.stats import holm
from bench.types import Metric, p_text, scale_of
from leaderboards.board import Run
from leaderboards.compare import Comparison
from leaderboards.compare import Row as Compared
from leaderboards.published import Figure, disputed, read_published
from reports.tables import Cell, Table

BASE, OURS = "LLaVA-1.5-7B", ("LLaVA-1.5-7B + PDS-DPO", "LLaVA-1.5-7B + PDS-DPO-9K")
HIGHER = {"score", "accuracy", "precision", "recall", "f1", "cover", "auc", "cognition", "perception"}
PAPERS = ("table 1", "table 2", "table 3")
FIGURE_OF = {  # the figure whose paired difference tells whether a metric's best value is more than noise
    ("pope", "accuracy"): "POPE accuracy", ("mmhal", "score"): "MMHal score",
    ("mmhal", "hallucination_rate"): "MMHal hallucination rate", ("chair", "chair_s"): "CHAIRs",
    ("chair", "chair_i"): "CHAIRi", ("chair", "recall"): "CHAIR recall", ("amber", "hal"): "AMBER hallucination",
    ("amber", "cover"): "AMBER Cover", ("amber", "accuracy"): "AMBER accuracy",
}  # fmt: skip
WHOLE = ("mean", "all", "generative", "discriminative")  # subsets that stand for the whole benchmark, best first


def whole(run: Run) -> dict[str, Metric]:
    """A run's metrics over the whole benchmark, by name: the mean of its subsets where there is one."""
    chosen: dict[str, Metric] = {}
    for subset in WHOLE:
        for metric in run.metrics:
            if metric.subset == subset or metric.subset.startswith(f"{subset}:"):
                chosen.setdefault(metric.name, metric)
    return chosen


def benchmark_tables(runs: Sequence[Run]) -> list[Table]:
    """A table for each benchmark, a row for each model; the best value is bold where it is better than noise.

    Better than noise: against every other model, paired on the same samples, p below 0.05 after Holm over the table.
    """
    made = []
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        shown = [run for run in runs if run.benchmark == benchmark]
        values = [whole(run) for run in shown]
        names = [name for name in dict.fromkeys(name for row in values for name in row) if name != "unparsed"]
        best = _best(shown)
        rows = [
            [Cell(run.model), *(_cell(row.get(name), run.model == best.get(name)) for name in names)]
            for run, row in zip(shown, values, strict=True)
        ]
        note = (
            "± half of the 95 % interval, clustered by image; bold: better than every other model, p < 0.05 after Holm."
        )
        made.append(Table(benchmark, f"{benchmark}: {len(shown)} models", ["model", *names], rows, (note,)))
    return made


def _cell(metric: Metric | None, bold: bool) -> Cell:
    if metric is None or math.isnan(metric.value):
        return Cell("–")
    scale = scale_of(metric.unit)
    spread = "" if math.isnan(metric.low) else f" ±{scale * (metric.high - metric.low) / 2:.2f}"
    return Cell(f"{scale * metric.value:.2f}{spread}", scale * metric.value, bold)


def _best(runs: Sequence[Run]) -> dict[str, str]:
    """Metric → the model that is better than each other one by more than noise."""
    if len(runs) < 2:
        return {}
    scores = [read_scores(run.folder) for run in runs]
    wins: dict[str, list[tuple[int, int, float]]] = {}  # metric → (winner, loser, p)
    for (bench, metric), figure_name in FIGURE_OF.items():
        if bench != runs[0].benchmark:
            continue
        figure = next(figure for figure in FIGURES if figure.name == figure_name)
        for one, two in combinations(range(len(runs)), 2):
            found = paired(figure, scores[one], scores[two])
            if found:
                second = (found.difference.value > 0) == (figure.better == "higher")
                wins.setdefault(metric, []).append(
                    (two, one, found.difference.p) if second else (one, two, found.difference.p)
                )
    flat = [(metric, *win) for metric, rows in wins.items() for win in rows]
    sure = holm([p for *_, p in flat])
    beaten: dict[tuple[str, int], int] = {}
    for (metric, winner, _, _), p in zip(flat, sure, strict=True):
        if p < 0.05:
            beaten[metric, winner] = beaten.get((metric, winner), 0) + 1
    return {metric: runs[winner].model for (metric, winner), count in beaten.items() if count == len(runs) - 1}


def difference_table(compared: Sequence[Comparison], names: Mapping[Path, str]) -> Table:
    """Every figure of the first runs and of the others on the samples that both scored, with what could be seen."""
    header = ["figure", "model", "samples", "first", "then", "difference", "95 % interval", "p", "detectable"]
    rows = [_difference(row, _named(item.second, names)) for item in compared for row in item.rows]
    notes = [
        "Interval by image; p after Holm over the table, none where neither side is better; detectable: the difference "
        "that so many samples show with 80 % power."
    ]
    return Table("differences", f"Paired differences from {_named(compared[0].first, names)}", header, rows, notes)


def _named(folder: Path, names: Mapping[Path, str]) -> str:
    return names.get(folder, str(folder))  # scores can be compared of a run whose metrics cannot be read


def _difference(row: Compared, model: str) -> list[Cell]:
    item = row.paired
    scale = scale_of(item.figure.unit)
    first, second = scale * item.first.value, scale * item.second.value
    change, low, high = (scale * end for end in item.difference[:3])
    p = "" if math.isnan(row.p_holm) else p_text(row.p_holm)
    return [
        Cell(item.figure.name), Cell(model), Cell(str(item.samples)), Cell(f"{first:.2f}", first),
        Cell(f"{second:.2f}", second), Cell(f"{change:+.2f}", change), Cell(f"{low:+.2f} to {high:+.2f}"),
        Cell(p, row.p_holm), Cell(f"{scale * row.detectable:.2f}", scale * row.detectable),
    ]  # fmt: skip


def paper_tables(runs: Sequence[Run]) -> list[Table]:
    """The paper's tables 1-3: its rows as published, then each run's model and a verdict for every cell.

    A run with an adapter is held against the paper's own row, another one against LLaVA-1.5-7B's.
    """
    published = read_published()
    figures = [figure for figure in published if figure.source.startswith("Synth-Align")]
    doubted = disputed(published)
    made = []
    for number, name in enumerate(PAPERS, 1):
        mine = [figure for figure in figures if f", {name}" in figure.source]
        columns = list(dict.fromkeys(figure.column for figure in mine))
        by_model: dict[str, dict[str, Figure]] = {}
        for figure in mine:
            by_model.setdefault(figure.model, {})[figure.column] = figure
        rows = [
            [Cell(model), *(_published(known[c], (model, c) in doubted) if c in known else Cell("–") for c in columns)]
            for model, known in by_model.items()
        ]
        shown = {key: group for key, group in doubted.items() if key[1] in by_model.get(key[0], {})}
        for model in dict.fromkeys(run.model for run in runs):
            own = [run for run in runs if run.model == model]
            reference = _reference(own[0], by_model)
            cells = [_measured(own, column, by_model[reference].get(column)) for column in columns]
            rows += [[Cell(f"{model}, measured"), *(cell for cell, _ in cells)]]
            rows += [[Cell(f"… against {reference}"), *(Cell(verdict) for _, verdict in cells)]]
        caption = mine[0].source.rpartition(f"{name}: ")[2]
        notes = [
            "Published rows: Synth-Align, arXiv 2412.17417v2. Percent; MMHal ratings 0-6.",
            *_doubts(shown),
            *_warnings(runs),
        ]
        made.append(Table(f"paper-table-{number}", f"Table {number}: {caption}", ["", *columns], rows, notes))
    return made


def _published(figure: Figure, doubted: bool) -> Cell:
    return Cell(f"{figure.value:g}{'†' * doubted}", figure.value)


def _doubts(disputes: Mapping[tuple[str, str], Sequence[Figure]]) -> list[str]:
    """What † stands for."""
    told = [
        f"{model} {column} {', '.join(dict.fromkeys(f'{figure.value:g}' for figure in group))}"
        for (model, column), group in disputes.items()
    ]
    return [f"† Sources disagree, `bench board --json` names them: {'; '.join(told)}."] if told else []


def _reference(run: Run, published: Mapping[str, Any]) -> str:
    if run.record["model"].get("adapter_sha256"):
        return next((name for name in OURS if name in published), BASE)
    return BASE


def _warnings(runs: Sequence[Run]) -> list[str]:
    if any(run.record["source"]["data"] == "scenes" for run in runs):
        return ["Measured on scenes, the built-in world: the verdicts say nothing about the published data."]
    return []


def _measured(runs: Sequence[Run], column: str, published: Figure | None) -> tuple[Cell, str]:
    """A model's own value for a published column, and how it stands to the published one."""
    benchmark, metric = column.split(".")[:2]
    known = {name: m for run in runs if run.benchmark == benchmark for name, m in whole(run).items()}
    found = known.get(metric)
    if found is None or math.isnan(found.value):
        return Cell("–"), "not measured"
    cell = _cell(found, False)
    if published is None:
        return cell, "not published"
    scale = scale_of(found.unit)
    if scale * found.low <= published.value <= scale * found.high:
        return cell, "within"
    better = (cell.value > published.value) == (metric in HIGHER)
    return cell, "better" if better else "worse"


def metric_rows(runs: Sequence[Run]) -> Table:
    """Every metric of every run, a row each."""
    header = ["model", "benchmark", "metric", "subset", "value", "low", "high", "n", "unscored", "unit", "run"]
    rows = [
        [Cell(run.model), Cell(run.benchmark), Cell(m.name), Cell(m.subset), Cell("", m.value), Cell("", m.low),
         Cell("", m.high), Cell(str(m.n)), Cell(str(m.unscored)), Cell(m.unit), Cell(str(run.folder))]
        for run in runs
        for m in run.metrics
    ]  # fmt: skip
    return Table("metrics", "All metrics", header, rows)
