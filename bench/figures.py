"""The figures by which models are compared, each a ratio of sums over samples; two models on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.stats import Difference, Estimate, Floats, bootstrap_sums, labels, paired_difference, ratio
from bench.store import read_lines
from bench.types import Better, Unit

Scores = Mapping[str, Mapping[str, Any]]  # rows of scores.jsonl by sample


class Figure(NamedTuple):
    """A ratio of sums over scores: what a sample adds above and below the line, and which samples it is over."""

    name: str
    benchmark: str
    above: Callable[[Mapping[str, Any]], float]
    better: Better
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


def figures_of(benchmark: str) -> Sequence[Figure]:
    """The figures of a benchmark; of one that this file does not know, the share of right answers."""
    known = [figure for figure in FIGURES if figure.benchmark == benchmark]
    right = Figure(f"{benchmark} accuracy", benchmark, lambda v: v["correct"], "higher", over=lambda v: "correct" in v)
    return known or [right]


class Paired(NamedTuple):
    """A figure of two models on the samples that both have: its values, their difference, and how many samples."""

    figure: Figure
    samples: int
    first: Estimate
    second: Estimate
    difference: Difference


def read_scores(folder: Path) -> dict[str, dict[str, Any]]:
    """The scored samples of a run."""
    return {row["sample"]: row for row in read_lines(folder / "scores.jsonl") if row["unscored"] is None}


def paired(figure: Figure, first: Scores, second: Scores) -> Paired | None:
    """Second against first; None where they share no sample that the figure is over."""
    both = [name for name, row in first.items() if name in second and figure.over(row["values"])]
    if not both:
        return None
    clusters = labels([first[name]["cluster"] for name in both])
    terms = [
        np.array([[figure.above(v), figure.below(v)] for v in (scores[name]["values"] for name in both)], dtype=float)
        for scores in (first, second)
    ]
    one, other = (bootstrap_sums(part, clusters, _quotient)[0] for part in terms)
    return Paired(figure, len(both), one, other, paired_difference(terms[0], terms[1], clusters, _quotient))


def _quotient(sums: Floats) -> Floats:
    return ratio(sums[:, 0], sums[:, 1])
