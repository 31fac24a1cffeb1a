"""What a training was like, drawn: smoothed curves with every step faint behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from bench.plot_style import COLOURS, legend_below, open_frame

CURVES = {
    "loss": "training loss",
    "rewards/accuracies": "share of pairs whose chosen is preferred",
    "rewards/margins": "margin of the implicit reward",
}
SMOOTHED = 0.08  # of a training's steps that a smoothed value is the mean of


def training_curves(
    curves: Mapping[str, pd.DataFrame], measured: Sequence[Mapping[str, Any]] = ()
) -> Plot:
    """Loss, and DPO's implicit reward: how often and by how much the chosen response has more.

    Args:
        curves: For each model its trainer's log by step, with columns of `CURVES`; what none has,
            the rewards of a supervised training for one, is left out.
        measured: What was measured on the way: rows with `figure`, `step`, `unit`, `value`, `low`
            and `high`; those in percent are drawn.
    """
    known = []
    for column in CURVES:
        if any(column in rows and rows[column].notna().any() for rows in curves.values()):
            known.append(column)
    known = known or ["loss"]  # whose axes stay empty
    percentages = [row for row in measured if row["unit"] == "fraction"]
    panels = len(known) + bool(percentages)
    plot = Plot(figsize=(3.4 * max(2, panels), 3.2), layout="constrained")
    all_axes = plot.subplots(1, panels, squeeze=False)[0]
    for axes, column in zip(all_axes, known, strict=False):
        for number, (model, rows) in enumerate(curves.items()):
            if column in rows:
                values = rows[column].dropna()
                window = max(1, round(SMOOTHED * len(values)))
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(values, color=colour, linewidth=0.7, alpha=0.3)
                smooth = values.rolling(window, min_periods=1, center=True).mean()
                axes.plot(smooth, color=colour, linewidth=1.6, label=model or None)
        axes.set_title(CURVES[column], fontsize=10)
    if percentages:
        _draw_measured(all_axes[-1], percentages)
    for axes in all_axes:
        axes.set_xlabel("step")
        open_frame(axes)
    legend_below(plot, all_axes[0])
    return plot


def _draw_measured(axes: Axes, measured: Sequence[Mapping[str, Any]]) -> None:
    """Percentages over steps with their 95 % intervals."""
    by_figure: dict[str, list[Mapping[str, Any]]] = {}
    for row in measured:
        by_figure.setdefault(row["figure"], []).append(row)
    for title, rows in by_figure.items():
        steps = [row["step"] for row in rows]
        (line,) = axes.plot(steps, [row["value"] for row in rows], marker="o", label=title)
        ends = [(row["low"], row["high"]) for row in rows]
        # A count has no interval.
        if all(None not in end for end in ends):
            low, high = zip(*ends, strict=True)
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    axes.set_title("%, with 95 % interval", fontsize=10)
    axes.legend(fontsize="small", frameon=False)
