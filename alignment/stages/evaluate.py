"""Base and aligned model on the same benchmarks, compared sample by sample.

Artifact: results.json with a row for each figure: both values with intervals, the paired difference
with interval and p-value; what is not known is null. The runs themselves lie beside the artifact,
in OUT/runs, where the base model's are shared by all variants; runs.json names their folders.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from typing_extensions import TypedDict

from alignment.rows import read_manifest
from alignment.settings import Settings
from bench import registry
from bench.files import dump, locked, read_json, write_json
from bench.metrics.paired import Change, format_change, paired
from bench.runs.jobs import check_server, judge_for, load_model
from bench.runs.run import Run
from bench.runs.runner import read_samples
from bench.runs.sources import open_data
from bench.runs.suites import run_suite
from bench.terminal import note
from bench.types import CAVEAT, Benchmark, Figure, caveats_of

VERSION = "5"
TABLE_DIGITS = 1  # of percentages in results.md; ratings have one more


class Evaluation(Settings):
    """Benchmarks for the base and the aligned model."""

    suite: list[str] = Field(min_length=1)
    data: str = "hub"
    judge: str | None = None
    limit: int | None = Field(None, gt=0)


class RunPair(NamedTuple):
    """One benchmark of the base and of the aligned model."""

    base: Run
    aligned: Run


class RecipeResults(NamedTuple):
    """What one recipe came to.

    Args:
        recipe: Its name.
        seed: Its seed.
        rows: The rows of results.json.
        pairs: How many pairs it was trained on.
        updates: How often the weights were changed.
        runs: Its runs.
    """

    recipe: str
    seed: int
    rows: Sequence[Mapping[str, Any]]
    pairs: int
    updates: int
    runs: Sequence[RunPair] = ()


def identity(settings: Evaluation) -> Any:
    """The benchmarks' versions, the contents of their files, and the judge."""
    benchmarks = {}
    for name in settings.suite:
        benchmark: Benchmark = registry.benchmark(name)
        data = open_data(settings.data, None, benchmark.name)
        read_samples(benchmark, data)
        benchmarks[name] = {"version": benchmark.version, "files": data.digests()}
    judge = judge_for(settings.judge, settings.data)
    return {"benchmarks": benchmarks, "judge": judge and judge.describe()}


def check(settings: Evaluation) -> None:
    """Raises BenchError if the judge is behind a server that cannot be asked."""
    judge = judge_for(settings.judge, settings.data)
    if judge is not None:
        check_server(judge)


