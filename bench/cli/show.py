"""How metrics are shown: tables for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import NamedTuple

import typer

from bench.files import indented
from bench.metrics.agreement import Agreement
from bench.runs.runner import Outcome
from bench.terminal import note, show
from bench.text_tables import output_width, remark, text_table
from bench.types import CAVEAT, Benchmark, Metric, caveats_of, format_value

CAPTION = "value ± half-width, or [low, high], of the 95 % interval, clustered by image"
INCOMPLETE = 3  # exit code
SHOWN_REASONS = 5  # why samples are unscored


class FinishedRun(NamedTuple):
    """A finished run, and what its tables call the model."""

    benchmark: Benchmark
    outcome: Outcome
    model: str


class JudgePair(NamedTuple):
    """How far two judges agree."""

    first: str
    second: str
    agreement: Agreement


def show_runs(
    finished: Sequence[FinishedRun], as_json: bool, judges: Sequence[JudgePair] = ()
) -> None:
    """Tables, or one JSON object, and why samples are unscored."""
    if as_json:
        _show_json(finished, judges)
    for run in finished:
        benchmark, outcome = run.benchmark, run.outcome
        if not as_json:
            show_metrics(benchmark.title, run.model, outcome.metrics)
            show(f"run: {outcome.folder}\n")
        reasons = sorted(outcome.unscored.items(), key=lambda reason: -reason[1])
        # A run of thousands may have as many reasons.
        for reason, count in reasons[:SHOWN_REASONS]:
            note(f"{benchmark.name}: {count} unscored: {reason}")
        rest = sum(count for _, count in reasons[SHOWN_REASONS:])
        if rest:
            note(f"{benchmark.name}: {rest} unscored for reasons like these")
        if benchmark.judged and "not judged" in outcome.unscored:
            note(f"To judge them: bench judge {outcome.folder} --judge openai:MODEL")


def exit_if_unscored(finished: Sequence[FinishedRun], left_out: Collection[str] = ()) -> None:
    """Ends the program with exit code 3 if samples have no score, or benchmarks were left out."""
    if left_out or any(run.outcome.unscored for run in finished):
        raise typer.Exit(INCOMPLETE)


def show_metrics(title: str, model: str, metrics: Sequence[Metric]) -> None:
    """One table: metrics by subset, each value ± half the width of its 95 % interval."""
    header, body = _cells(metrics)
    header = [heading.replace("_", " ") for heading in header]
    lines = [f"{title} · {model}"]
    lines += remark(CAPTION)
    lines += text_table([header, *body], output_width())
    for caveat in caveats_of(metrics):
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


def _show_json(finished: Sequence[FinishedRun], judges: Sequence[JudgePair]) -> None:
    """One object: {"runs": [{"benchmark", "model", "folder", "metrics": […]}]}.

    With "agreement" if several judges were asked.
    """
    rows = []
    for run in finished:
        rows.append(
            {
                "benchmark": run.benchmark.name,
                "model": run.model,
                "folder": str(run.outcome.folder),
                "metrics": list(map(asdict, run.outcome.metrics)),
            }
        )
    content: dict[str, object] = {"runs": rows}
    if judges:
        content["agreement"] = [
            {"judges": [pair.first, pair.second]} | asdict(pair.agreement) for pair in judges
        ]
    show(indented(content))
