"""What the page shows, as the JSON that its script reads.

Texts of models are data: nothing here makes markup of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.metrics.paired import change_of
from bench.runs.caveats import is_loop
from bench.runs.run import Run
from bench.runs.store import flatten
from bench.types import CAVEAT, Sample, Values, caveats_of, format_value
from leaderboards.board import Board, BoardCell, cell_text
from leaderboards.compare import Comparison, Row, gain, verdict
from reports.results import metric_title, told_once
from reports.tables import Table

# Of run.json: what a reader asks about a number. Digests of single files stay in the record.
DETAILS = (
    "created",
    "command",
    "model",
    "prompt",
    "judge",
    "source.data",
    "data.samples",
    "limit",
    "seeds",
    "max_tokens",
    "environment",
)
LEFT_OUT = ("model.files", "model.software")  # in environment.packages too


class Progress(NamedTuple):
    """How far a run is that goes on."""

    benchmark: str
    model: str
    answered: int
    questions: int


class RunSamples(NamedTuple):
    """What a run asked.

    Args:
        run: The run.
        samples: Its samples.
        key_of: Each sample's key in answers.jsonl.
        images: The image files by name.
    """

    run: Run
    samples: Sequence[Sample]
    key_of: Mapping[str, str]
    images: Mapping[str, Path]


def page_data(
    board: Board,
    runs: Sequence[Run],
    run_samples: Sequence[RunSamples],
    comparisons: Sequence[Comparison],
    tables: Sequence[Table],
    image_names: Sequence[str],
    progress: Sequence[Progress] = (),
) -> dict[str, Any]:
    """Everything but the pictures; see `reports.page.write_page`."""
    # A picture stands in the page once, however many samples ask about it.
    index_of = {name: index for index, name in enumerate(image_names)}
    by_benchmark: dict[str, list[RunSamples]] = {}
    for item in run_samples:
        by_benchmark.setdefault(item.run.benchmark, []).append(item)
    samples = []
    for benchmark, members in by_benchmark.items():
        samples.append(_benchmark_object(benchmark, members, index_of))
    return {
        "verdicts": _verdicts(comparisons, runs),
        "board": _board_object(board),
        "tables": list(map(_table_object, tables)),
        "runs": list(map(_run_object, runs)),
        "samples": samples,
        "progress": [item._asdict() for item in progress],
    }


def _verdicts(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One object for each model that is held against the first one."""
    labels = {run.folder: run.label for run in runs}
    titles = {run.benchmark: run.title for run in runs}
    by_models: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        models = (labels[comparison.first], labels[comparison.second])
        by_models.setdefault(models, []).append(comparison)
    verdicts = []
    for (first, second), members in by_models.items():
        rows = [_row_object(row) for comparison in members for row in comparison.rows]
        caveats = told_once(members, labels)
        for comparison in members:
            for difference in comparison.differs:
                caveats.append(f"{comparison.benchmark}: not run alike: {difference}")
        verdicts.append(
            {
                "first": first,
                "second": second,
                "rows": rows,
                "flips": [_flips_object(comparison, titles) for comparison in members],
                "caveats": list(dict.fromkeys(caveats)),
            }
        )
    return verdicts


def _row_object(row: Row) -> dict[str, Any]:
    item = row.paired
    change = change_of(item, row.p_holm)
    ends = gain(row)
    is_drawn = item.figure.better != "neither" and all(map(math.isfinite, ends))
    return {
        "figure": item.figure.title,
        "unit": item.figure.unit,
        "main": bool(item.figure.heading),
        "first": change.first,
        "second": change.second,
        "difference": change.difference,
        "interval": change.interval,
        "p": change.p,
        "verdict": verdict(row),
        "drawn": list(ends) if is_drawn else None,
    }


def _flips_object(comparison: Comparison, titles: Mapping[str, str]) -> dict[str, Any]:
    worse, better = comparison.flips.counts
    return {
        "benchmark": comparison.benchmark,
        "title": titles[comparison.benchmark],
        "matched": comparison.matched,
        "worse": worse,
        "better": better,
    }


def _board_object(board: Board) -> dict[str, Any]:
    columns = [column._asdict() for column in board.columns]
    lines = []
    # What was measured here is what the reader came for.
    for line in sorted(board.lines, key=lambda line: not line.measured):
        cells = {}
        for column, cell in line.cells.items():
            if not math.isnan(cell.value):
                cells[column] = {
                    "value": cell.value,
                    "text": cell_text(cell),
                    "title": _sources(cell),
                }
        lines.append({"model": line.model, "measured": line.measured, "cells": cells})
    return {"columns": columns, "lines": lines}


