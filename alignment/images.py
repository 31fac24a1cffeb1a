"""An image for every prompt, the best of several candidates where the source can make several.

Artifact: images/ with the pictures and images.jsonl with {"id", "file", "prompt", "instructions", "candidates"}, where
candidates holds the score of every one that was made; `file` is null where a picture was dropped, with the reason.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from alignment import image_rewards
from alignment.recipe import DiffusersImages, FolderImages, RecipeError, SceneImages
from bench.data.images import read_image
from bench.errors import DataError, os_reason
from bench.scenes.render import picture
from bench.scenes.world import CONTEXTS, Scene, scene
from bench.store import append_lines, read_lines
from bench.terminal import progress_bar

VERSION = "1"
KINDS = (".png", ".jpg", ".jpeg", ".webp")
APART = 10_000  # scene numbers kept for each prompt's candidates
Kind = SceneImages | DiffusersImages | FolderImages
Row = Mapping[str, Any]
Maker = Callable[[Row, int, Path], dict[str, Any]]  # a prompt's row, its number, the folder → file, candidates, dropped


def identity(settings: Kind) -> Any:
    """The names and sizes of a folder's pictures."""
    if not isinstance(settings, FolderImages):
        return None
    return [(file.name, file.stat().st_size) for file in _pictures(settings.path)]


def run(settings: Kind, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """One picture a prompt. Pictures that cannot be read are dropped and counted."""
    rows = read_lines(inputs["prompts"] / "prompts.jsonl")
    done = {row["id"] for row in read_lines(out / "images.jsonl")}
    (out / "images").mkdir(exist_ok=True)
    make: Maker | None = None
    with progress_bar("images", len(rows)) as progress:
        for number, row in enumerate(rows):
            if row["id"] not in done:
                make = make or _maker(settings, seed)
                kept = {"id": row["id"], "prompt": row["prompt"], "instructions": row["instructions"]}
                append_lines(out / "images.jsonl", [kept | make(row, number, out / "images")])
            progress(1)
    made = read_lines(out / "images.jsonl")
    dropped = sum(row["file"] is None for row in made)
    return {"images": len(made) - dropped, "candidates": sum(len(r["candidates"]) for r in made), "dropped": dropped}


def _maker(settings: Kind, seed: int) -> Maker:
    if isinstance(settings, SceneImages):
        return partial(_draw, settings, seed)
    if isinstance(settings, FolderImages):
        return partial(_take, settings)
    return _generator(settings, seed)


def _draw(settings: SceneImages, seed: int, row: Row, number: int, folder: Path) -> dict[str, Any]:
    """The candidate whose objects are most like the prompt's. Raises RecipeError for a prompt of no place."""
    scored = [(facts_score(item, row), item) for item in _candidates(settings.candidates, row, number, seed)]
    best = max(scored, key=lambda pair: pair[0])[1]
    picture(best).save(folder / best.name)
    return {"file": f"images/{best.name}", "candidates": [{"image": i.name, "score": score} for score, i in scored]}


def _candidates(count: int, row: Row, number: int, seed: int) -> list[Scene]:
    """Scenes of the prompt's place, as a text-to-image model would draw several: none is sure to show all of it."""
    if row.get("place") not in {context.name for context in CONTEXTS}:
        raise RecipeError(
            f"Prompt {row['id']} names no place of the built-in world.",
            f"It is {row['prompt']!r:.80}.",
            "Use `prompts: {kind: templates}` with `images: {kind: scenes}`.",
        )
    found: list[Scene] = []
    index = number * APART
    while len(found) < count:
        item = scene("train", seed + 1, index)
        index += 1
        if item.context.name == row["place"]:
            found.append(item)
    return found


def facts_score(item: Scene, row: Row) -> float:
    """F1 of the objects shown and those that the prompt asks for."""
    wanted, shown = {*row["objects"]}, {*item.counts}
    return 2 * len(wanted & shown) / (len(wanted) + len(shown))


def _take(settings: FolderImages, row: Row, number: int, folder: Path) -> dict[str, Any]:
    files = _pictures(settings.path)
    name = row.get("image")
    if name is None and number >= len(files):
        return {"file": None, "candidates": [], "dropped": "no picture left in the folder"}
    source = settings.path / name if name is not None else files[number]
    try:
        read_image(source)
    except DataError as error:
        return {"file": None, "candidates": [], "dropped": f"{error.fact} {error.reason}"}
    target = folder / f"{row['id']}-{source.name}"
    keep_picture(source, target)
    return {"file": f"images/{target.name}", "candidates": []}


def keep_picture(source: Path, target: Path) -> None:
    """Puts a picture into an artifact: a hard link where the file system allows it, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        target.write_bytes(source.read_bytes())


def _pictures(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in KINDS)
    except OSError as error:
        raise RecipeError(f"{folder} cannot be read.", f"{os_reason(error)}.", "Check the path.") from error


def _generator(settings: DiffusersImages, seed: int) -> Maker:
    """A text-to-image pipeline and the reward that picks among its candidates. Raises RecipeError."""
    import torch

    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise RecipeError("diffusers is not installed.", f"{error}.", "pip install 'synth-align[generate]'.") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = settings.dtype if settings.dtype != "auto" else "float16" if device == "cuda" else "float32"
    try:
        pipe = DiffusionPipeline.from_pretrained(
            settings.model, torch_dtype=getattr(torch, wanted), use_safetensors=True
        ).to(device)
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(
            f"The text-to-image pipeline {settings.model} cannot be loaded.",
            " ".join(str(error).split())[:300],
            "Give a hub id or folder of a diffusers pipeline with safetensors.",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    score = image_rewards.scorer(settings.reward) if settings.reward else None
    size = {"height": settings.side, "width": settings.side} if settings.side else {}

    def make(row: Row, number: int, folder: Path) -> dict[str, Any]:
        drawn = []
        for place, scale in enumerate(settings.guidance):
            noise = zlib.crc32(f"{seed} {row['id']} {place}".encode())
            chance = torch.Generator("cpu").manual_seed(noise)
            asked = {"num_inference_steps": settings.steps, "guidance_scale": scale, "generator": chance, **size}
            drawn.append((scale, noise, pipe(row["prompt"], **asked).images[0]))
        scores = score(row["prompt"], [image for *_, image in drawn]) if score else [0.0] * len(drawn)
        best = max(range(len(drawn)), key=scores.__getitem__)
        drawn[best][2].save(folder / f"{row['id']}.png")
        listed = [
            {"guidance": scale, "seed": noise, "score": value}
            for (scale, noise, _), value in zip(drawn, scores, strict=True)
        ]
        return {"file": f"images/{row['id']}.png", "candidates": listed}

    return make
