"""`bench align`: the stages of a recipe, each leaving an artifact that is made once and used again.

A stage's artifact lies in OUT/STAGE-KEY. KEY stands for the stage's version, settings, seed and the
contents of its inputs, so variants of a recipe share what they have in common, and nothing is made
twice. A folder is finished when it has its manifest.json; a killed stage goes on from the lines
that it has written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignment.recipe import Recipe
from alignment.settings import Settings
from alignment.stages import (
    dpo,
    evaluate,
    images,
    preferences,
    prompts,
    released_pairs,
    responses,
    rewards,
)
from bench.errors import StoreError, os_reason
from bench.files import dump, read_json, write_json
from bench.runs.environment import environment

MANIFEST = "manifest.json"


class Stage(Protocol):
    """A module of `alignment/stages/` that makes one artifact.

    VERSION is raised whenever what it makes can change.
    """

    VERSION: str

    def identity(self, settings: Any) -> Any:
        """What besides the settings decides the result, models' weights for one; as JSON."""

    def run(
        self, settings: Any, inputs: Mapping[str, Path], out: Path, seed: int
    ) -> dict[str, Any]:
        """Makes the artifact in `out`, where an earlier attempt may have left its lines.

        Returns counts for the manifest.
        """


# Stages in their order, each with the stages whose artifacts it reads.
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


def align(recipe: Recipe, out: Path, report: Callable[[str], None]) -> dict[str, Artifact]:
    """Runs all stages of a recipe that are not done yet; returns every stage's artifact.

    Args:
        recipe: What to do.
        out: The folder of the artifacts.
        report: Gets a line for each stage.

    Raises:
        BenchError: A stage cannot do its work; what it has done stays and is not done again.
    """
    artifacts: dict[str, Artifact] = {}
    for name, (stage, sources) in STAGES.items():
        settings = getattr(recipe, name)
        if name == "preferences" and recipe.pairs is not None:
            stage, settings = released_pairs, recipe.pairs
        # A recipe from `pairs` has no stages before them, and evaluation is optional.
        if settings is None:
            continue
        inputs = {source: artifacts[source] for source in sources if source in artifacts}
        artifacts[name] = _make(name, stage, settings, inputs, out, recipe.seed, report)
    return artifacts


def results(artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """The rows of the last stage's comparison, none if the recipe does not evaluate."""
    if "evaluate" not in artifacts:
        return []
    return evaluate.read_results(artifacts["evaluate"].folder)


def _make(
    name: str,
    stage: Stage,
    settings: Settings,
    inputs: Mapping[str, Artifact],
    out: Path,
    seed: int,
    report: Callable[[str], None],
) -> Artifact:
    """A stage's artifact: the finished one if it is there, else made now."""
    with _file_errors(name):
        identity = {
            "stage": name,
            "version": stage.VERSION,
            "settings": _deciding_settings(settings),
            "identity": stage.identity(settings),
            "seed": seed,
            "inputs": {source: item.manifest["sha256"] for source, item in inputs.items()},
        }
    key = hashlib.sha256(dump(identity).encode()).hexdigest()[:10]
    folder = out / f"{name}-{key}"
    if (folder / MANIFEST).is_file():
        report(f"{name}: done before, {folder}")
        return _finished(folder)
    # An input that was edited by hand would make an artifact that its manifest denies.
    for artifact in inputs.values():
        check(artifact)
    started = time.perf_counter()
    with _file_errors(name):
        folder.mkdir(parents=True, exist_ok=True)
        folders = {source: artifact.folder for source, artifact in inputs.items()}
        counts = stage.run(settings, folders, folder, seed)
    digests = {file.relative_to(folder).as_posix(): _digest(file) for file in _files(folder)}
    seconds = round(time.perf_counter() - started, 1)
    manifest = identity | {
        "counts": counts,
        "seconds": seconds,
        "environment": environment(),
        "files": digests,
        "sha256": hashlib.sha256(dump(digests).encode()).hexdigest(),
    }
    # Written last: a folder with a manifest is finished.
    write_json(folder / MANIFEST, manifest)
    counted = ", ".join(f"{what} {number}" for what, number in counts.items())
    report(f"{name}: {counted}; {seconds:.0f} s, {folder}")
    return Artifact(folder, manifest)


@contextmanager
def _file_errors(name: str) -> Iterator[None]:
    """Tells a missing file, one that cannot be written or a full disk as the stage's error."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Stage {name} stopped.",
            f"{os_reason(error)}: {error.filename or 'a file of the stage'}.",
            "Correct the path or free space, then start the same command again: it goes on where "
            "it stopped.",
        ) from error


def _deciding_settings(settings: Settings) -> dict[str, Any]:
    """All settings but where files lie and what changes no result.

    The contents of files are in the stage's identity.
    """
    values = settings.model_dump(mode="json", exclude=set(settings.MOVES_NOTHING))
    # A recipe that was moved with its files makes the same artifacts.
    deciding = {}
    for name, value in values.items():
        if not isinstance(getattr(settings, name), Path):
            deciding[name] = value
    return deciding


def _finished(folder: Path) -> Artifact:
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not {"files", "sha256", "counts"} <= manifest.keys():
        raise StoreError(
            f"{folder / MANIFEST} is damaged.",
            "It lacks its lists.",
            f"Delete {folder} and start again.",
        )
    return Artifact(folder, manifest)


def check(artifact: Artifact) -> None:
    """Raises StoreError if a file of an artifact is gone or was changed."""
    for name, digest in artifact.manifest["files"].items():
        file = artifact.folder / name
        if not file.is_file() or _digest(file) != digest:
            state = "was changed" if file.exists() else "is gone"
            raise StoreError(
                f"{file} {state}.",
                "A later stage needs it as it was.",
                f"Delete {artifact.folder}: it is made again.",
            )


def _files(folder: Path) -> list[Path]:
    """All files of an artifact but its manifest."""
    files = []
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.name != MANIFEST:
            files.append(file)
    return sorted(files)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