def _sources(cell: BoardCell) -> str:
    sources = [cell.source]
    for other in cell.others:
        sources.append(f"{other.value:g} in {other.source}")
    prefix = "derived from " if cell.derived else ""
    return prefix + "; ".join([*sources, *(f"{CAVEAT} {text}" for text in cell.caveats)])


def _table_object(table: Table) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        rows.append([cell.text for cell in row])
    return {
        "caption": table.caption,
        "header": table.headings,
        "rows": rows,
        "notes": list(table.notes),
    }


def _run_object(run: Run) -> dict[str, Any]:
    subsets = list(dict.fromkeys(metric.subset for metric in run.metrics))
    names = list(dict.fromkeys(metric.name for metric in run.metrics))
    cells = {(metric.name, metric.subset): format_value(metric) for metric in run.metrics}
    rows = []
    for name in names:
        values = [cells.get((name, subset), "") for subset in subsets]
        rows.append([metric_title(run, name), values])
    whole = []
    for name, metric in run.whole().items():
        mark = CAVEAT if metric.caveats else ""
        whole.append([metric_title(run, name), format_value(metric), mark])
    return {
        "title": run.title,
        "model": run.label,
        "folder": str(run.folder),
        "whole": whole,
        "subsets": subsets,
        "rows": rows,
        "caveats": caveats_of(run.metrics),
        "details": _details(run.record),
    }


def _details(record: Mapping[str, Any]) -> list[list[str]]:
    """What the numbers were made with, as names and values; what was not set is left out."""
    details = []
    for name, value in flatten(record).items():
        is_told = name.startswith(DETAILS) and not name.startswith(LEFT_OUT)
        if is_told and value not in (None, "", []):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            details.append([name, text])
    return details


def _benchmark_object(
    name: str, run_samples: Sequence[RunSamples], index_of: Mapping[str, int]
) -> dict[str, Any]:
    """One benchmark's samples with the answers of all its runs, in the first run's order.

    Keys are short, because they stand there once for each of up to 9,000 samples.
    """
    answers = list(map(_answers, run_samples))
    samples = {sample.id: sample for item in run_samples for sample in item.samples}
    rows = []
    for sample in samples.values():
        rows.append(
            {
                "id": sample.id,
                "s": sample.subset,
                "i": index_of.get(sample.image, -1),
                "q": sample.question,
                "r": _reference(sample.reference),
                "a": [by_sample.get(sample.id) for by_sample in answers],
            }
        )
    return {
        "benchmark": name,
        "title": run_samples[0].run.title,
        "models": [item.run.label for item in run_samples],
        "subsets": list(dict.fromkeys(sample.subset for sample in samples.values())),
        "rows": rows,
    }


def _answers(run_samples: RunSamples) -> dict[str, dict[str, Any]]:
    """Each sample's answer.

    Its text, whether it is right, a remark, hallucinated objects, false claims, verdict, why it is
    unscored, whether it was cut off or goes round in circles, and what was thought before it.
    """
    run = run_samples.run
    verdicts = {}
    for row in run.store.all_verdicts():
        verdicts[row["sample"]] = row["text"]  # the last judge's word counts
    entries = {}
    for sample in run_samples.samples:
        answer = run.answers.get(run_samples.key_of.get(sample.id, ""))
        score = run.scores.get(sample.id)
        if answer is None and score is None:
            continue
        values: Values = score.values if score else {}
        entry: dict[str, Any] = {
            "t": answer.answer.text if answer else "",
            "ok": None if values.get("correct") is None else bool(values["correct"]),
        }
        extras = {
            "h": list(dict.fromkeys(values.get("hallucinated") or ())),
            "f": values.get("false_claims"),
            "note": _note(values),
            "why": score.unscored if score else None,
            "cut": answer is not None and answer.answer.finish == "length",
            "loop": answer is not None and is_loop(answer.answer.text),
            "th": answer.answer.thoughts if answer else "",
            "v": verdicts.get(sample.id),
        }
        for key, value in extras.items():
            if value:
                entry[key] = value
        entries[sample.id] = entry
    return entries


def _note(values: Values) -> str:
    parts = []
    p_yes = values.get("p_yes")
    if isinstance(p_yes, float) and math.isfinite(p_yes):
        parts.append(f"P(yes) {p_yes:.3f}")
    if values.get("rating") is not None:
        parts.append(f"rating {values['rating']}")
    return ", ".join(parts)


def _reference(value: Any) -> str:
    """A sample's reference as text: a label, a list of objects, or both by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_reference(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value))
    return str(value)
