"""What a person sees: a progress bar, a table of metrics, errors. Quiet where standard output is no terminal."""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import typer

from bench.errors import BenchError
from bench.store import metric_row
from bench.types import Metric, Progress, format_value, p_text, scale_of


def show_error(error: BenchError) -> None:
    """Fact, reason and remedy on standard error."""
    labels = ("error: ", "reason: ", "remedy: ")
    for label, part in zip(labels, (error.fact, error.reason, error.remedy), strict=True):
        if part:
            print(f"{label:>8}{part}", file=sys.stderr)


def note(text: str) -> None:
    """A remark on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Progress]:
    """A live bar with rate and time left on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "–/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    times = (TextColumn("left"), TimeRemainingColumn(), TextColumn("spent"), TimeElapsedColumn())
    with Bar(*columns, *times, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


def show_metrics(title: str, metrics: Sequence[Metric]) -> None:
    """One table: metrics by subset, each value ± half the width of its 95 % interval, with n and unscored."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    subsets = list(dict.fromkeys(metric.subset for metric in metrics))
    names = list(dict.fromkeys(metric.name for metric in metrics))
    cells = {(metric.name, metric.subset): format_value(metric) for metric in metrics}
    sizes = {metric.subset: (metric.n, metric.unscored) for metric in metrics}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    if len(subsets) <= len(names):
        rows = [("n", *(str(sizes[s][0]) for s in subsets)), ("unscored", *(str(sizes[s][1]) for s in subsets))]
        header, body = ("", *subsets), [(name, *(cells.get((name, s), "") for s in subsets)) for name in names]
    else:
        rows, header = [], ("", *names, "n", "unscored")
        body = [(s, *(cells.get((name, s), "") for name in names), *map(str, sizes[s])) for s in subsets]
    for number, name in enumerate(header):
        table.add_column(name.replace("_", " "), justify="right" if number else "left")
    for row in [*body, *rows]:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(
        Text(title, style="bold"), Text("value ± half-width of the 95 % interval, clustered by image"), sep="\n"
    )
    console.print(table)


def show_plan(name: str, rows: Sequence[tuple[str, int, str, float, float, float]]) -> None:
    """The stages of a recipe with their items and estimates."""
    print(f"{name}: items; estimates of disk, memory and time")
    for stage, items, what, disk, memory, seconds in rows:
        size = f"{disk / 1e6:,.1f} MB, {memory / 1e9:.1f} GB of memory"
        took = f"{seconds / 60:.1f} min" if not math.isnan(seconds) else "not timed yet"
        print(f"  {stage:12}{items:>8} {what:30} {size}, {took}")


def show_comparisons(done: Sequence[tuple[str, int, Sequence[Mapping[str, Any]]]], as_json: bool) -> None:
    """A table for each aligned model: base, aligned, difference with its interval and p-value."""
    if as_json:
        rows = [{"recipe": name, "seed": seed, "figures": figures} for name, seed, figures in done]
        print(json.dumps({"aligned": rows}, indent=2))
        return
    for name, seed, figures in done:
        if not figures:
            continue
        print(f"{name}, seed {seed}: base → aligned on the same samples, difference with its 95 % interval")
        for row in figures:
            scale = scale_of(row["unit"])
            base, other = scale * row["base"][0], scale * row["aligned"][0]
            value, low, high = (scale * end for end in row["difference"])
            print(
                f"  {row['figure']:26}{base:8.2f} →{other:7.2f}  {value:+7.2f} [{low:+.2f}, {high:+.2f}]"
                f"  p {p_text(row['p'])}  n {row['samples']}"
            )
        print()


def show_agreements(agreed: Sequence[tuple[str, str, Any]]) -> None:
    """How far pairs of judges agree, and where they differ most."""
    for first, second, found in agreed:
        print(f"{first} and {second} on {found.samples} answers ({found.left_out} not rated by both)")
        for name in ("spearman", "kappa", "weighted_kappa"):
            value, low, high = getattr(found, name)
            print(f"  {name.replace('_', ' '):16}{value:6.2f} [{low:.2f}, {high:.2f}]")
        print(f"  hallucination   {100 * found.rates[0]:6.2f} % and {100 * found.rates[1]:.2f} %")
        for sample, one, other in found.worst:
            print(f"  {sample}: {one} and {other}")
        print()


def show_json(runs: Sequence[tuple[str, str, str, Sequence[Metric]]], agreed: Sequence[tuple[str, str, Any]]) -> None:
    """One object: {"runs": [{"benchmark", "model", "folder", "metrics": […]}]}, with "agreement" of several judges."""
    keys = ("benchmark", "model", "folder")
    rows = [dict(zip(keys, run[:3], strict=True)) | {"metrics": [metric_row(m) for m in run[3]]} for run in runs]
    pairs = [{"judges": [one, other]} | asdict(found) for one, other, found in agreed]
    print(json.dumps({"runs": rows} | ({"agreement": pairs} if pairs else {}), indent=2, ensure_ascii=False))


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a BenchError into its three lines and exit code 2, and warnings into plain remarks."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of libraries, to those who call them
                warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
                command(*args, **kwargs)
        except BenchError as error:
            show_error(error)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            note("Interrupted. What was answered is kept: the same command continues.")
            raise typer.Exit(130) from error

    return wrapped
