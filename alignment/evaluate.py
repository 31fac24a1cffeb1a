"""Base and aligned model on the same benchmarks, compared sample by sample.

Artifact: results.json with a row for each figure: both values with intervals, the paired difference with interval and
p-value. The runs themselves lie beside the artifact, in OUT/runs, where the base model's are shared by all variants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignment.recipe import Evaluation
from bench import registry
from bench.compose import Job, execute, load_judge, load_model, prepare
from bench.stats import Floats, bootstrap_sums, labels, paired_difference, ratio
from bench.store import dump, read_json, read_lines, write_json

VERSION = "1"


class Figure(NamedTuple):
    """A ratio of sums over scores: name, samples it is over, what a sample adds above and below the line."""

    name: str
    benchmark: str
    over: Callable[[Mapping[str, Any]], bool]
    above: Callable[[Mapping[str, Any]], float]
    below: Callable[[Mapping[str, Any]], float]
    better: str


def _each(_: Mapping[str, Any]) -> float:
    return 1.0


FIGURES = (
    Figure("POPE accuracy", "pope", lambda v: True, lambda v: v["correct"], _each, "higher"),
    Figure("POPE yes-ratio", "pope", lambda v: True, lambda v: v["answer"] == "yes", _each, "neither"),
    Figure("MMHal score", "mmhal", lambda v: True, lambda v: v["rating"], _each, "higher"),
    Figure("MMHal hallucination rate", "mmhal", lambda v: True, lambda v: v["hallucination"], _each, "lower"),
    Figure("CHAIRs", "chair", lambda v: True, lambda v: v["any_hallucination"], _each, "lower"),
    Figure("CHAIRi", "chair", lambda v: True, lambda v: len(v["hallucinated"]), lambda v: len(v["mentioned"]), "lower"),
    Figure("CHAIR recall", "chair", lambda v: True, lambda v: v["found"], lambda v: v["objects"], "higher"),
    Figure("CHAIR words", "chair", lambda v: True, lambda v: v["length"], _each, "neither"),
    Figure("AMBER hallucination", "amber", lambda v: "covered" in v, lambda v: v["any_hallucination"], _each, "lower"),
    Figure("AMBER Cover", "amber", lambda v: "covered" in v, lambda v: v["covered"], lambda v: v["objects"], "higher"),
    Figure("AMBER accuracy", "amber", lambda v: "label" in v, lambda v: v["correct"], _each, "higher"),
)


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
    judge = load_judge(settings.judge or ("scene" if settings.data == "scenes" else None), None)
    told = [model.describe(), settings.model_dump(mode="json")]
    folder = runs / hashlib.sha256(dump(told).encode()).hexdigest()[:10]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = {}
    for name in settings.suite:
        job = Job(registry.load("benchmarks", name), model, judge, settings.data, None, settings.limit, folder)
        done[name] = execute(prepare(job, [], now)).folder
    return done


def compare(base: Mapping[str, Path], other: Mapping[str, Path]) -> list[dict[str, Any]]:
    """A row for each figure that both runs allow, on the samples that both scored."""
    rows = []
    for figure in FIGURES:
        if figure.benchmark in base and figure.benchmark in other:
            row = _compared(figure, _scores(base[figure.benchmark]), _scores(other[figure.benchmark]))
            rows += [row] if row else []
    return rows


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
        "samples": len(both),
        "base": values[0],
        "aligned": values[1],
        "difference": difference,
        "p": p,
    }


def _quotient(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])


def relative(row: Mapping[str, Any]) -> float:
    """The difference as a share of the base's value."""
    return float(row["difference"][0] / row["base"][0])


def total(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The row of a figure."""
    return next(row for row in rows if row["figure"] == name)
