"""What tables call the models of several runs: the shortest texts that tell them apart.

What a run is called is never what it is: two checkpoints may both be called checkpoint-500. Runs
of one model, by everything that its record says of it, share a label; others never do, nor do a
limited run and a whole one, or runs with other bounds of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.files import dump
from bench.runs.caveats import decoding_of
from bench.runs.run import Run

# Parts of a model's description that say nothing of what it is.
NAMES = ("name", "file", "software")


@dataclass
class _ModelRuns:
    """A model's runs, one of each benchmark."""

    base: str
    identity: str
    runs: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def first(self) -> Run:
        return next(iter(self.runs.values()))[0]


def give_labels(runs: Sequence[Run]) -> None:
    """Sets the label of each run, so that no two models among them share one."""
    by_base: dict[str, list[_ModelRuns]] = {}
    for run in runs:
        rows = by_base.setdefault(run.model, [])
        _row_of(run, rows).runs.setdefault(run.benchmark, []).append(run)
    for base, rows in by_base.items():
        for row, label in zip(rows, _labels(base, rows), strict=True):
            for members in row.runs.values():
                for run in members:
                    run.label = label


def _row_of(run: Run, rows: list[_ModelRuns]) -> _ModelRuns:
    """The row of the run's model that has no other run of its benchmark."""
    identity = _identity(run)
    for row in rows:
        others = row.runs.get(run.benchmark, [])
        is_same_run = all(other.folder == run.folder for other in others)
        if row.identity == identity and is_same_run:
            return row
    row = _ModelRuns(run.model, identity)
    rows.append(row)
    return row


def _identity(run: Run) -> str:
    """All that the record says of the model and of how it was asked, but for names and places.

    Who gives several runs one name says that they are one model: its answer files differ by
    benchmark.
    """
    name = run.record.get("name")
    model: Any = name
    if name is None:
        model = {key: value for key, value in run.record["model"].items() if key not in NAMES}
    return dump([model, _decoding(run), _length(run), _extent(run)])


def _labels(base: str, rows: Sequence[_ModelRuns]) -> list[str]:
    if len(rows) == 1:
        return [base]
    settings = _settings([row.first for row in rows])
    if len(set(settings)) == len(rows):
        return [f"{base} ({setting})" for setting in settings]
    ways: tuple[Callable[[Run], str | None], ...] = (_checkpoint, _adapter, _folder)
    for path_of in ways:
        paths = [path_of(row.first) for row in rows]
        known = []
        for path in paths:
            if path is not None:
                known.append(path)
        if len(set(known)) == len(rows):
            return [_label(base, ending) for ending in _distinct_endings(known)]
    # The same folder cannot hold two runs, so this is one run that was named twice.
    return [base] * len(rows)


def _settings(runs: Sequence[Run]) -> list[str]:
    """How each of some runs was asked, as far as they differ."""
    texts: list[list[str]] = [[] for _ in runs]
    for aspect in (_protocol, _decoding, _length, _extent):
        values = [aspect(run) for run in runs]
        if len(set(values)) > 1:
            for text, value in zip(texts, values, strict=True):
                text.append(value)
    return [", ".join(text) for text in texts]


def _protocol(run: Run) -> str:
    protocol = run.record["model"].get("protocol")
    return str(protocol.get("name")) if isinstance(protocol, Mapping) else "no protocol"


def _decoding(run: Run) -> str:
    return decoding_of(run.record).removeprefix("sampled at ") or "greedy"


def _length(run: Run) -> str:
    bound = run.record.get("max_tokens")
    return "usual length" if bound is None else f"{bound} tokens"


def _extent(run: Run) -> str:
    return "whole" if run.record.get("limit") is None else "limited"


def _checkpoint(run: Run) -> str | None:
    """Where the checkpoint or the recorded answers lay, None if it came from the hub."""
    path = run.record["source"].get("model")
    return None if path is None else str(path)


def _adapter(run: Run) -> str | None:
    path = run.record["source"].get("adapter")
    return None if path is None else str(path)


def _folder(run: Run) -> str:
    return str(run.folder.resolve())


def _distinct_endings(paths: Sequence[str]) -> list[str]:
    """The shortest endings of different paths that are all different, as long as each other."""
    parts = [Path(path).parts for path in paths]
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    endings = ["/".join(part[-length:]).lstrip("/") for part in parts]
    # Bytes that are no text are shown so that names stay different.
    return [ending.encode("utf-8", "backslashreplace").decode() for ending in endings]


def _label(base: str, ending: str) -> str:
    # expA/merged says more than "merged (expA/merged)".
    bare_base = base.removesuffix(" on scenes")
    if ending == bare_base or ending.endswith(f"/{bare_base}"):
        return ending + base.removeprefix(bare_base)
    return f"{base} ({ending})"
