"""What a run's figures were made from: digests of its files, kept in metrics.json.

A bit that flips on a disk, a half-copied folder, an editor: what is no longer what the figures were
made from is told, and not read. Files may grow afterwards (answers that failed are asked again, a
judge goes on), so a digest is of as many bytes as there were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from bench.errors import StoreError
from bench.files import check_ours, dump, indented

SEALED = ("run.json", "answers.jsonl", "verdicts.jsonl", "scores.jsonl")
FILES, OWN = "files", "sha256"  # keys of metrics.json
MEANT = "start the run's command or `bench score` again, which makes the figures anew"


class SealedFile(TypedDict):
    """How much of a file the figures were made from, and its digest."""

    bytes: int
    sha256: str


class Sealed(TypedDict):
    """The content of metrics.json."""

    files: dict[str, SealedFile]
    metrics: list[dict[str, Any]]


def seal(contents: Mapping[str, bytes], metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of metrics.json: the metrics, digests of the files, and its own.

    Args:
        contents: What the files hold that the figures were made from, by name.
        metrics: The metrics.
    """
    files = {}
    for name, data in contents.items():
        files[name] = {"bytes": len(data), "sha256": _digest(data)}
    return with_digest({"metrics": list(metrics), FILES: files})


def contents_of(folder: Path) -> dict[str, bytes]:
    """What a run's files hold that its figures were made from, by name."""
    contents = {}
    for name in SEALED:
        if (folder / name).is_file():
            contents[name] = (folder / name).read_bytes()
    return contents


def check_seal(file: Path, content: Any) -> dict[str, Any]:
    """The content of metrics.json if it is as it was written. Raises StoreError if it is not."""
    if not has_digest(content):
        raise StoreError(
            f"{file} is not as it was written.",
            "Its digest is of other content, or it is of an earlier version, which kept none.",
            f"Restore it, or delete it and {MEANT}.",
        )
    check_ours(Sealed, content, file)
    return dict(content)


def check_file(file: Path, data: bytes, content: Mapping[str, Any]) -> None:
    """Raises StoreError if a file of the run is no longer what its figures were made from.

    Args:
        file: The file.
        data: What it holds.
        content: Of metrics.json.
    """
    sealed = content[FILES].get(file.name)
    if sealed is None or _digest(data[: sealed["bytes"]]) == sealed["sha256"]:
        return
    raise StoreError(
        f"{file} is not what the run's figures were made from.",
        f"It has other content in its first {sealed['bytes']:,} bytes.",
        f"Restore it; or, if you changed it on purpose, delete {file.parent / 'metrics.json'} and "
        f"{MEANT}.",
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content as JSON gives it back, with its digest, which `has_digest` finds right."""
    plain = json.loads(indented(content))
    return {**plain, OWN: _own_digest(plain)}


def has_digest(content: Any) -> bool:
    """Whether an object has the digest that it was written with."""
    if not isinstance(content, dict) or OWN not in content:
        return False
    rest = {name: value for name, value in content.items() if name != OWN}
    digest = _own_digest(rest)
    return digest is not None and bool(content[OWN] == digest)


def _own_digest(content: Mapping[str, Any]) -> str | None:
    """None of what we never write."""
    try:
        return hashlib.sha256(dump(content).encode()).hexdigest()
    except (ValueError, RecursionError):  # NaN, or nested without end
        return None
