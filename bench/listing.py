"""What `bench list` shows; imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path

from bench import registry
from bench.errors import BenchError, UnknownNameError


def listing(what: str, folder: Path) -> list[tuple[str, str]]:
    """(name, explanation) rows. Raises UnknownNameError for anything but models, suites, judges, rewards, runs."""
    if what == "runs":
        return _runs(folder)
    tables = {"suites": "benchmarks", "models": "models", "judges": "judges", "rewards": "rewards"}
    if what not in tables:
        raise UnknownNameError(f"There is no list of '{what}'.", f"There are {', '.join([*tables, 'runs'])}.")
    rows = sorted(registry.names(tables[what]).items())
    if what == "suites":
        return [(name, _title(name, target)) for name, target in rows] + [("lmms:TASK", "a task of lmms-eval")]
    if what == "models":
        rows = [(alias, f"= {_short(target)}") for alias, target in registry.MODEL_ALIASES.items()] + [
            (f"{name}:…" if name != "hf" else "HUB/ID or FOLDER", target) for name, target in rows
        ]
    return rows


def _short(target: str) -> str:
    return "shipped with this package" if Path(target).is_absolute() else target


def _title(name: str, target: str) -> str:
    """The benchmark's own title, or where a plugin that cannot be loaded was to come from."""
    try:
        return str(registry.load("benchmarks", name).title)
    except (BenchError, AttributeError):
        return f"(cannot be loaded from {target})"


def _runs(folder: Path) -> list[tuple[str, str]]:
    rows = []
    for file in sorted(folder.glob("**/run.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            state = "scored" if file.with_name("metrics.json").exists() else "unfinished"
            text = f"{record['benchmark']['name']} · {record['model'].get('name', '?')} · {record['created']} · {state}"
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            text = f"unreadable run.json ({type(error).__name__})"
        rows.append((str(file.parent), text))
    return rows
