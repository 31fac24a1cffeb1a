"""`bench align`: the stages of a recipe, each leaving an artifact that is made once and used again.

A stage's artifact lies in OUT/STAGE-KEY. KEY stands for the stage's version, settings, seed and the
contents of its inputs, so variants of a recipe share what they have in common, and nothing is made
twice. A folder is finished when it has its manifest.json; a killed stage goes on from the lines
that it has written.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from alignment.recipe import Recipe
from alignment.rows import KEYED, MANIFEST, Manifest, TrainingCounts, read_manifest
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
from bench.errors import BenchError, StoreError, os_reason
from bench.files import (
    check_ours,
    digests_below,
    dump,
    locked,
    read_lines,
    remove_temporary,
    sha256_of,
    write_json,
)
from bench.runs.environment import environment


class Stage(Protocol):
    """A module of `alignment/stages/` that makes one artifact.

    VERSION is raised whenever what it makes can change.
    """

    VERSION: str

    def identity(self, settings: Any) -> Any:
        """What besides the settings decides the result, models' weights for one; as JSON."""

    def check(self, settings: Any) -> None:
        """Raises BenchError for what would stop the stage when its turn comes."""

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
    manifest: Manifest


def align(recipe: Recipe, out: Path, report: Callable[[str], None]) -> dict[str, Artifact]:
    """Runs all stages of a recipe that are not done yet; returns every stage's artifact.

    Args:
        recipe: What to do.
        out: The folder of the artifacts.
        report: Gets a line for each stage.

    Raises:
        BenchError: A stage cannot do its work; what it has done stays and is not done again.
    """
    planned = planned_stages(recipe)
    identities = _checked(planned, out, recipe.seed)
    artifacts: dict[str, Artifact] = {}
    for name, (stage, settings) in planned.items():
        inputs = _inputs(name, artifacts)
        identity = _identity(name, stage, settings, identities[name], inputs, recipe.seed)
        artifacts[name] = _make(name, stage, settings, identity, inputs, out, recipe.seed, report)
    return artifacts


def planned_stages(recipe: Recipe) -> dict[str, tuple[Stage, Settings]]:
    """The stages that a recipe has, in their order, with their settings."""
    planned = {}
    for name, (stage, _) in STAGES.items():
        settings = getattr(recipe, name)
        if name == "preferences" and recipe.pairs is not None:
            stage, settings = released_pairs, recipe.pairs
        if name == "rewards":
            settings = recipe.given_rewards()
        # A recipe from `pairs` has no stages before them, and evaluation is optional.
        if settings is not None:
            planned[name] = (stage, settings)
    return planned


