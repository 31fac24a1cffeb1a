"""Runs as tables: metrics by model, paired differences, and the paper's tables with verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from bench.errors import UnknownNameError
from bench.files import without_surrogates
from bench.metrics.paired import change_of, paired
from bench.metrics.seeds import alike
from bench.runs.run import Run, group_by_benchmark
from bench.stats import holm
from bench.types import CAVEAT, Better, Metric, caveats_of, format_value, scale_of
from leaderboards.compare import SIGNIFICANT, Comparison
from leaderboards.compare import Row as Compared
from leaderboards.published import Published, disputed, measured_by, read_published
from reports.tables import INTERVAL, Cell, Table

BASE = "LLaVA-1.5-7B"
OURS = ("LLaVA-1.5-7B + PDS-DPO", "LLaVA-1.5-7B + PDS-DPO-9K")
PAPERS = ("table 1", "table 2", "table 3")
EMPTY = Cell("–")
Best = Mapping[str, Mapping[str, Run]]  # benchmark → metric → run
BOLD = "bold: better than every other model, p < 0.05 after Holm over all figures of these runs"
INTERVALS = "± half of the 95 % interval, or [low, high], clustered by image"


def best_runs(runs: Sequence[Run]) -> Best:
    """For each benchmark and metric the run that is better than every other by more than noise.

    Paired on the same samples, p below 0.05 after Holm over all figures and pairs of runs, so that
    nothing is bold that the differences beside it call noise.
    """
    wins: list[tuple[str, str, Run, float]] = []  # benchmark, metric, winner, p
    groups = group_by_benchmark(runs)
    for benchmark, members in groups.items():
        for metric, winner, p in _wins(members):
            wins.append((benchmark, metric, winner, p))
    p_values = holm([p for *_, p in wins])
    beaten: dict[tuple[str, str], list[Run]] = {}  # the winner of each clear comparison
    for (benchmark, metric, winner, _), p in zip(wins, p_values, strict=True):
        if p < SIGNIFICANT:
            beaten.setdefault((benchmark, metric), []).append(winner)
    best: dict[str, dict[str, Run]] = {name: {} for name in groups}
    # The best one has to win against each other, not only against the runner-up.
    for (benchmark, metric), winners in beaten.items():
        members = groups[benchmark]
        for run in members:
            if sum(winner is run for winner in winners) == len(members) - 1:
                best[benchmark][metric] = run
    return best


def benchmark_tables(runs: Sequence[Run], best: Best) -> list[Table]:
    """A table for each benchmark, a row for each model; the best value is bold (`best_runs`)."""
    tables = []
    for benchmark, members in group_by_benchmark(runs).items():
        tables.append(_benchmark_table(benchmark, members, best[benchmark]))
    return tables


def _benchmark_table(benchmark: str, runs: Sequence[Run], best: Mapping[str, Run]) -> Table:
    metrics = list(map(shown_metrics, runs))
    names: dict[str, None] = {}
    for by_name in metrics:
        names |= dict.fromkeys(by_name)
    columns = [[Cell(run.label) for run in runs]]
    for name in names:
        of_runs = [by_name.get(name) for by_name in metrics]
        columns.append(_metric_cells(of_runs, [best.get(name) is run for run in runs]))
    rows = list(zip(*columns, strict=True))
    note = f"{INTERVALS}; {BOLD}."
    notes = [note, *caveat_notes(runs)]
    caveats = ["; ".join(caveats_of(by_name.values())) for by_name in metrics]
    better: list[Better] = ["neither"]
    titles = ["model"]
    for name in names:
        better.append(next(by_name[name].better for by_name in metrics if name in by_name))
        titles.append(metric_title(runs[0], name))
    caption = f"{runs[0].title}: {_models_and_samples(runs)}"
    return Table(benchmark, caption, ["model", *names], rows, notes, caveats, better, titles)


def metric_title(run: Run, name: str) -> str:
    """What people call a metric: its figure's title, or its name in words."""
    titles = {figure.metric: figure.title for figure in run.figures}
    return titles.get(name, name.replace("_", " "))


