"""What `bench list` shows; imports nothing heavy."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import BenchError, StoreError, UnknownNameError
from bench.runs.caveats import decoding_of
from bench.runs.run import Run, find_runs

ALSO_CALLED = {"benchmarks": "suites", "tasks": "suites"}  # here, and by other harnesses
KINDS = ("suites", "models", "judges", "rewards", "recipes", "runs")
Listing = list[tuple[str, str]]  # name, explanation


def listing(what: str, folder: Path) -> Listing:
    """(name, explanation) rows. Raises UnknownNameError for anything but KINDS."""
    what = ALSO_CALLED.get(what, what)
    if what not in KINDS:
        raise UnknownNameError(
            f"There is no list of '{what}'.",
            registry.did_you_mean(what, KINDS) or f"There are {', '.join(KINDS)}.",
            "`bench list` shows all.",
        )
    if what == "runs":
        return _runs(folder)
    if what == "recipes":
        return _recipes()
    if what == "suites":
        return _suites()
    if what == "models":
        return _models()
    return sorted(registry.names(what).items())


def _suites() -> Listing:
    rows = []
    for name, target in sorted(registry.names("benchmarks").items()):
        try:
            benchmark = registry.load("benchmarks", name)
            title = str(benchmark.title)
        except (BenchError, AttributeError):  # one broken plugin must not hide the others
            rows.append((name, f"(cannot be loaded from {target})"))
            continue
        # A class of benchmarks takes a name of its own.
        rows.append((f"{name}:NAME" if isinstance(benchmark, type) else name, title))
    for name, members in registry.SUITES.items():
        rows.append((name, ", ".join(members)))
    return rows


def _models() -> Listing:
    rows = []
    for alias, target in registry.MODEL_ALIASES.items():
        is_shipped = Path(target).is_absolute()
        rows.append((alias, f"= {'shipped with this package' if is_shipped else target}"))
    for name, target in sorted(registry.names("models").items()):
        rows.append(("HUB/ID or FOLDER" if name == "hf" else f"{name}:…", target))
    return rows


def _recipes() -> Listing:
    # By path: importing the recipes' code would import torch.
    folder = Path(__file__).parents[2] / "alignment" / "recipes"
    rows = []
    for file in sorted(folder.glob("*.yaml")):
        lines = itertools.takewhile(
            lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines()
        )
        comment = " ".join(line.strip("# ") for line in lines)
        rows.append((file.stem, re.split(r"(?<=\.) ", comment)[0]))
    return rows


def objects(what: str, folder: Path) -> list[dict[str, Any]]:
    """The rows as objects with `name` and `what`; of runs, what `what` says by name too."""
    if what == "runs":
        return [{"name": str(run.folder), **_about(run)} for run in _found(folder)]
    return [{"name": name, "what": text} for name, text in listing(what, folder)]


def _runs(folder: Path) -> Listing:
    return [(str(run.folder), _about(run)["what"]) for run in _found(folder)]


def _found(folder: Path) -> list[Run]:
    try:
        return find_runs(folder)
    except StoreError:
        return []


def _about(run: Run) -> dict[str, Any]:
    """What a run is, by name and, in `what`, in words."""
    try:
        limit = run.record.get("limit")
        about = {
            "benchmark": run.benchmark,
            "model": run.model,
            "decoding": decoding_of(run.record),
            "subsets": ", ".join(run.record.get("subsets") or ()),
            "limit": None if limit is None else int(limit),
            "created": str(run.record["created"]),
            "state": "scored" if run.finished else "unfinished",
        }
    except (BenchError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        return {"what": f"unreadable run.json ({type(error).__name__})"}
    created = str(run.record["created"])[: len("2026-01-31T12:00")].replace("T", " ")
    shown = about | {"limit": "" if limit is None else f"limit {limit}", "created": created}
    return {"what": " · ".join(str(text) for text in shown.values() if text), **about}
