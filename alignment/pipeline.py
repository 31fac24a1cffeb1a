"""`bench align`: the stages of a recipe, each leaving an artifact that is made once and used again.

A stage's artifact lies in OUT/STAGE-KEY; KEY stands for the stage's version, settings, seed and the contents of its
inputs, so variants of a recipe share what they have in common, and nothing is made twice. A folder is finished when it
has its manifest.json; a killed stage goes on from the lines that it has written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignment import dpo, evaluate, exchange, images, preferences, prompts, responses, rewards
from alignment.recipe import Recipe
from bench.environment import environment
from bench.errors import StoreError
from bench.store import dump, read_json, write_json

MANIFEST = "manifest.json"


class Stage(Protocol):
    """A module of this package that makes one artifact."""

    VERSION: str

    def identity(self, settings: Any) -> Any:
        """What besides the settings decides the result, models' weights for one; JSON."""

    def run(self, settings: Any, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
        """Makes the artifact in `out`, where an earlier attempt may have left its lines; returns counts."""


STAGES: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "prompts": (prompts, ()),
    "images": (images, ("prompts",)),
    "responses": (responses, ("images",)),
    "rewards": (rewards, ("images", "responses")),
    "preferences": (preferences, ("images", "responses", "rewards")),
    "dpo": (dpo, ("images", "preferences")),
    "evaluate": (evaluate, ("dpo",)),
}


@dataclass(frozen=True)
class Artifact:
    """A finished stage: its folder and its manifest."""

    folder: Path
    manifest: Mapping[str, Any]


def align(recipe: Recipe, out: Path, told: Callable[[str], None]) -> dict[str, Artifact]:
    """Runs all stages of a recipe that are not done yet; returns every stage's artifact.

    Raises BenchError where a stage cannot do its work; what it has done stays and is not done again.
    """
    made: dict[str, Artifact] = {}
    for name, (stage, sources) in STAGES.items():
        settings = getattr(recipe, name)
        if name == "preferences" and recipe.pairs is not None:
            stage, settings = exchange, recipe.pairs
        if settings is None:
            continue
        inputs = {source: made[source] for source in sources if source in made}
        made[name] = _stage(name, stage, settings, inputs, out, recipe.seed, told)
    return made


def results(made: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """The rows of the last stage's comparison, none where the recipe does not evaluate."""
    if "evaluate" not in made:
        return []
    rows: list[dict[str, Any]] = read_json(made["evaluate"].folder / "results.json")
    return rows


def _stage(
    name: str,
    stage: Stage,
    settings: Any,
    inputs: Mapping[str, Artifact],
    out: Path,
    seed: int,
    told: Callable[[str], None],
) -> Artifact:
    with _stops(name):
        asked = {
            "stage": name,
            "version": stage.VERSION,
            "settings": _settings(settings),
            "identity": stage.identity(settings),
            "seed": seed,
            "inputs": {source: artifact.manifest["sha256"] for source, artifact in inputs.items()},
        }
    folder = out / f"{name}-{hashlib.sha256(dump(asked).encode()).hexdigest()[:10]}"
    if (folder / MANIFEST).is_file():
        told(f"{name}: done before, {folder}")
        return _finished(folder)
    for artifact in inputs.values():
        check(artifact)
    started = time.perf_counter()
    with _stops(name):
        folder.mkdir(parents=True, exist_ok=True)
        counts = stage.run(settings, {source: a.folder for source, a in inputs.items()}, folder, seed)
    files = {file.relative_to(folder).as_posix(): _digest(file) for file in _files(folder)}
    manifest = asked | {
        "counts": counts,
        "seconds": round(time.perf_counter() - started, 1),
        "environment": environment(),
        "files": files,
        "sha256": hashlib.sha256(dump(files).encode()).hexdigest(),
    }
    write_json(folder / MANIFEST, manifest)
    told(f"{name}: {', '.join(f'{k} {v}' for k, v in counts.items())}; {manifest['seconds']:.0f} s, {folder}")
    return Artifact(folder, manifest)


@contextmanager
def _stops(name: str) -> Iterator[None]:
    """Tells a file that is missing or cannot be written, and a full disk, as errors of the stage."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Stage {name} stopped.",
            f"{error.strerror or error}: {error.filename or 'a file of the stage'}.",
            "Mend the path or free space, then start the same command again: it goes on where it stopped.",
        ) from error


def _settings(settings: Any) -> dict[str, Any]:
    """All settings but where files lie (their contents are in the stage's identity) and what changes no result."""
    kept: dict[str, Any] = settings.model_dump(mode="json", exclude=settings.MOVES_NOTHING)
    return {name: value for name, value in kept.items() if not isinstance(getattr(settings, name), Path)}


def _finished(folder: Path) -> Artifact:
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not {"files", "sha256", "counts"} <= manifest.keys():
        raise StoreError(f"{folder / MANIFEST} is damaged.", "It lacks its lists.", f"Delete {folder} and start again.")
    return Artifact(folder, manifest)


def check(artifact: Artifact) -> None:
    """Raises StoreError where a file of an artifact is gone or was changed."""
    for name, digest in artifact.manifest["files"].items():
        file = artifact.folder / name
        if not file.is_file() or _digest(file) != digest:
            state = "was changed" if file.exists() else "is gone"
            raise StoreError(
                f"{file} {state}.", "A later stage needs it as it was.", f"Delete {artifact.folder}: it is made again."
            )


def _files(folder: Path) -> list[Path]:
    kept = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(file for file in kept if file.name != MANIFEST)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
