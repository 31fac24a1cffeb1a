"""Figures of the experiment, from the recorded results.

    bench align recipe.yaml --seeds 3 --variants … --out out --json > results.json
    python docs/experiments/figures.py docs/experiments/results.json docs/experiments

It prints the table of results.md. `rates.png`: hallucination against recall, a dot for each seed
in the ellipse of its intervals over images. `forest.png`: differences from the base, a line for
each seed. `equal_recall.png`: rates against recall from no pair to all of them, by what the panel
sees. `scaling.png`: rates by pairs and by candidates, where the conditions are there.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

RATES = ("MMHal hallucination rate", "CHAIRs")
RECALL = "CHAIR recall"
FOREST = (*RATES, "CHAIRi, objects once", RECALL, "POPE AUC", "AMBER Cover")
TABLE = (*FOREST, "POPE accuracy", "CHAIR words")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#990099")
MARKERS = "osD^vP*X"
MAIN = "grounding"
FEWER, ALL = (350, 700, 1400), 2000  # pairs
VARIED = {  # what the x axis says, and where `grounding` stands on it
    "pairs": ("pairs", ALL),
    "samples": ("samples of each model", 4),
    "own": ("samples of llava-tiny, which judges them itself", None),
}
SEEN = {MAIN: "the picture", "wrong-image": "another picture", "blank-image": "a grey picture"}
Rows = Mapping[str, Mapping[str, Any]]  # of one training, by figure


def read(file: Path) -> dict[str, list[Rows]]:
    """The rows of all seeds, by condition in the order of the file."""
    conditions: dict[str, list[Rows]] = defaultdict(list)
    for item in json.loads(file.read_text(encoding="utf-8"))["aligned"]:
        name = item["recipe"].removeprefix(f"{MAIN}-")
        conditions[name].append({row["figure"]: row for row in item["figures"]})
    return dict(conditions)


def percent(row: Mapping[str, Any], side: str) -> tuple[float, float, float]:
    """Value and interval of a side, in percent."""
    value, low, high = (100 * number for number in row[side])
    return value, low, high


def style(number: int) -> tuple[str, str]:
    """Colour and marker of a condition: no two of 64 are alike."""
    return COLOURS[number % len(COLOURS)], MARKERS[number // len(COLOURS) % len(MARKERS)]


def table(conditions: Mapping[str, Sequence[Rows]]) -> str:
    """A row for each condition: means over the seeds, each seed's value behind, as Markdown."""
    base = next(iter(conditions.values()))[0]
    scale = {figure: 100 if base[figure]["unit"] == "fraction" else 1 for figure in TABLE}
    base_values = [f"{scale[figure] * base[figure]['base'][0]:.1f}" for figure in TABLE]
    lines = [
        f"| mean (each seed) | {' | '.join(TABLE)} |",
        f"|---|{'---:|' * len(TABLE)}",
        f"| base | {' | '.join(base_values)} |",
    ]
    for name, seeds in conditions.items():
        cells = [f"`{name}`"]
        for figure in TABLE:
            values = [scale[figure] * rows[figure]["aligned"][0] for rows in seeds]
            each = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{statistics.fmean(values):.1f} ({each})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rates(conditions: Mapping[str, Sequence[Rows]]) -> Figure:
    """Hallucination against recall; better is to the right and below."""
    plot = Figure(figsize=(10, 4.6), layout="constrained")
    for axes, figure in zip(plot.subplots(1, 2), RATES, strict=True):
        base = next(iter(conditions.values()))[0]
        x, y = percent(base[RECALL], "base")[0], percent(base[figure], "base")[0]
        axes.plot(x, y, "kX", markersize=9, label="base")
        for number, (name, seeds) in enumerate(conditions.items()):
            colour, marker = style(number)
            points = []
            for rows in seeds:
                recall = percent(rows[RECALL], "aligned")
                rate = percent(rows[figure], "aligned")
                points.append((recall[0], rate[0]))
                size = (recall[2] - recall[1], rate[2] - rate[1])
                axes.add_patch(Ellipse(points[-1], *size, facecolor=colour, alpha=0.15))
            axes.plot(*zip(*points, strict=True), marker, color=colour, label=name)
        axes.set(xlabel="CHAIR recall, %", ylabel=f"{figure}, %")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return plot


