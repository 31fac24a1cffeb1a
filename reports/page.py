"""One self-contained HTML page: the board, every run's metrics, and a browser of samples with pictures and answers.

Texts of models are data, never markup: they travel as JSON and are shown as text nodes; the page's own script is the
only one that its content security policy lets run, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from bench.store import RunFolder, read_lines, replace_file
from bench.types import Sample, format_value
from leaderboards.board import COLUMNS, Line, Run, cell_text

TEMPLATES = Path(__file__).parent / "templates"
SIDE, QUALITY = 160, 80  # of thumbnails


class Asked(NamedTuple):
    """What a run asked: its samples, the answer's key of each, and the pictures' files by name."""

    run: Run
    samples: Sequence[Sample]
    key_of: Mapping[str, str]
    pictures: Mapping[str, Path]


def write_page(lines: Sequence[Line], runs: Sequence[Run], asked: Sequence[Asked], file: Path) -> None:
    """Writes the page. Runs without an `Asked` are in its tables alone; pictures that cannot be read are left grey."""
    pictures: dict[str, Path] = {name: path for item in asked for name, path in item.pictures.items()}
    places = {name: place for place, name in enumerate(pictures)}
    data = {
        "board": _board(lines),
        "runs": [_run(run) for run in runs],
        "samples": [
            _benchmark(name, [item for item in asked if item.run.benchmark == name], places)
            for name in dict.fromkeys(item.run.benchmark for item in asked)
        ],
        "pictures": [_thumbnail(path) for path in pictures.values()],
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    page = Template((TEMPLATES / "page.html").read_text(encoding="utf-8")).substitute(
        data=text,
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
    replace_file(file, page)


def _board(lines: Sequence[Line]) -> dict[str, Any]:
    used = [item for item in COLUMNS if any(item[0] in line.cells for line in lines)]
    shown = [line for line in lines if any(column in line.cells for column, *_ in used)]
    return {
        "columns": [{"id": column, "heading": heading} for column, heading, _ in used],
        "lines": [
            {
                "model": line.model,
                "measured": line.measured,
                "cells": {
                    column: {"value": cell.value, "text": cell_text(cell), "title": _sources(cell)}
                    for column, cell in line.cells.items()
                    if not math.isnan(cell.value)
                },
            }
            for line in sorted(shown, key=lambda line: not line.measured)
        ],
    }


def _sources(cell: Any) -> str:
    told = [cell.source, *(f"{other.value:g} in {other.source}" for other in cell.others)]
    return ("derived from " if cell.derived else "") + "; ".join(told)


def _run(run: Run) -> dict[str, Any]:
    subsets = list(dict.fromkeys(metric.subset for metric in run.metrics))
    cells = {(metric.name, metric.subset): format_value(metric) for metric in run.metrics}
    names = list(dict.fromkeys(metric.name for metric in run.metrics))
    rows = [[name, [cells.get((name, subset), "") for subset in subsets]] for name in names]
    return {"benchmark": run.benchmark, "model": run.model, "folder": str(run.folder), "subsets": subsets, "rows": rows}


def _benchmark(name: str, asked: Sequence[Asked], places: Mapping[str, int]) -> dict[str, Any]:
    """One benchmark's samples with the answers of all its runs, in the order of the first run's samples."""
    known = [_answers(item) for item in asked]
    samples = {sample.id: sample for item in asked for sample in item.samples}
    rows = [
        {
            "n": number,
            "id": sample.id,
            "s": sample.subset,
            "i": places.get(sample.image, -1),
            "q": sample.question,
            "r": _reference(sample.reference),
            "a": [answers.get(sample.id) for answers in known],
        }
        for number, sample in enumerate(samples.values())
    ]
    return {
        "benchmark": name,
        "title": name,
        "models": [item.run.model for item in asked],
        "subsets": list(dict.fromkeys(sample.subset for sample in samples.values())),
        "rows": rows,
    }


def _answers(asked: Asked) -> dict[str, dict[str, Any]]:
    """Each sample's answer: text, whether it is right, a remark, hallucinated objects, verdict, why it is unscored."""
    store = RunFolder(asked.run.folder)
    said = store.answers()
    scores = {row["sample"]: row for row in read_lines(asked.run.folder / "scores.jsonl")}
    verdicts = {row["sample"]: row["text"] for row in read_lines(store.verdicts_file)}  # the last judge's word counts
    found = {}
    for sample in asked.samples:
        key, score = asked.key_of.get(sample.id), scores.get(sample.id, {})
        values = score.get("values") or {}
        if key not in said and not score:
            continue
        entry: dict[str, Any] = {"t": said[key][0].text if key in said else "", "ok": _right(values)}
        extras = {"h": values.get("hallucinated"), "note": _note(values), "why": score.get("unscored"),
                  "v": verdicts.get(sample.id)}  # fmt: skip
        found[sample.id] = entry | {name: value for name, value in extras.items() if value}
    return found


def _right(values: Mapping[str, Any]) -> bool | None:
    return None if values.get("correct") is None else bool(values["correct"])


def _note(values: Mapping[str, Any]) -> str:
    p = values.get("p_yes")
    told = [f"P(yes) {p:.3f}"] if isinstance(p, float) and math.isfinite(p) else []
    return ", ".join([*told, *([f"rating {values['rating']}"] if values.get("rating") is not None else [])])


def _reference(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_reference(item)}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def _thumbnail(path: Path) -> str | None:
    """A small JPEG as a data URL; None where the file is no picture."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