def _inputs(name: str, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts that a stage reads, of those that there are."""
    return {source: artifacts[source] for source in STAGES[name][1] if source in artifacts}


def _checked(planned: Mapping[str, tuple[Stage, Settings]], out: Path, seed: int) -> dict[str, Any]:
    """The identities of all stages, each checked that is not done yet.

    Raises BenchError with all that would stop a stage, before the first of them costs anything.
    """
    identities = {}
    artifacts: dict[str, Artifact] = {}
    faults = []
    for name, (stage, settings) in planned.items():
        try:
            with _file_errors(name):
                identities[name] = stage.identity(settings)
            inputs = _inputs(name, artifacts)
            if len(inputs) == len([source for source in STAGES[name][1] if source in planned]):
                identity = _identity(name, stage, settings, identities[name], inputs, seed)
                folder = out / f"{name}-{_key(identity)}"
                if (folder / MANIFEST).is_file():
                    artifacts[name] = _finished(folder)
                    continue
            stage.check(settings)
        except BenchError as error:
            faults.append((name, error))
    if len(faults) == 1:
        raise faults[0][1]
    if faults:
        texts = []
        for name, fault in faults:
            texts.append(f"  {name}: {fault.fact} {fault.reason} {fault.remedy}")
        listed = "\n".join(texts)
        raise BenchError(
            f"{len(faults)} stages cannot run.", f"They are:\n{listed}", "Correct them."
        )
    return identities


def _identity(
    name: str,
    stage: Stage,
    settings: Settings,
    identity: Any,
    inputs: Mapping[str, Artifact],
    seed: int,
) -> dict[str, Any]:
    """All that decides a stage's artifact."""
    return {
        "stage": name,
        "version": stage.VERSION,
        "settings": _deciding_settings(settings),
        "identity": identity,
        "seed": seed,
        "inputs": {source: item.manifest["sha256"] for source, item in inputs.items()},
    }


def _key(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump(identity).encode()).hexdigest()[:10]


def results(artifacts: Mapping[str, Artifact]) -> list[evaluate.ResultRow]:
    """The rows of the last stage's comparison, none if the recipe does not evaluate."""
    if "evaluate" not in artifacts:
        return []
    return evaluate.read_results(artifacts["evaluate"].folder)


def training_counts(artifacts: Mapping[str, Artifact]) -> TrainingCounts:
    """Of the training. Raises StoreError if its manifest does not have them."""
    folder, manifest = artifacts["dpo"].folder, artifacts["dpo"].manifest
    check_ours(TrainingCounts, manifest["counts"], folder / MANIFEST)
    return cast(TrainingCounts, manifest["counts"])


def runs(artifacts: Mapping[str, Artifact]) -> list[evaluate.RunPair]:
    """The runs that were compared, none if the recipe does not evaluate."""
    if "evaluate" not in artifacts:
        return []
    return evaluate.read_runs(artifacts["evaluate"].folder)


def _make(
    name: str,
    stage: Stage,
    settings: Settings,
    identity: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    out: Path,
    seed: int,
    report: Callable[[str], None],
) -> Artifact:
    """A stage's artifact: the finished one if it is there, else made now.

    If another process makes it, waits for that one.
    """
    folder = out / f"{name}-{_key(identity)}"
    with _file_errors(name):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out / f".{folder.name}.lock", f"{name}: another process makes {folder}", report):
        if (folder / MANIFEST).is_file():
            report(f"{name}: done before, {folder}")
            return _finished(folder)
        # An input that was edited by hand would make an artifact that its manifest denies.
        for artifact in inputs.values():
            check(artifact)
        with _file_errors(name), _timed(out / f".{folder.name}.seconds") as spent:
            folder.mkdir(exist_ok=True)
            # A manifest that a kill kept from its name would be listed, and then be gone.
            remove_temporary(folder)
            folders = {source: artifact.folder for source, artifact in inputs.items()}
            counts = stage.run(settings, folders, folder, seed)
            _check_keys(folder)
            digests = digests_below(folder, _files(folder))
            seconds = round(spent(), 1)
        manifest: Manifest = {
            **identity,  # type: ignore[typeddict-item]
            "counts": counts,
            "seconds": seconds,
            "environment": environment(),
            "files": digests,
            "sha256": hashlib.sha256(dump(digests).encode()).hexdigest(),
        }
        # Written last: a folder with a manifest is finished.
        write_json(folder / MANIFEST, manifest)
    report(f"{name}: {_in_words(counts)}; {seconds:.0f} s, {folder}")
    return Artifact(folder, manifest)


def _in_words(counts: Mapping[str, Any]) -> str:
    """Such as "2,000 pairs, 3,000 groups, mean margin 2.973"; the manifest has all of them."""
    words = []
    for what, value in counts.items():
        name = what.replace("_", " ")
        if isinstance(value, bool):
            words += [name] if value else []
        elif isinstance(value, int):
            words += [f"{value:,} {name}"] if value else []
        elif isinstance(value, float):
            words.append(f"{name} {value:g}")
    return ", ".join(words) or "nothing to count"


@contextmanager
def _timed(file: Path) -> Iterator[Callable[[], float]]:
    """Gives the seconds that a stage has taken, those of sessions that were stopped included.

    The file keeps them from one session to the next; a kill loses those of its session.
    """
    try:
        before = float(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = 0.0
    started = time.perf_counter()

    def spent() -> float:
        return before + time.perf_counter() - started

    try:
        yield spent
    except BaseException:
        with suppress(OSError):  # on a full disk the stage's own error is told
            file.write_text(str(spent()), encoding="utf-8")
        raise
    file.unlink(missing_ok=True)


def _check_keys(folder: Path) -> None:
    """Raises StoreError if a file of rows has one of them twice."""
    for name, (kind, column) in KEYED.items():
        rows: list[Any] = read_lines(folder / name, kind)
        counts = Counter(row[column] for row in rows)
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise StoreError(
                f"{folder / name} holds {len(twice)} rows twice.",
                f"The first is {twice[0]}; something else has written into the folder.",
                f"Delete {folder} and start again.",
            )


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
    return Artifact(folder, read_manifest(folder))


def check(artifact: Artifact) -> None:
    """Raises StoreError if a file of an artifact is gone or was changed."""
    for name, digest in artifact.manifest["files"].items():
        file = artifact.folder / name
        if not file.is_file() or sha256_of(file) != digest:
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
