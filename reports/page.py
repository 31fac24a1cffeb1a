"""One self-contained HTML page: the board, every run's metrics, and a browser of samples.

Texts of models are data, never markup: they travel as JSON and are shown as text nodes. The page's
own script is the only one that its content security policy lets run, and nothing is loaded from
anywhere.
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

from bench.data.images import read_image
from bench.errors import DataError
from bench.files import read_lines, replace_file
from bench.runs.caveats import is_loop
from bench.runs.run import Run
from bench.types import CAVEAT, Sample, Values, caveats_of, format_value
from leaderboards.board import Board, BoardCell, cell_text
from reports.tables import Table

TEMPLATES = Path(__file__).parent / "templates"
SIDE, QUALITY = 160, 80  # of thumbnails
# Characters that could end the script element or a line of JavaScript.
ESCAPED = "<>&\u2028\u2029"


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


def write_page(
    board: Board,
    runs: Sequence[Run],
    run_samples: Sequence[RunSamples],
    file: Path,
    tables: Sequence[Table] = (),
) -> None:
    """Writes the page.

    Args:
        board: Its first view.
        runs: The runs.
        run_samples: What they asked; a run that is not among them is in the tables only. Images
            that cannot be read are left grey.
        file: Where it goes.
        tables: Tables over several runs, shown above the runs' own.
    """
    images: dict[str, Path] = {}
    for item in run_samples:
        images |= item.images
    # A picture stands in the page once, however many samples ask about it.
    index_of = {name: index for index, name in enumerate(images)}
    samples = []
    by_benchmark: dict[str, list[RunSamples]] = {}
    for item in run_samples:
        by_benchmark.setdefault(item.run.benchmark, []).append(item)
    for benchmark, members in by_benchmark.items():
        samples.append(_benchmark(benchmark, members, index_of))
    data = {
        "board": _board(board),
        "tables": list(map(_table, tables)),
        "runs": list(map(_run, runs)),
        "samples": samples,
        "pictures": list(map(_thumbnail, images.values())),
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    # The policy names the one script that may run; what a model wrote cannot.
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Template((TEMPLATES / "page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        data=_safe_json(data),
        script=script,
        script_hash=f"sha256-{script_hash}",
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
    replace_file(file, page)


def _safe_json(data: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _board(board: Board) -> dict[str, Any]:
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


def _table(table: Table) -> dict[str, Any]:
    rows = []
    for row in table.rows:
        rows.append([cell.text for cell in row])
    return {
        "caption": table.caption,
        "header": list(table.header),
        "rows": rows,
        "notes": list(table.notes),
    }


def _run(run: Run) -> dict[str, Any]:
    subsets = list(dict.fromkeys(metric.subset for metric in run.metrics))
    names = list(dict.fromkeys(metric.name for metric in run.metrics))
    cells = {(metric.name, metric.subset): format_value(metric) for metric in run.metrics}
    rows = []
    for name in names:
        rows.append([name, [cells.get((name, subset), "") for subset in subsets]])
    return {
        "benchmark": run.benchmark,
        "model": run.label,
        "folder": str(run.folder),
        "subsets": subsets,
        "rows": rows,
        "caveats": caveats_of(run.metrics),
    }


def _benchmark(
    name: str, run_samples: Sequence[RunSamples], index_of: Mapping[str, int]
) -> dict[str, Any]:
    """One benchmark's samples with the answers of all its runs, in the first run's order.

    Keys are short, because they stand there once for each of up to 9,000 samples.
    """
    answers = list(map(_answers, run_samples))
    samples = {sample.id: sample for item in run_samples for sample in item.samples}
    rows = []
    for number, sample in enumerate(samples.values()):
        rows.append(
            {
                "n": number,
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
        "title": name,
        "models": [item.run.label for item in run_samples],
        "subsets": list(dict.fromkeys(sample.subset for sample in samples.values())),
        "rows": rows,
    }


def _answers(run_samples: RunSamples) -> dict[str, dict[str, Any]]:
    """Each sample's answer.

    Its text, whether it is right, a remark, hallucinated objects, verdict, why it is unscored,
    whether it was cut off or goes round in circles, and what was thought before it.
    """
    run = run_samples.run
    verdicts = {}
    for row in read_lines(run.store.verdicts_file):
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
            "h": values.get("hallucinated"),
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


def _thumbnail(path: Path) -> str | None:
    """A small JPEG as a data URL; None if the file is no image."""
    try:
        small = read_image(path)
    except DataError:
        return None
    small.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
