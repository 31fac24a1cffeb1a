"""Makers of recorded runs: folders as `bench run` leaves them, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.files import append_lines, write_json
from bench.runs.seal import contents_of, seal

RECORD: dict[str, Any] = {
    "format": 1,
    "created": "2026-01-01T00:00:00+00:00",
    "benchmark": {"name": "pope", "version": "1"},
    "data": {"samples": 400, "sha256": "x", "files": {"a.json": "1"}},
    "source": {"data": "hub", "images": None, "replayed": False, "adapter": None},
    "prompt": {"suffix": "Answer."},
    "limit": None,
    "judge": None,
    "model": {"name": "m", "protocol": {"name": "llava"}},
}
QUESTIONS_PER_IMAGE = 4


def record_of(name: str = "m", **parts: Any) -> dict[str, Any]:
    """RECORD with another model name and other parts."""
    return RECORD | {"model": RECORD["model"] | {"name": name}} | parts


def metric_row(
    name: str, subset: str, value: float | None, half_width: float = 0.01
) -> dict[str, Any]:
    """A metric as metrics.json holds it."""
    low = high = None
    if value is not None:
        low, high = value - half_width, value + half_width
    return {
        "name": name,
        "subset": subset,
        "value": value,
        "low": low,
        "high": high,
        "n": 400,
        "unscored": 0,
        "better": "higher",
        "unit": "fraction",
    }


def score_row(sample: str, cluster: str, subset: str = "random", **values: Any) -> dict[str, Any]:
    """A score as scores.jsonl holds it."""
    return {
        "sample": sample,
        "subset": subset,
        "cluster": cluster,
        "values": values,
        "unscored": None,
    }


def write_run(
    folder: Path,
    record: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]] = (),
    answers: Mapping[str, str] | None = None,
) -> Path:
    """A finished run with these contents; `answers` are texts by key."""
    folder.mkdir(parents=True)
    write_json(folder / "run.json", dict(record))
    append_lines(folder / "scores.jsonl", scores)
    rows = []
    for key, text in (answers or {}).items():
        rows.append({"key": key, "image": f"{key}.png", "text": text})
    append_lines(folder / "answers.jsonl", rows)
    sealed(folder, metrics)
    return folder


def sealed(folder: Path, metrics: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """A run whose files a test has written, as if its figures were made from them.

    `metrics` replace those that it has.
    """
    file = folder / "metrics.json"
    if metrics is None:
        metrics = json.loads(file.read_text())["metrics"]
    write_json(file, seal(contents_of(folder), metrics))
    return folder


def pope_run(
    folder: Path,
    right: Sequence[int | bool | None],
    record: Mapping[str, Any] = RECORD,
    metrics: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """A finished POPE run with four questions an image.

    `right` says which questions are answered rightly; None leaves one without a score. Odd
    questions have the label yes.
    """
    scores, answers = [], {}
    for number, ok in enumerate(right):
        answers[str(number)] = "Yes" if ok else "No"
        if ok is None:
            continue
        label, other = ("yes", "no") if number % 2 else ("no", "yes")
        scores.append(
            score_row(
                f"random/{number}",
                f"{number // QUESTIONS_PER_IMAGE}.png",
                answer=label if ok else other,
                label=label,
                correct=bool(ok),
                unparsed=False,
                p_yes=None,
            )
        )
    return write_run(folder, record, scores, metrics, answers)
