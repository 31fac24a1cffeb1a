"""Figures as SVG and PNG: colour-blind safe (Okabe-Ito), legible in print, the same bytes from the same runs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bench.figures import read_scores
from bench.types import scale_of
from leaderboards.board import Run
from leaderboards.compare import Comparison

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vP*"
SUBSETS = {
    "pope": ("random", "popular", "adversarial"),
    "mmhal": tuple("attribute adversarial comparison counting relation environment holistic other".split()),
}
BINS = 10


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.svg and NAME.png without dates or random ids."""
    files = [folder / f"{name}.svg", folder / f"{name}.png"]
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(files[0], metadata={"Date": None})
    figure.savefig(files[1], dpi=150, metadata={"Software": None})
    return files


def forest(found: Sequence[Comparison]) -> Figure:
    """Paired differences with their intervals, in points (fractions) or as they are (ratings, words)."""
    several = len({item.second.parent for item in found}) > 1
    rows = [
        (f"{item.second.parent.name}: {row.paired.figure.name}" if several else row.paired.figure.name, row.paired)
        for item in found
        for row in item.rows
        if row.paired.figure.better != "neither"
    ]
    figure = Figure(figsize=(7, 1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, row) in enumerate(reversed(rows)):
        scale = scale_of(row.figure.unit)
        value, low, high = (scale * end for end in row.difference[:3])
        good = (value > 0) == (row.figure.better == "higher")
        sure = low > 0 or high < 0
        colour = "#777777" if not sure else COLOURS[0] if good else COLOURS[1]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot([value], [place], "o" if good else "s", color=colour, markerfacecolor=colour if sure else "white")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.set_xlabel(
        "difference in points (ratings as they are), 95 % interval\n● better, ■ worse, hollow: not more than noise"
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def by_subset(runs: Sequence[Run], benchmark: str, metric: str, title: str) -> Figure | None:
    """One metric by the benchmark's subsets, a marker for each model; None where no run has it."""
    subsets = SUBSETS[benchmark]
    shown = [run for run in runs if run.benchmark == benchmark and any(m.name == metric for m in run.metrics)]
    if not shown:
        return None
    figure = Figure(figsize=(1.5 + 1.05 * len(subsets), 3.4), layout="constrained")
    axes = figure.subplots()
    for number, run in enumerate(shown):
        known = {m.subset: m for m in run.metrics if m.name == metric}
        found = [(place, known[name]) for place, name in enumerate(subsets) if name in known]
        scale = scale_of(found[0][1].unit) if found else 1
        x = np.array([place for place, _ in found]) + 0.12 * (number - (len(shown) - 1) / 2)
        y, low, high = (scale * np.array([getattr(m, end) for _, m in found]) for end in ("value", "low", "high"))
        axes.errorbar(x, y, yerr=[y - low, high - y], fmt=MARKERS[number % len(MARKERS)], capsize=2,
                      color=COLOURS[number % len(COLOURS)], label=run.model)  # fmt: skip
    axes.set_xticks(range(len(subsets)), subsets)
    axes.set_ylabel(title)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def roc_and_reliability(runs: Sequence[Run]) -> Figure | None:
    """ROC of P(yes) over all POPE questions, and how often the answer is yes where the model says P(yes)."""
    shown = [(run, _probabilities(run)) for run in runs if run.benchmark == "pope"]
    shown = [(run, (p, y)) for run, (p, y) in shown if len(p) and 0 < y.sum() < len(y)]
    if not shown:
        return None
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (run, (p, y)) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        order = np.argsort(-p, kind="stable")
        last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))  # ties are one step
        tpr, fpr = (np.append(0, np.cumsum(part[order])[last] / part.sum()) for part in (y, 1 - y))
        left.plot(fpr, tpr, color=colour, label=run.model)
        place = np.minimum((p * BINS).astype(int), BINS - 1)
        bins = [bin_ for bin_ in range(BINS) if (place == bin_).any()]
        means = [(p[place == bin_].mean(), y[place == bin_].mean()) for bin_ in bins]
        right.plot(*zip(*means, strict=True), f"{MARKERS[number % len(MARKERS)]}-", color=colour, label=run.model)
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    left.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC of P(yes)")
    right.set(xlabel="mean P(yes)", ylabel="share of yes", title="Reliability of P(yes)")
    return figure


def training(runs: Sequence[Run]) -> Figure | None:
    """Loss, and how often DPO's implicit reward prefers the chosen response, of adapters whose curves are at hand."""
    curves: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for run in runs:
        adapter = run.record["source"].get("adapter")
        file = Path(adapter).parent / "curves.csv" if adapter else None
        if file is not None and file.is_file() and str(file) not in curves:
            with file.open(newline="") as lines:
                curves[str(file)] = run.model, list(csv.DictReader(lines))
    if not curves:
        return None
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), ("loss", "rewards/accuracies"), strict=True):
        for number, (model, rows) in enumerate(curves.values()):
            points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
            if points:
                axes.plot(*zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], linewidth=1, label=model)
        axes.set(
            xlabel="step", title="training loss" if column == "loss" else "share of pairs with the better preferred"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    return figure


def _probabilities(run: Run) -> tuple[Any, Any]:
    scored: Mapping[str, Mapping[str, Any]] = read_scores(run.folder)
    values = [row["values"] for row in scored.values() if row["values"].get("p_yes") is not None]
    return np.array([v["p_yes"] for v in values]), np.array([float(v["label"] == "yes") for v in values])
