"""Plots as SVG and PNG, legible in print, and the same bytes from the same runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from bench.escaping import plot_text
from bench.metrics.paired import change_of
from bench.plot_style import COLOURS, GREY, dashes, legend_below, open_frame, style
from bench.runs.run import Run, group_by_benchmark
from bench.stats import Floats
from bench.training_curves import training_curves
from bench.types import CAVEAT, Figure, Metric, caveats_of, scale_of
from leaderboards.compare import Comparison, Row, gain, verdict

SPREAD = 0.12  # between the markers of two models
BINS = 10
YES = 0.5  # P(yes) from which on the answer is yes
NEARLY_ALL = 0.99  # of the true-positive rate, up to which the ROC is drawn
AXES = {
    "fraction": "percentage points",
    "rating": "points of the rating",
    "amount": "as counted",
    "count": "as counted",
}
WHOLE = ("all", "mean")  # subsets that are no part of a benchmark


def save(plot: Plot, folder: Path, name: str) -> list[Path]:
    """Writes NAME.svg and NAME.png without dates or random ids."""
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    # Ids come from a hash with this salt instead of a random one.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        plot.savefig(svg, metadata={"Date": None})
    plot.savefig(png, dpi=150, metadata={"Software": None})
    return [svg, png]


class Effect(NamedTuple):
    """A line of the forest: a difference, or a heading above those of several models."""

    name: str
    row: Row | None = None

    @property
    def text(self) -> str:
        """The change and its interval, with their signs."""
        if self.row is None:
            return ""
        change = change_of(self.row.paired, self.row.p_holm)
        text = f"{change.first} → {change.second}   {change.difference} {change.interval}"
        return text.replace("-", "−")


def forest(comparisons: Sequence[Comparison], names: Mapping[Path, str]) -> Plot:
    """Paired differences with their intervals, a panel for each unit, to the right better.

    Args:
        comparisons: The comparisons.
        names: What models are called, by the run's folder.
    """
    several = len({names[comparison.second] for comparison in comparisons}) > 1
    by_unit: dict[str, dict[str, list[Effect]]] = {}  # unit → figure → its differences
    for comparison in comparisons:
        mark = f" {CAVEAT}" if comparison.caveats else ""
        for row in comparison.rows:
            figure = row.paired.figure
            if figure.better != "neither" and math.isfinite(row.paired.difference.low):
                name = f"{names[comparison.second] if several else figure.title}{mark}"
                by_figure = by_unit.setdefault(figure.unit, {})
                by_figure.setdefault(figure.title, []).append(Effect(plot_text(name), row))
    panels: dict[str, list[Effect]] = {}
    for unit, by_figure in by_unit.items():
        panels[unit] = []
        for title, effects in by_figure.items():
            # A figure is named once, its models below it.
            panels[unit] += [Effect(plot_text(title))] if several else []
            panels[unit] += effects
    heights = [len(effects) + 1.5 for effects in panels.values()]
    plot = Plot(figsize=(9, 0.9 + 0.3 * sum(heights)), layout="constrained")
    if not panels:
        return plot
    all_axes = plot.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (unit, effects) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, AXES[unit], effects)
    first, second = names[comparisons[0].first], names[comparisons[0].second]
    title = f"{first} → {'others' if several else second}"
    plot.suptitle(plot_text(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
    explained = "95 % intervals; ● better, ■ worse, after Holm's correction; ○ no more than noise"
    if any(comparison.caveats for comparison in comparisons):
        explained += f"; {CAVEAT} has caveats, listed beside the tables"
    plot.supxlabel(explained, fontsize=9)
    return plot


def _draw_panel(axes: Axes, unit: str, effects: Sequence[Effect]) -> None:
    """The effects of one unit, from above to below, their numbers on the right."""
    axes.annotate(
        "← worse   better →",
        (0, 1),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=8,
    )
    drawn = [(y, effect.row) for y, effect in enumerate(effects) if effect.row is not None]
    for y, row in drawn:
        value, low, high = gain(row)
        said = verdict(row)
        colour = {"better": COLOURS[0], "worse": COLOURS[1]}.get(said, GREY)
        axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
        axes.plot(
            [value],
            [y],
            "s" if said == "worse" else "o",
            color=colour,
            markerfacecolor="white" if said == "noise" else colour,
        )
        axes.annotate(
            effects[y].text,
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(effects)), [effect.name for effect in effects], fontsize=9)
    for label, effect in zip(axes.get_yticklabels(), effects, strict=True):
        if effect.row is None:
            label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(effects) - 0.4, -0.6)  # the axis counts from below
    end = 1.08 * max(abs(edge) for _, row in drawn for edge in gain(row))
    axes.set_xlim(-end or -1, end or 1)
    # A difference for the worse stands on the left, whatever its sign.
    axes.xaxis.set_major_formatter(lambda x, _: f"{abs(x):g}")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(unit, fontsize=8, loc="right")
    open_frame(axes)


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
    for number, (run, metrics) in enumerate(zip(runs, by_model, strict=True)):
        # Side by side, or markers would hide each other.
        offset = SPREAD * (number - (len(runs) - 1) / 2)
        x, values, lows, highs = [], [], [], []
        for index, subset in enumerate(subsets):
            if subset in metrics:
                value, below, above = _ends(metrics[subset])
                x.append(index + offset)
                values.append(value)
                lows.append(below)
                highs.append(above)
        axes.errorbar(
            x,
            values,
            yerr=[lows, highs],
            linestyle="none",
            capsize=2,
            label=_legend(run),
            **style(number),
        )
    axes.set_xticks(range(len(subsets)), list(map(plot_text, subsets)))
    axes.set_xlim(-0.5, len(subsets) - 0.5)
    axes.set_ylabel(plot_text(f"{figure.title}{_percent(figure.unit)}"))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    open_frame(axes)
    legend_below(plot, axes)
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


def beside_what_is_said(runs: Sequence[Run]) -> list[NamedPlot]:
    """Rates of hallucination over the metric without which they mislead, such as recall.

    A plot for each figure that declares one, if two models have both.
    """
    plots = []
    for benchmark, members in group_by_benchmark(runs).items():
        for figure in members[0].figures:
            if figure.beside is not None:
                plot = _beside_plot(members, figure, figure.beside)
                if plot is not None:
                    name = f"{benchmark}-{figure.metric}-and-{figure.beside}"
                    plots.append(NamedPlot(name.replace(":", "-"), plot))
    return plots


def _beside_plot(runs: Sequence[Run], figure: Figure, beside: str) -> Plot | None:
    points = []
    for run in runs:
        whole = run.whole()
        if figure.metric in whole and beside in whole:
            points.append((run, whole[beside], whole[figure.metric]))
    if len(points) < 2:
        return None
    plot = Plot(figsize=(5.2, 4.2), layout="constrained")
    axes = plot.subplots()
    for number, (run, said, false) in enumerate(points):
        x, below, above = _ends(said)
        y, under, over = _ends(false)
        axes.errorbar(
            [x],
            [y],
            xerr=[[below], [above]],
            yerr=[[under], [over]],
            linestyle="none",
            capsize=2,
            label=_legend(run),
            **style(number),
        )
    title = next((other.title for other in runs[0].figures if other.metric == beside), beside)
    axes.set_xlabel(plot_text(f"{title}{_percent(points[0][1].unit)} →"))
    axes.set_ylabel(plot_text(f"← {figure.title}{_percent(figure.unit)}"))
    axes.set_title("best: below, right", fontsize=9, loc="right")
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    open_frame(axes)
    legend_below(plot, axes)
    return plot


def _ends(metric: Metric) -> tuple[float, float, float]:
    """The value as shown, and how far its interval reaches below and above."""
    scale = scale_of(metric.unit)
    value = scale * metric.value
    if math.isnan(metric.low):
        return value, 0.0, 0.0
    return value, value - scale * metric.low, scale * metric.high - value


def _percent(unit: str) -> str:
    return ", %" if unit == "fraction" else ""


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
    plot = Plot(figsize=(9, 4.2), layout="constrained")
    panels = plot.subplot_mosaic("AB;AC", height_ratios=(4, 1), width_ratios=(1, 1))
    left, right, counts = panels["A"], panels["B"], panels["C"]
    edges = list(np.linspace(0, 1, BINS + 1))
    zoom = Zoom()
    for number, (run, probabilities, truth) in enumerate(curves):
        look = style(number)
        false_positives, true_positives = _roc(probabilities, truth)
        zoom = zoom.over(false_positives, true_positives)
        left.step(
            false_positives,
            true_positives,
            where="post",
            color=look["color"],
            linestyle=dashes(number),
            label=f"{_legend(run)}{_auc(run)}",
        )
        said_yes = probabilities >= YES
        false_alarms, hits = said_yes[truth == 0].mean(), said_yes[truth == 1].mean()
        zoom = Zoom(max(zoom.right, 1.1 * false_alarms), min(zoom.bottom, hits))
        left.plot(false_alarms, hits, **look)
        means, shares = _reliability(probabilities, truth)
        right.plot(means, shares, linestyle=dashes(number), **look)
        outline = {"color": look["color"], "linestyle": dashes(number)}
        counts.hist(probabilities, edges, histtype="step", **outline)
    right.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    margin = 0.03
    left.set_xlim(-margin * zoom.right, zoom.right)
    left.set_ylim(zoom.bottom - margin * (1 - zoom.bottom), 1 + margin * (1 - zoom.bottom))
    left.set(xlabel="false-positive rate", ylabel="true-positive rate")
    left.set_title("ROC of P(yes), part of it; markers: at P(yes) 0.5", fontsize=10)
    right.set(ylabel="share of yes", xlim=(-0.02, 1.02))
    right.set_title("Reliability of P(yes)", fontsize=10)
    right.tick_params(labelbottom=False)
    counts.set(xlabel="P(yes)", ylabel="questions", yscale="log", xlim=(-0.02, 1.02))
    for axes in (left, right, counts):
        open_frame(axes)
    legend_below(plot, left)
    return plot


class Zoom(NamedTuple):
    """The corner of the ROC in which curves differ: up to `right`, from `bottom` on."""

    right: float = 0.05
    bottom: float = 0.95

    def over(self, false_positives: Floats, true_positives: Floats) -> Zoom:
        """Large enough for this curve too."""
        right = float(false_positives[np.argmax(true_positives >= NEARLY_ALL)])
        bottom = float(np.interp(0.01, false_positives, true_positives))
        return Zoom(min(1.0, max(self.right, 1.1 * right)), min(self.bottom, bottom))


def _auc(run: Run) -> str:
    """The recorded AUC; nothing where P(yes) ranks nothing, and none is given."""
    metric = run.whole().get("auc")
    if metric is None or math.isnan(metric.value):
        return ""
    return f", AUC {scale_of(metric.unit) * metric.value:.2f}"


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
    """Loss, and DPO's implicit reward: how often and by how much the chosen response has more.

    Of adapters whose curves are at hand; None if there are none.
    """
    curves: dict[Path, tuple[str, pd.DataFrame]] = {}  # file → model, rows
    for run in runs:
        adapter = run.record["source"].get("adapter")
        if adapter:
            file = Path(adapter).parent / "curves.csv"
            rows = None if file in curves else _read_curves(file)
            if rows is not None:
                curves[file] = _legend(run), rows
    if not curves:
        return None
    return training_curves(dict(curves.values()))


def _read_curves(file: Path) -> pd.DataFrame | None:
    """Numbers by step; None if there is no such table."""
    try:
        rows = pd.read_csv(file)
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        return None
    if "step" not in rows:
        return None
    return rows.apply(pd.to_numeric, errors="coerce").set_index("step")


def _probabilities(run: Run) -> tuple[Any, Any]:
    """P(yes) and labels (1 for yes) of all samples that have both."""
    probabilities, truth = [], []
    for score in run.scores.values():
        if score.unscored is None and score.values.get("p_yes") is not None:
            probabilities.append(score.values["p_yes"])
            truth.append(float(score.values["label"] == "yes"))
    return np.array(probabilities), np.array(truth)
