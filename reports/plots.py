"""Plots as SVG and PNG.

They are safe for colour-blind readers (Okabe-Ito), legible in print, and the same bytes from the
same runs.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from bench.escaping import plot_text
from bench.metrics.paired import Paired
from bench.runs.run import Run, group_by_benchmark
from bench.stats import Floats
from bench.types import CAVEAT, Figure, Metric, caveats_of, scale_of
from leaderboards.compare import Comparison

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#777777"
MARKERS = "osD^vP*"
SPREAD = 0.12  # between the markers of two models
BINS = 10
WHOLE = ("all", "mean")  # subsets that are no part of a benchmark


def save(plot: Plot, folder: Path, name: str) -> list[Path]:
    """Writes NAME.svg and NAME.png without dates or random ids."""
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    # Ids come from a hash with this salt instead of a random one.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        plot.savefig(svg, metadata={"Date": None})
    plot.savefig(png, dpi=150, metadata={"Software": None})
    return [svg, png]


def _open_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _style(number: int) -> dict[str, Any]:
    """Colour and marker of model number `number`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def forest(comparisons: Sequence[Comparison], names: Mapping[Path, str]) -> Plot:
    """Paired differences with their intervals.

    In points (fractions) or as they are (ratings, words).

    Args:
        comparisons: The comparisons.
        names: What models are called, by the run's folder.
    """
    several = len({names[comparison.second] for comparison in comparisons}) > 1
    rows: list[tuple[str, Paired]] = []
    for comparison in comparisons:
        for row in comparison.rows:
            figure = row.paired.figure
            if figure.better != "neither":
                model = f"{names[comparison.second]}: " if several else ""
                mark = f" {CAVEAT}" if comparison.caveats else ""
                rows.append((plot_text(f"{model}{figure.title}{mark}"), row.paired))
    rows.reverse()  # the axis counts from below
    plot = Plot(figsize=(7, 1 + 0.32 * len(rows)), layout="constrained")
    axes = plot.subplots()
    for y, (_, item) in enumerate(rows):
        _draw_difference(axes, y, item)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel(
        "difference in points (ratings as they are), 95 % interval\n"
        "● better, ■ worse, hollow: not more than noise"
    )
    _open_frame(axes)
    return plot


def _draw_difference(axes: Axes, y: int, item: Paired) -> None:
    scale = scale_of(item.figure.unit)
    difference = item.difference
    value, low, high = scale * difference.value, scale * difference.low, scale * difference.high
    is_better = (value > 0) == (item.figure.better == "higher")
    more_than_noise = low > 0 or high < 0
    colour = GREY
    if more_than_noise:
        colour = COLOURS[0] if is_better else COLOURS[1]
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
    axes.plot(
        [value],
        [y],
        "o" if is_better else "s",
        color=colour,
        markerfacecolor=colour if more_than_noise else "white",
    )


class NamedPlot(NamedTuple):
    """A plot and the name of its files."""

    name: str
    plot: Plot


def by_subset(runs: Sequence[Run]) -> list[NamedPlot]:
    """For each benchmark, the figure that it wants plotted over its subsets."""
    plots = []
    for benchmark, members in group_by_benchmark(runs).items():
        for figure in members[0].figures:
            if figure.by_subset:
                plot = _subset_plot(members, figure)
                if plot is not None:
                    name = benchmark.replace(":", "-")
                    plots.append(NamedPlot(f"{name}-by-subset", plot))
    return plots


def _subset_plot(runs: Sequence[Run], figure: Figure) -> Plot | None:
    """One figure by subset, a marker for each model; None if there are no subsets."""
    by_model = [_subset_metrics(run, figure) for run in runs]
    # A limited run may lack a subset that another one has.
    known: dict[str, None] = {}
    for metrics in by_model:
        known |= dict.fromkeys(metrics)
    subsets = list(known)
    if not subsets:
        return None
    plot = Plot(figsize=(1.5 + 1.05 * len(subsets), 3.4), layout="constrained")
    axes = plot.subplots()
    scale = scale_of(figure.unit)
    for number, (run, metrics) in enumerate(zip(runs, by_model, strict=True)):
        # Side by side, or markers would hide each other.
        offset = SPREAD * (number - (len(runs) - 1) / 2)
        x, values, lows, highs = [], [], [], []
        for index, subset in enumerate(subsets):
            if subset in metrics:
                metric = metrics[subset]
                x.append(index + offset)
                values.append(scale * metric.value)
                lows.append(scale * (metric.value - metric.low))
                highs.append(scale * (metric.high - metric.value))
        style = _style(number)
        axes.errorbar(
            x, values, yerr=[lows, highs], linestyle="none", capsize=2, label=_legend(run), **style
        )
    axes.set_xticks(range(len(subsets)), list(map(plot_text, subsets)))
    unit = ", %" if figure.unit == "fraction" else ""
    axes.set_ylabel(plot_text(f"{figure.title}{unit}"))
    axes.legend(fontsize=8, frameon=False)
    _open_frame(axes)
    return plot


