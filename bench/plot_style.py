"""What all plots share.

Colours are safe for colour-blind readers (Okabe-Ito), lines and markers tell models apart in print.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#777777"
MARKERS = "osD^vP*"
LINES = ("-", "--", ":", "-.")


def style(number: int) -> dict[str, Any]:
    """Colour and marker of model number `number`."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def dashes(number: int) -> str:
    """Of model number `number`: lines that lie upon each other show in turns."""
    return LINES[number % len(LINES)]


def open_frame(axes: Axes) -> None:
    """Leaves the lines above and on the right away."""
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(plot: Plot, axes: Axes) -> None:
    """The models' legend, once for all panels, where it hides no point; none without labels."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        plot.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False)
