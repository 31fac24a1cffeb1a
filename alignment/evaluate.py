"""Base and aligned model on the same benchmarks, compared sample by sample.

Artifact: results.json with a row for each figure: both values with intervals, the paired difference with interval and
p-value. The runs themselves lie beside the artifact, in OUT/runs, where the base model's are shared by all variants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.recipe import Evaluation
from bench import registry
from bench.compose import judge_for, load_judge, load_model, run_suite
from bench.environment import environment
from bench.figures import FIGURES, paired, read_scores
from bench.store import dump, read_json, write_json
from bench.types import p_text, scale_of

VERSION = "2"


def identity(settings: Evaluation) -> Any:
    """The benchmarks' versions."""
    return {name: registry.load("benchmarks", name).version for name in settings.suite}


def run(settings: Evaluation, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Runs both models and writes results.json. Raises what a run raises; what was answered stays."""
    base = read_json(inputs["dpo"] / "manifest.json")["settings"]["model"]
    runs = [measured(settings, spec, out.parent / "runs") for spec in (base, f"{base}+{inputs['dpo'] / 'adapter'}")]
    rows = compare(*runs)
    write_json(out / "results.json", rows)
    return {"figures": len(rows)}


def measured(settings: Evaluation, spec: str, runs: Path) -> dict[str, Path]:
    """The folder of the finished run of every benchmark, for one model."""
    model = load_model(spec, {})
    judge = load_judge(judge_for(settings.judge, settings.data), None)
    told = [model.describe(), settings.model_dump(mode="json"), environment()]  # a run is resumed under the same alone
    folder = runs / hashlib.sha256(dump(told).encode()).hexdigest()[:10]
    outcomes = run_suite(settings.suite, model, judge, settings.data, settings.limit, folder)
    return {name: outcome.folder for name, outcome in outcomes.items()}


def compare(base: Mapping[str, Path], other: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row for each figure that both runs allow, on the samples that both scored."""
    scored = {name: (read_scores(base[name]), read_scores(other[name])) for name in base if name in other}
    found = [paired(figure, *scored[figure.benchmark]) for figure in FIGURES if figure.benchmark in scored]
    return [
        {
            "figure": row.figure.name,
            "better": row.figure.better,
            "unit": row.figure.unit,
            "samples": row.samples,
            "base": row.first,
            "aligned": row.second,
            "difference": row.difference[:3],
            "p": row.difference.p,
        }
        for row in found
        if row
    ]


def table(done: Sequence[tuple[str, int, Sequence[Mapping[str, Any]]]]) -> str:
    """Markdown of (recipe, seed, rows of results.json): a table for each seed, a column for each recipe."""
    parts = []
    for seed in dict.fromkeys(seed for _, seed, rows in done if rows):
        columns = [(name, {row["figure"]: row for row in rows}) for name, of, rows in done if of == seed and rows]
        figures = dict.fromkeys(figure for _, rows in columns for figure in rows)
        lines = [["", "base", *(name for name, _ in columns)], ["---", *["---:"] * (len(columns) + 1)]]
        for figure in figures:
            rows = [rows.get(figure) for _, rows in columns]
            known = next(row for row in rows if row)
            lines.append([figure, _number(known["base"][0], known), *(_cell(row) for row in rows)])
        parts.append(f"Seed {seed}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _cell(row: Mapping[str, Any] | None) -> str:
    """Value, difference to the base with its 95 % interval, p-value."""
    if row is None:
        return "–"
    value, low, high = (_number(end, row, "+") for end in row["difference"])
    return f"{_number(row['aligned'][0], row)} ({value} [{low}, {high}], p {p_text(row['p'])})"


def _number(value: float, row: Mapping[str, Any], sign: str = "") -> str:
    """Percent where it is a fraction."""
    scaled = scale_of(row["unit"]) * value
    return format(scaled, f"{sign}.2f" if row["unit"] == "rating" else f"{sign}.1f")