def _legend(run: Run) -> str:
    """The model, marked if its numbers have caveats, which the tables beside the figure name."""
    label = plot_text(run.label)
    return f"{label} {CAVEAT}" if caveats_of(run.metrics) else label


def _subset_metrics(run: Run, figure: Figure) -> dict[str, Metric]:
    """A figure's metrics over parts of the benchmark, by subset."""
    metrics = {}
    for metric in run.metrics:
        is_part = metric.subset not in (*WHOLE, figure.subset)
        if metric.name == figure.metric and is_part:
            metrics[metric.subset] = metric
    return metrics


def roc_and_reliability(runs: Sequence[Run]) -> Plot | None:
    """ROC of P(yes) over all questions, and how often the answer is yes at each P(yes).

    None if no run has P(yes) of questions of both kinds.
    """
    curves = []
    for run in runs:
        if any(figure.metric == "auc" for figure in run.figures):
            probabilities, truth = _probabilities(run)
            if 0 < truth.sum() < len(truth):
                curves.append((run, probabilities, truth))
    if not curves:
        return None
    plot = Plot(figsize=(8, 3.8), layout="constrained")
    left, right = plot.subplots(1, 2)
    for number, (run, probabilities, truth) in enumerate(curves):
        style = _style(number)
        left.plot(*_roc(probabilities, truth), color=style["color"], label=_legend(run))
        means, shares = _reliability(probabilities, truth)
        right.plot(means, shares, linestyle="-", label=_legend(run), **style)
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
        axes.legend(fontsize=8, frameon=False)
        _open_frame(axes)
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC of P(yes)")
    right.set(xlabel="mean P(yes)", ylabel="share of yes", title="Reliability of P(yes)")
    return plot


def _roc(probabilities: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """False- and true-positive rates at every threshold, from (0, 0) on."""
    order = np.argsort(-probabilities, kind="stable")
    # Samples of equal P(yes) are one step.
    last_of_tie = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))

    def rate(kind: Floats) -> Floats:
        steps = np.cumsum(kind[order])[last_of_tie] / kind.sum()
        return np.append(0, steps)

    return rate(1 - truth), rate(truth)


def _reliability(probabilities: Floats, truth: Floats) -> tuple[list[float], list[float]]:
    """Mean P(yes) and share of yes of each bin that has samples."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    means, shares = [], []
    for number in np.unique(bins):
        members = bins == number
        means.append(float(probabilities[members].mean()))
        shares.append(float(truth[members].mean()))
    return means, shares


def training(runs: Sequence[Run]) -> Plot | None:
    """Loss, and how often DPO's implicit reward prefers the chosen response.

    Of adapters whose curves are at hand; None if there are none.
    """
    curves: dict[Path, tuple[str, list[dict[str, str]]]] = {}  # file → model, rows
    for run in runs:
        adapter = run.record["source"].get("adapter")
        if adapter:
            file = Path(adapter).parent / "curves.csv"
            if file.is_file() and file not in curves:
                with file.open(newline="") as lines:
                    curves[file] = _legend(run), list(csv.DictReader(lines))
    if not curves:
        return None
    titles = {
        "loss": "training loss",
        "rewards/accuracies": "share of pairs with the better preferred",
    }
    plot = Plot(figsize=(8, 3.4), layout="constrained")
    for axes, (column, title) in zip(plot.subplots(1, 2), titles.items(), strict=True):
        for number, (model, rows) in enumerate(curves.values()):
            steps, values = _curve(rows, column)
            if steps:
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(steps, values, color=colour, linewidth=1, label=model)
        axes.set(xlabel="step", title=title)
        axes.legend(fontsize=8, frameon=False)
        _open_frame(axes)
    return plot


def _curve(rows: Sequence[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    steps, values = [], []
    for row in rows:
        if row.get(column):
            steps.append(int(row["step"]))
            values.append(float(row[column]))
    return steps, values


def _probabilities(run: Run) -> tuple[Any, Any]:
    """P(yes) and labels (1 for yes) of all samples that have both."""
    probabilities, truth = [], []
    for score in run.scores.values():
        if score.unscored is None and score.values.get("p_yes") is not None:
            probabilities.append(score.values["p_yes"])
            truth.append(float(score.values["label"] == "yes"))
    return np.array(probabilities), np.array(truth)
