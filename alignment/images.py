"""An image for every prompt, the best of several candidates where the source can make several.

Artifact: images/*.png and images.jsonl with {"id", "file", "prompt", "instructions", "candidates"}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.recipe import FolderImages, RecipeError, SceneImages
from bench.data.images import read_image
from bench.errors import DataError, os_reason
from bench.scenes.render import picture
from bench.scenes.world import CONTEXTS, Scene, scene
from bench.store import append_lines, read_lines
from bench.terminal import progress_bar

VERSION = "1"
KINDS = (".png", ".jpg", ".jpeg", ".webp")


def identity(settings: SceneImages | FolderImages) -> Any:
    """The names and sizes of a folder's pictures."""
    if isinstance(settings, SceneImages):
        return None
    return [(file.name, file.stat().st_size) for file in _pictures(settings.path)]


def run(settings: SceneImages | FolderImages, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """One picture a prompt. Pictures that cannot be read are dropped and counted."""
    rows = read_lines(inputs["prompts"] / "prompts.jsonl")
    done = {row["id"] for row in read_lines(out / "images.jsonl")}
    (out / "images").mkdir(exist_ok=True)
    with progress_bar("images", len(rows)) as progress:
        for number, row in enumerate(rows):
            if row["id"] not in done:
                append_lines(out / "images.jsonl", [_image(settings, row, number, out, seed)])
            progress(1)
    made = read_lines(out / "images.jsonl")
    dropped = sum(row["file"] is None for row in made)
    return {"images": len(made) - dropped, "candidates": sum(len(r["candidates"]) for r in made), "dropped": dropped}


def _image(
    settings: SceneImages | FolderImages, row: Mapping[str, Any], number: int, out: Path, seed: int
) -> dict[str, Any]:
    kept = {"id": row["id"], "prompt": row["prompt"], "instructions": row["instructions"]}
    if isinstance(settings, SceneImages):
        drawn = _candidates(settings.candidates, row, number, seed)
        scored = [(facts_score(item, row), item) for item in drawn]
        best = max(scored, key=lambda pair: pair[0])[1]
        picture(best).save(out / "images" / best.name)
        listed = [{"image": item.name, "score": score} for score, item in scored]
        return {**kept, "file": f"images/{best.name}", "candidates": listed}
    files = _pictures(settings.path)
    name = row.get("image")
    if name is None and number >= len(files):
        return {**kept, "file": None, "candidates": [], "dropped": "no picture left in the folder"}
    source = settings.path / name if name is not None else files[number]
    try:
        read_image(source)
    except DataError as error:
        return {**kept, "file": None, "candidates": [], "dropped": f"{error.fact} {error.reason}"}
    target = out / "images" / f"{row['id']}-{source.name}"
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        target.write_bytes(source.read_bytes())
    return {**kept, "file": f"images/{target.name}", "candidates": []}


def _candidates(count: int, row: Mapping[str, Any], number: int, seed: int) -> list[Scene]:
    """Scenes of the prompt's place, as a text-to-image model would draw several: none is sure to show all of it."""
    if row.get("place") not in {context.name for context in CONTEXTS}:
        raise RecipeError(
            f"Prompt {row['id']} names no place of the built-in world.",
            f"It is {row['prompt']!r:.80}.",
            "Use `prompts: {kind: templates}` with `images: {kind: scenes}`.",
        )
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        item = scene("train", seed + 1, number * 10_000 + index)
        index += 1
        if item.context.name == row["place"]:
            found.append(item)
    return found


def facts_score(item: Scene, row: Mapping[str, Any]) -> float:
    """F1 of the objects shown and those that the prompt asks for."""
    wanted, shown = {*row["objects"]}, {*item.counts}
    return 2 * len(wanted & shown) / (len(wanted) + len(shown))


def _pictures(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in KINDS)
    except OSError as error:
        raise RecipeError(f"{folder} cannot be read.", f"{os_reason(error)}.", "Check the path.") from error