def _models_and_samples(runs: Sequence[Run]) -> str:
    """Such as "2 models on 500 samples", of which some may be unscored."""
    samples = sorted({len(run.scores) for run in runs})
    models = runs[0].label if len(runs) == 1 else f"{len(runs)} models"
    counts = " to ".join(f"{count:,}" for count in dict.fromkeys((samples[0], samples[-1])))
    return f"{models} on {counts} samples"


def overview_table(runs: Sequence[Run], best: Best, benchmarks: Sequence[str] = ()) -> Table:
    """The figures of the board, a row for each model: what a paper's main table shows.

    Args:
        runs: The runs.
        best: Of `best_runs`.
        benchmarks: Whose figures, in this order; empty for all that the runs are of.

    Raises:
        UnknownNameError: There is no run of one of the benchmarks.
    """
    groups = group_by_benchmark(runs)
    for name in benchmarks:
        if name not in groups:
            raise UnknownNameError(
                f"There is no run of '{name}'.",
                f"The runs are of {', '.join(groups)}.",
                "Name some of these benchmarks.",
            )
    header, better = ["model"], ["neither"]  # type: tuple[list[str], list[Better]]
    cells_of: dict[str, dict[str, Cell]] = {run.label: {} for run in runs}
    notes: list[str] = []
    caveats: dict[str, list[str]] = {run.label: [] for run in runs}
    for benchmark in benchmarks or groups:
        members = groups[benchmark]
        whole_of = {run.folder: run.whole() for run in members}
        for figure in members[0].figures:
            if not figure.heading:
                continue
            header.append(figure.title)
            better.append(figure.better)
            of_runs = [whole_of[run.folder].get(figure.metric) for run in members]
            is_best = [best[benchmark].get(figure.metric) is run for run in members]
            for run, cell in zip(members, _metric_cells(of_runs, is_best), strict=True):
                cells_of[run.label][figure.title] = cell
        for run in members:
            known = caveats_of(whole_of[run.folder].values())
            caveats[run.label] += [f"{benchmark}: {caveat}" for caveat in known]
        notes += [f"{note} ({members[0].title})" for note in caveat_notes(members)]
    rows, row_caveats = [], []
    for model, cells in cells_of.items():
        if cells:
            rows.append([Cell(model), *(cells.get(title, EMPTY) for title in header[1:])])
            row_caveats.append("; ".join(caveats[model]))
    notes.insert(0, f"{INTERVALS}; {BOLD}.")
    titles = [groups[name][0].title for name in benchmarks or groups]
    caption = f"Main figures of {', '.join(titles)}"
    return Table("overview", caption, header, rows, notes, row_caveats, better)


def caveat_notes(runs: Sequence[Run]) -> list[str]:
    """What ‡ stands for: each caveat with the models, and their metrics unless all have it."""
    models_of: dict[tuple[str, str], list[str]] = {}  # caveat, metrics → models
    for run in runs:
        metrics = shown_metrics(run)
        for caveat in caveats_of(metrics.values()):
            names = []
            for name, metric in metrics.items():
                if caveat in metric.caveats:
                    names.append(metric_title(run, name))
            which = "" if len(names) == len(metrics) else f", {', '.join(names)}"
            models_of.setdefault((caveat, which), []).append(run.label)
    notes = []
    for (caveat, which), models in models_of.items():
        is_of_all = len(models) == len(runs) > 1
        named = "all models" if is_of_all else ", ".join(models)
        notes.append(f"{CAVEAT} {named}{which}: {caveat}.")
    return notes


def shown_metrics(run: Run) -> dict[str, Metric]:
    """The metrics that stand for the whole benchmark, and counts that are not 0."""
    shown = run.whole()
    for metric in run.metrics:
        is_fault_count = metric.unit == "count" and metric.better == "lower"
        if is_fault_count and metric.subset == "all" and metric.value:
            shown.setdefault(metric.name, metric)
    return shown


