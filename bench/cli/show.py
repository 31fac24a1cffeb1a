"""How metrics are shown: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from bench.files import indented
from bench.metrics.agreement import Agreement
from bench.terminal import show
from bench.text_tables import output_width, remark, text_table
from bench.types import CAVEAT, Metric, caveats_of, format_value

CAPTION = "value ± half-width, or [low, high], of the 95 % interval, clustered by image"


class ShownRun(NamedTuple):
    """A finished run as it is shown."""

    benchmark: str
    title: str
    model: str
    folder: Path
    metrics: Sequence[Metric]


class JudgePair(NamedTuple):
    """How far two judges agree."""

    first: str
    second: str
    agreement: Agreement


def show_metrics(shown: ShownRun) -> None:
    """One table: metrics by subset, each value ± half the width of its 95 % interval."""
    header, body = _cells(shown.metrics)
    header = [heading.replace("_", " ") for heading in header]
    lines = [f"{shown.title} · {shown.model}"]
    lines += remark(CAPTION)
    lines += text_table([header, *body], output_width())
    for caveat in caveats_of(shown.metrics):
        lines += remark(f"{CAVEAT} {caveat}")
    show("\n".join(lines))


def _cells(metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, whichever of subsets and metrics are fewer in the columns."""
    subsets = list(dict.fromkeys(metric.subset for metric in metrics))
    names = list(dict.fromkeys(metric.name for metric in metrics))
    values: dict[tuple[str, str], str] = {}
    n: dict[str, str] = {}
    unscored: dict[str, str] = {}
    cut_off: dict[str, str] = {}
    for metric in metrics:
        values[metric.name, metric.subset] = format_value(metric)
        n[metric.subset] = str(metric.n)
        unscored[metric.subset] = str(metric.unscored)
        cut_off[metric.subset] = str(metric.cut_off)
    # A terminal is wide enough for the fewer of the two.
    body = []
    if len(subsets) <= len(names):
        for name in names:
            body.append([name, *(values.get((name, subset), "") for subset in subsets)])
        body.append(["n", *(n[subset] for subset in subsets)])
        body.append(["unscored", *(unscored[subset] for subset in subsets)])
        body.append(["cut off", *(cut_off[subset] for subset in subsets)])
        return ["", *subsets], body
    for subset in subsets:
        cells = [values.get((name, subset), "") for name in names]
        body.append([subset, *cells, n[subset], unscored[subset], cut_off[subset]])
    return ["", *names, "n", "unscored", "cut off"], body


def show_json(runs: Sequence[ShownRun], judges: Sequence[JudgePair]) -> None:
    """One object: {"runs": [{"benchmark", "model", "folder", "metrics": […]}]}.

    With "agreement" if several judges were asked.
    """
    rows = []
    for run in runs:
        rows.append(
            {
                "benchmark": run.benchmark,
                "model": run.model,
                "folder": str(run.folder),
                "metrics": list(map(asdict, run.metrics)),
            }
        )
    content: dict[str, object] = {"runs": rows}
    if judges:
        content["agreement"] = [
            {"judges": [pair.first, pair.second]} | asdict(pair.agreement) for pair in judges
        ]
    show(indented(content))
