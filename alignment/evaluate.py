"""Base and aligned model on the same benchmarks, compared sample by sample.

Artifact: results.json with a row for each figure: both values with intervals, the paired difference with interval and
p-value. The runs themselves lie beside the artifact, in OUT/runs, where the base model's are shared by all variants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignment.recipe import Evaluation
from bench import registry
from bench.compose import judge_for, load_judge, load_model, run_suite
from bench.stats import Floats, bootstrap_sums, labels, paired_difference, ratio
from bench.store import dump, read_json, read_lines, write_json
from bench.types import Unit

VERSION = "2"


class Figure(NamedTuple):
    """A ratio of sums over scores: what a sample adds above and below the line, and which samples it is over."""

    name: str
    benchmark: str
    above: Callable[[Mapping[str, Any]], float]
    better: str
    unit: Unit = "fraction"
    below: Callable[[Mapping[str, Any]], float] = lambda v: 1.0
    over: Callable[[Mapping[str, Any]], bool] = lambda v: True


FIGURES = (
    Figure("POPE accuracy", "pope", lambda v: v["correct"], "higher"),
    Figure("POPE yes-ratio", "pope", lambda v: v["answer"] == "yes", "neither"),
    Figure("MMHal score", "mmhal", lambda v: v["rating"], "higher", "rating"),
    Figure("MMHal hallucination rate", "mmhal", lambda v: v["hallucination"], "lower"),
    Figure("CHAIRs", "chair", lambda v: v["any_hallucination"], "lower"),
    Figure("CHAIRi", "chair", lambda v: len(v["hallucinated"]), "lower", below=lambda v: len(v["mentioned"])),
    Figure("CHAIR recall", "chair", lambda v: v["found"], "higher", below=lambda v: v["objects"]),
    Figure("CHAIR words", "chair", lambda v: v["length"], "neither", "words"),
    Figure("AMBER hallucination", "amber", lambda v: v["any_hallucination"], "lower", over=lambda v: "covered" in v),
    Figure(
        "AMBER Cover", "amber", lambda v: v["covered"], "higher",
        below=lambda v: v["objects"], over=lambda v: "covered" in v,
    ),
    Figure("AMBER accuracy", "amber", lambda v: v["correct"], "higher", over=lambda v: "label" in v),
)  # fmt: skip


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
    told = [model.describe(), settings.model_dump(mode="json")]
    folder = runs / hashlib.sha256(dump(told).encode()).hexdigest()[:10]
    outcomes = run_suite(settings.suite, model, judge, settings.data, settings.limit, folder)
    return {name: outcome.folder for name, outcome in outcomes.items()}


def compare(base: Mapping[str, Path], other: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row for each figure that both runs allow, on the samples that both scored."""
    scored = {name: (_scores(base[name]), _scores(other[name])) for name in base if name in other}
    compared = [_compared(figure, *scored[figure.benchmark]) for figure in FIGURES if figure.benchmark in scored]
    return [row for row in compared if row]


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
    p = "p < 0.001" if row["p"] < 0.001 else f"p {row['p']:.3f}"
    return f"{_number(row['aligned'][0], row)} ({value} [{low}, {high}], {p})"


def _number(value: float, row: Mapping[str, Any], sign: str = "") -> str:
    """Percent where it is a fraction."""
    scaled = 100 * value if row["unit"] == "fraction" else value
    return format(scaled, f"{sign}.2f" if row["unit"] == "rating" else f"{sign}.1f")


def _scores(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["sample"]: row for row in read_lines(folder / "scores.jsonl") if row["unscored"] is None}


def _compared(figure: Figure, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any] | None:
    both = [name for name, row in first.items() if name in second and figure.over(row["values"])]
    if not both:
        return None
    clusters = labels([first[name]["cluster"] for name in both])
    terms = [
        np.array([[figure.above(v), figure.below(v)] for v in (scores[name]["values"] for name in both)], dtype=float)
        for scores in (first, second)
    ]
    values = [bootstrap_sums(part, clusters, _quotient)[0] for part in terms]
    difference, p = paired_difference(terms[0], terms[1], clusters, _quotient)
    return {
        "figure": figure.name,
        "better": figure.better,
        "unit": figure.unit,
        "samples": len(both),
        "base": values[0],
        "aligned": values[1],
        "difference": difference,
        "p": p,
    }


def _quotient(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])