def _metric_cells(metrics: Sequence[Metric | None], bold: Sequence[bool]) -> list[Cell]:
    """A column: if one value's interval is not symmetric, all show both ends."""
    bracketed = any("[" in format_value(metric) for metric in metrics if metric is not None)
    cells = []
    for metric, is_bold in zip(metrics, bold, strict=True):
        cells.append(_metric_cell(metric, is_bold, bracketed))
    return cells


def _metric_cell(metric: Metric | None, bold: bool, bracketed: bool = False) -> Cell:
    if metric is None or math.isnan(metric.value):
        return EMPTY
    mark = CAVEAT if metric.caveats else ""
    scale = scale_of(metric.unit)
    return Cell(
        f"{format_value(metric, bracketed)}{mark}",
        scale * metric.value,
        bold,
        scale * metric.low,
        scale * metric.high,
        metric.n,
    )


def _wins(runs: Sequence[Run]) -> Iterator[tuple[str, Run, float]]:
    """(metric, the better run, p) for each figure and pair of a benchmark's runs."""
    for figure in runs[0].figures:
        if figure.better == "neither":
            continue
        for one, other in combinations(runs, 2):
            item = paired(figure, *alike(one.scored, other.scored))
            if item is not None:
                other_wins = _is_better(item.difference.value, figure.better)
                yield figure.metric, other if other_wins else one, item.difference.p


def _is_better(difference: float, better: Better) -> bool:
    return (difference > 0) == (better == "higher")


def relabelled_table(runs: Sequence[Run]) -> Table | None:
    """POPE and RePOPE side by side: F1 under both labels, and the models' ranks under each.

    None if no model has both.
    """
    pairs: list[tuple[str, Metric, Metric]] = []
    by_benchmark = group_by_benchmark(runs)
    corrected = {run.label: run for run in by_benchmark.get("repope", ())}
    for run in by_benchmark.get("pope", ()):
        if run.label in corrected:
            before = run.whole().get("f1")
            after = corrected[run.label].whole().get("f1")
            if before is not None and after is not None:
                pairs.append((run.label, before, after))
    if not pairs:
        return None
    ranks_before = _ranks([before.value for _, before, _ in pairs])
    ranks_after = _ranks([after.value for _, _, after in pairs])
    rows = []
    for (label, before, after), rank, new_rank in zip(
        pairs, ranks_before, ranks_after, strict=True
    ):
        change = 100 * (after.value - before.value)
        moved = rank - new_rank
        arrow = f" ({'↑' if moved > 0 else '↓'}{abs(moved)})" if moved else ""
        rows.append(
            [
                Cell(label),
                _metric_cell(before, False),
                _metric_cell(after, False),
                Cell(f"{change:+.2f}", change),
                Cell(str(rank)),
                Cell(f"{new_rank}{arrow}"),
            ]
        )
    header = ["model", "POPE F1", "RePOPE F1", "change", "rank", "rank under RePOPE"]
    notes = [
        "RePOPE: POPE's questions with corrected labels, ambiguous ones left out (arXiv "
        "2504.15707). Mean F1 of the three subsets; ranks among these models."
    ]
    return Table("pope-and-repope", "POPE and RePOPE", header, rows, notes)


def _ranks(values: Sequence[float]) -> list[int]:
    """1 for the highest; equal values share a rank."""
    ranks = []
    for value in values:
        better = [other for other in values if other > value]
        ranks.append(1 + len(better))
    return ranks


def difference_table(comparisons: Sequence[Comparison], names: Mapping[Path, str]) -> Table:
    """Every figure of the first runs and of the others, with what could be seen.

    Args:
        comparisons: The comparisons.
        names: What models are called, by the run's folder.
    """
    header = [
        "figure",
        "model",
        "samples",
        "first",
        "then",
        "difference",
        INTERVAL,
        "p",
        "detectable",
    ]
    first = names[comparisons[0].first]
    others = {names[comparison.second] for comparison in comparisons}
    titles_of = {"first": first, "then": others.pop() if len(others) == 1 else "the model"}
    titles = [titles_of.get(heading, heading) for heading in header]
    rows = []
    row_caveats = []
    for comparison in comparisons:
        model = names[comparison.second]
        rows += [_difference_row(row, model) for row in comparison.rows]
        known = [f"{names[side]}: {caveat}" for side, caveat in comparison.caveats]
        row_caveats += ["; ".join(known)] * len(comparison.rows)
    notes = [
        "Interval by image; p after Holm over the table, none where neither side is better; "
        "detectable: the difference that so many samples show with 80 % power."
    ]
    notes += [f"{CAVEAT} {text}." for text in told_once(comparisons, names)]
    caption = f"Paired differences from {first}"
    return Table("differences", caption, header, rows, notes, row_caveats, (), titles)