def run(settings: Evaluation, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Runs both models and writes results.json. Raises what a run raises; answers stay."""
    base = read_manifest(inputs["dpo"])["settings"]["model"]
    aligned = f"{base}+{inputs['dpo'] / 'adapter'}"
    base_runs = measure(settings, base, out.parent / "runs")
    aligned_runs = measure(settings, aligned, out.parent / "runs")
    rows = compare(base_runs, aligned_runs)
    folders = []
    for base_run, aligned_run in zip(base_runs, aligned_runs, strict=True):
        pair = (base_run.folder, aligned_run.folder)
        folders.append([folder.relative_to(out.parent).as_posix() for folder in pair])
    write_json(out / "runs.json", folders)
    write_json(out / "results.json", rows)
    return {"figures": len(rows)}


def read_results(artifact: Path) -> list[ResultRow]:
    """The rows of an artifact's results.json, with NaN for what is not known."""
    rows = []
    for row in read_json(artifact / "results.json", list[ResultRow]):
        for name in ("base", "aligned", "difference"):
            row[name] = [math.nan if end is None else end for end in row[name]]
        row["p"] = math.nan if row["p"] is None else row["p"]
        rows.append(row)
    return rows


def read_runs(artifact: Path) -> list[RunPair]:
    """The runs of an artifact, a pair for each benchmark."""
    pairs = []
    for base, aligned in read_json(artifact / "runs.json", list[list[str]]):
        pairs.append(RunPair(Run(artifact.parent / base), Run(artifact.parent / aligned)))
    return pairs


def measure(settings: Evaluation, spec: str, runs: Path) -> list[Run]:
    """One model's finished runs of all benchmarks."""
    model = load_model(spec, {})
    judge = judge_for(settings.judge, settings.data)
    # A run is resumed only if all of this is the same.
    identity_of_runs = [model.describe(), settings.model_dump(mode="json")]
    digest = hashlib.sha256(dump(identity_of_runs).encode()).hexdigest()
    out = runs / digest[:10]
    runs.mkdir(parents=True, exist_ok=True)
    # The base model's runs are the same for all variants, and are made once.
    with locked(runs / f".{out.name}.lock", f"evaluate: another process measures {spec}", note):
        outcomes = run_suite(settings.suite, model, judge, settings.data, settings.limit, out)
    return [Run(outcome.folder) for outcome in outcomes.values()]


class ResultRow(TypedDict):
    """A row of results.json: value, low and high of a figure, null for what is not known."""

    figure: str
    better: str
    unit: str
    samples: int
    base: list[float | None]
    aligned: list[float | None]
    difference: list[float | None]
    p: float | None
    caveats: list[str]


def compare(base_runs: Sequence[Run], aligned_runs: Sequence[Run]) -> list[ResultRow]:
    """A row for each figure that both runs allow, on the samples that both scored."""
    rows: list[ResultRow] = []
    for base, aligned in zip(base_runs, aligned_runs, strict=True):
        for figure in base.figures:
            item = paired(figure, base.scores, aligned.scores)
            if item is None:
                continue
            rows.append(
                {
                    "figure": figure.title,
                    "better": figure.better,
                    "unit": figure.unit,
                    "samples": item.samples,
                    "base": list(item.first),
                    "aligned": list(item.second),
                    "difference": list(item.difference[:3]),
                    "p": item.difference.p,
                    "caveats": _caveats(figure, base, aligned),
                }
            )
    return rows


def _caveats(figure: Figure, *runs: Run) -> list[str]:
    """Those of the figure's metrics over the whole benchmark."""
    metrics = []
    for run in runs:
        metrics += [metric for metric in run.metrics if figure.stands_for_whole(metric)]
    return caveats_of(metrics)


def as_text(results: RecipeResults) -> str:
    """Base, aligned, difference with its interval and p-value, a line for each figure."""
    lines = [
        f"{results.recipe}, seed {results.seed}: base → aligned on the same samples, "
        "difference with its 95 % interval"
    ]
    for row in results.rows:
        change = _change(row)
        values = f"{change.first:>8} →{change.second:>7}"
        difference = f"{change.difference:>7} {change.interval}"
        p = f"p {change.p}  " if change.p else ""
        lines.append(f"  {row['figure']:26}{values}  {difference}  {p}n {row['samples']}")
    return "\n".join(lines)


def table(all_results: Sequence[RecipeResults]) -> str:
    """Markdown: a table for each seed, a column for each recipe."""
    by_seed: dict[int, list[RecipeResults]] = {}
    for results in all_results:
        if results.rows:
            by_seed.setdefault(results.seed, []).append(results)
    parts = []
    for seed, columns in by_seed.items():
        lines = _seed_table(columns)
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"\n{note}  " for note in _notes(columns))
        parts.append(f"Seed {seed}:\n\n{text}\n{notes}".rstrip())
    return "\n\n".join(parts) + "\n"


def _notes(columns: Sequence[RecipeResults]) -> list[str]:
    """What a reader must know: each caveat with its figures, unless all have it."""
    figures_of: dict[str, dict[str, None]] = {}
    all_figures: dict[str, None] = {}
    for results in columns:
        for row in results.rows:
            all_figures[row["figure"]] = None
            for caveat in row["caveats"]:
                figures_of.setdefault(caveat, {})[row["figure"]] = None
    notes = []
    for caveat, figures in figures_of.items():
        which = "all figures" if len(figures) == len(all_figures) else ", ".join(figures)
        notes.append(f"{CAVEAT} {which}: {caveat}.")
    return notes


def _seed_table(columns: Sequence[RecipeResults]) -> list[list[str]]:
    header = ["", "base", *(results.recipe for results in columns)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    # What a column cost: a recipe may gain by more pairs alone.
    budgets = [f"{results.pairs}, {results.updates}" for results in columns]
    lines.append(["pairs, updates", "–", *budgets])
    row_of: list[dict[str, Mapping[str, Any]]] = []
    figures: dict[str, None] = {}
    for results in columns:
        rows = {row["figure"]: row for row in results.rows}
        row_of.append(rows)
        figures |= dict.fromkeys(rows)
    for figure in figures:
        line = [figure]
        for rows in row_of:
            if figure not in rows:
                line.append("–")
                continue
            change = _table_change(rows[figure])
            if len(line) == 1:  # the base is the same for all
                line.append(change.first)
            p = f", p {change.p}" if change.p else ""
            line.append(f"{change.second} ({change.difference} {change.interval}{p})")
        lines.append(line)
    return lines


def _change(row: Mapping[str, Any], digits: int = 2) -> Change:
    return format_change(
        row["unit"], row["base"][0], row["aligned"][0], row["difference"], row["p"], digits
    )


def _table_change(row: Mapping[str, Any]) -> Change:
    is_rating = row["unit"] == "rating"
    return _change(row, TABLE_DIGITS + 1 if is_rating else TABLE_DIGITS)