def equal_recall(conditions: Mapping[str, Sequence[Rows]]) -> Figure:
    """Rates against recall with ever more pairs, a line for each thing that the panel sees."""
    plot = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, figure in zip(plot.subplots(1, 2), RATES, strict=True):
        base = next(iter(conditions.values()))[0]
        start = (percent(base[RECALL], "base")[0], percent(base[figure], "base")[0])
        for place, kind in enumerate(SEEN):
            colour, _ = style(place)
            prefix = "" if kind == MAIN else f"{kind}-"
            points = [start]
            for pairs in (*FEWER, ALL):
                name = kind if pairs == ALL else f"{prefix}pairs-{pairs}"
                if name in conditions:
                    points.append(_mean_point(conditions[name], figure))
                    axes.annotate(
                        f"{pairs:,}", points[-1], (5, 4), textcoords="offset points", fontsize=7
                    )
                    each = [_mean_point([rows], figure) for rows in conditions[name]]
                    axes.plot(*zip(*each, strict=True), ".", color=colour, alpha=0.5)
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=SEEN[kind])
        axes.plot(*start, "kX", markersize=9, label="base")
        axes.set(
            xlabel="CHAIR recall, % (right is better)", ylabel=f"{figure}, % (below is better)"
        )
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, title="the panel sees", title_fontsize=8)
    return plot


def _mean_point(seeds: Sequence[Rows], figure: str) -> tuple[float, float]:
    """Recall and rate, means over the seeds."""
    recall = statistics.fmean(percent(rows[RECALL], "aligned")[0] for rows in seeds)
    return recall, statistics.fmean(percent(rows[figure], "aligned")[0] for rows in seeds)


def forest(conditions: Mapping[str, Sequence[Rows]]) -> Figure:
    """Differences from the base in points, with each seed's interval over images."""
    plot = Figure(figsize=(12, 1.2 + 0.45 * len(conditions)), layout="constrained")
    for axes, figure in zip(plot.subplots(1, len(FOREST), sharey=True), FOREST, strict=True):
        for place, seeds in enumerate(conditions.values()):
            colour, _ = style(place)
            for number, rows in enumerate(seeds):
                value, low, high = percent(rows[figure], "difference")
                y = place + 0.18 * (number - (len(seeds) - 1) / 2)
                axes.plot([low, high], [y, y], color=colour, linewidth=1.3)
                axes.plot(value, y, "o", color=colour, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        better = next(iter(conditions.values()))[0][figure]["better"]
        axes.set_title(f"{figure}\n({better} is better)", fontsize=8)
        axes.set_yticks(range(len(conditions)), list(conditions))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    plot.supxlabel("difference from the base in points, 95 % interval over images", fontsize=9)
    return plot


def scaling(conditions: Mapping[str, Sequence[Rows]]) -> Figure | None:
    """Rates by number of pairs and of candidates, None if nothing was varied."""
    varied: dict[str, dict[int, Sequence[Rows]]] = {kind: {} for kind in VARIED}
    for name, seeds in conditions.items():
        kind, _, number = name.partition("-")
        if kind in varied and number.isdigit():
            varied[kind][int(number)] = seeds
    varied = {kind: by_number for kind, by_number in varied.items() if by_number}
    if not varied:
        return None
    plot = Figure(figsize=(4.8 * len(varied), 3.6), layout="constrained")
    all_axes = plot.subplots(1, len(varied), sharey=True, squeeze=False)[0]
    for axes, (kind, by_number) in zip(all_axes, varied.items(), strict=True):
        title, number_of_main = VARIED[kind]
        if number_of_main:
            by_number[number_of_main] = conditions[MAIN]
        for figure, colour in zip(RATES, COLOURS, strict=False):
            numbers = sorted(by_number)
            means = []
            for number in numbers:
                values = [percent(rows[figure], "aligned")[0] for rows in by_number[number]]
                axes.plot([number] * len(values), values, "o", color=colour, alpha=0.5)
                means.append(statistics.fmean(values))
            axes.plot(numbers, means, color=colour, label=figure)
        axes.set(xscale="log", xlabel=title)
        axes.set_xticks(sorted(by_number), [f"{number:,}" for number in sorted(by_number)])
        axes.minorticks_off()
        axes.set_ylabel("%, a dot for each training")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    return plot


def main() -> None:
    """Writes the figures."""
    conditions = read(Path(sys.argv[1]))
    main_ones = {}
    for name, seeds in conditions.items():
        if not re.search(r"((pairs|samples|beta)-[\d.]+|own-(4|16))$", name):
            main_ones[name] = seeds
    print(table(main_ones))
    plots = {
        "rates": rates(main_ones),
        "forest": forest(main_ones),
        "equal_recall": equal_recall(conditions),
        "scaling": scaling(conditions),
    }
    for name, plot in plots.items():
        if plot is not None:
            plot.savefig(Path(sys.argv[2]) / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