def told_once(comparisons: Sequence[Comparison], names: Mapping[Path, str]) -> list[str]:
    """Each caveat of the compared runs, with those that it is of.

    Args:
        comparisons: The comparisons.
        names: What models are called, by the run's folder.
    """
    models_of: dict[tuple[str, str], dict[str, None]] = {}  # benchmark, caveat → models
    all_of: dict[str, dict[str, None]] = {}  # benchmark → models
    for comparison in comparisons:
        both = (names[comparison.first], names[comparison.second])
        all_of.setdefault(comparison.benchmark, {}).update(dict.fromkeys(both))
        for side, caveat in comparison.caveats:
            models_of.setdefault((comparison.benchmark, caveat), {})[names[side]] = None
    texts = []
    for (benchmark, caveat), models in models_of.items():
        named = "all models" if len(models) == len(all_of[benchmark]) else ", ".join(models)
        texts.append(f"{named}, {benchmark}: {caveat}")
    return texts


def _difference_row(row: Compared, model: str) -> list[Cell]:
    item = row.paired
    scale = scale_of(item.figure.unit)
    change = change_of(item, row.p_holm)
    low, high = scale * item.difference.low, scale * item.difference.high
    detectable = scale * row.detectable
    return [
        Cell(item.figure.title),
        Cell(model),
        Cell(str(item.samples)),
        Cell(change.first, scale * item.first.value),
        Cell(change.second, scale * item.second.value),
        Cell(change.difference, scale * item.difference.value, False, low, high),
        Cell(change.interval),
        Cell(change.p, row.p_holm),
        Cell(f"{detectable:.2f}" if math.isfinite(detectable) else "–", detectable),
    ]


def paper_tables(runs: Sequence[Run]) -> list[Table]:
    """The paper's tables 1-3: its rows as published, then each run's model with verdicts.

    A run with an adapter is held against the paper's own row, another one against LLaVA-1.5-7B's.
    """
    published = read_published()
    paper = []
    for figure in published:
        if figure.source.startswith("Synth-Align"):
            paper.append(figure)
    doubted = disputed(published)
    tables = []
    for number, name in enumerate(PAPERS, 1):
        # A source ends in the name of its table.
        figures = []
        for figure in paper:
            if f", {name}" in figure.source:
                figures.append(figure)
        tables.append(_paper_table(number, name, figures, doubted, runs))
    return tables


def _paper_table(
    number: int,
    name: str,
    figures: Sequence[Published],
    doubted: Mapping[tuple[str, str], Sequence[Published]],
    runs: Sequence[Run],
) -> Table:
    columns = list(dict.fromkeys(figure.column for figure in figures))
    by_model: dict[str, dict[str, Published]] = {}
    for figure in figures:
        by_model.setdefault(figure.model, {})[figure.column] = figure
    rows = []
    for model, known in by_model.items():
        cells = [Cell(model)]
        for column in columns:
            cells.append(_published_cell(known.get(column), (model, column) in doubted))
        rows.append(cells)
    caveats = [""] * len(rows)
    for model in dict.fromkeys(run.label for run in runs):
        own = [run for run in runs if run.label == model]
        reference = _reference(own[0], by_model)
        measured = [Cell(f"{model}, measured")]
        verdicts = [Cell(f"… against {reference}")]
        for column in columns:
            cell, verdict = _measured_cell(own, column, by_model[reference].get(column))
            measured.append(cell)
            verdicts.append(Cell(verdict))
        rows += [measured, verdicts]
        text = "; ".join(caveats_of(metric for run in own for metric in run.whole().values()))
        caveats += [text, text]
    notes = ["Published rows: Synth-Align, arXiv 2412.17417v2. Percent; MMHal ratings 0-6."]
    in_table = {}
    for (model, column), group in doubted.items():
        if column in by_model.get(model, {}):
            in_table[model, column] = group
    notes += _dispute_notes(in_table)
    notes += _warnings(runs)
    for run in runs:
        is_column = any(measured_by(column)[0] == run.benchmark for column in columns)
        notes += [f"{note} ({run.title})" for note in caveat_notes([run]) if is_column]
    what = figures[0].source.rpartition(f"{name}: ")[2]
    title = f"{what[:1].upper()}{what[1:]}, published in Synth-Align's {name} and measured"
    return Table(f"paper-table-{number}", title, ["", *columns], rows, notes, caveats)


def _published_cell(figure: Published | None, doubted: bool) -> Cell:
    if figure is None:
        return EMPTY
    return Cell(f"{figure.value:g}{'†' if doubted else ''}", figure.value)


def _dispute_notes(disputes: Mapping[tuple[str, str], Sequence[Published]]) -> list[str]:
    """What † stands for."""
    parts = []
    for (model, column), group in disputes.items():
        values = dict.fromkeys(f"{figure.value:g}" for figure in group)
        parts.append(f"{model} {column} {', '.join(values)}")
    if not parts:
        return []
    return [f"† Sources disagree, `bench board --json` names them: {'; '.join(parts)}."]


def _reference(run: Run, published: Mapping[str, object]) -> str:
    """The paper's row that a run is held against."""
    if run.record["model"].get("adapter_sha256"):
        for name in OURS:
            if name in published:
                return name
    return BASE


def _warnings(runs: Sequence[Run]) -> list[str]:
    if any(run.record["source"]["data"] == "scenes" for run in runs):
        return [
            "Measured on scenes, the built-in world: the verdicts say nothing about the published "
            "data."
        ]
    return []


def _measured_cell(
    runs: Sequence[Run], column: str, published: Published | None
) -> tuple[Cell, str]:
    """A model's own value for a published column, and how it stands to the published one."""
    benchmark, name = measured_by(column)
    metric = None
    for run in runs:
        if run.benchmark == benchmark:
            metric = _whole_metric(run, name) or metric
    if metric is None or math.isnan(metric.value):
        return EMPTY, "not measured"
    cell = _metric_cell(metric, False)
    if published is None:
        return cell, "not published"
    scale = scale_of(metric.unit)
    mark = CAVEAT if metric.caveats else ""
    if math.isnan(metric.low):  # one image says nothing about others
        return cell, f"no interval{mark}"
    # A published value has no interval of its own, so only the measured one's counts.
    if scale * metric.low <= published.value <= scale * metric.high:
        return cell, f"within{mark}"
    is_better = _is_better(cell.value - published.value, metric.better)
    return cell, f"{'better' if is_better else 'worse'}{mark}"


def _whole_metric(run: Run, name: str) -> Metric | None:
    """A run's metric over the whole benchmark, also one that is no figure to compare by.

    How a task of lmms-eval sums up is known to its own code only.
    """
    known = run.whole().get(name)
    for metric in run.metrics:
        if known is None and metric.name == name and metric.subset == "all":
            known = metric
    return known


def metrics_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Every metric of every run, a row each; values are fractions, ratings or counts."""
    rows = []
    for run in runs:
        for metric in run.metrics:
            rows.append(
                {
                    "model": run.label,
                    "benchmark": run.benchmark,
                    "metric": metric.name,
                    "subset": metric.subset,
                    "value": metric.value,
                    "low": metric.low,
                    "high": metric.high,
                    "between seeds": metric.between_seeds,
                    "n": metric.n,
                    "unscored": metric.unscored,
                    "cut off": metric.cut_off,
                    "unit": metric.unit,
                    "run": str(run.folder),
                    "caveats": "; ".join(metric.caveats),
                }
            )
    return pd.DataFrame(without_surrogates(rows))  # a path may hold bytes that are no text
