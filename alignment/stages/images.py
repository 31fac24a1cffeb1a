"""An image for every prompt, the best of several candidates if the source can make several.

Artifact: images/ with the image files, and images.jsonl (`alignment/rows.py`), in which
`candidates` holds the score of every one that was made.
"""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from PIL import Image
from pydantic import Field

from alignment.rewards.image import ImageReward, scorer
from alignment.rows import ImageRow, PromptRow
from alignment.settings import Beside, RecipeError, Settings
from bench.data.images import link_image, read_image
from bench.errors import BenchError, DataError, first_line, one_line, os_reason
from bench.files import append_lines, read_lines
from bench.models import checkpoints
from bench.models.ray_cluster import Fault, in_order, start_workers
from bench.scenes.render import render
from bench.scenes.world import CONTEXTS, Scene, scene
from bench.terminal import progress_bar

VERSION = "1"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SCENES_PER_PROMPT = 10_000  # scene numbers that are kept for each prompt's candidates
PLACES = frozenset(context.name for context in CONTEXTS)


class SceneImages(Settings):
    """Images of the built-in world's train split whose place is the prompt's.

    The best of `candidates` by the prompt's objects is kept.
    """

    kind: Literal["scenes"]
    candidates: int = Field(4, gt=0)


class DiffusersImages(Settings):
    """Any text-to-image pipeline of diffusers: one seeded candidate for each guidance scale.

    `batch` prompts are drawn at a time; each candidate has its own noise, whatever the batch.
    `workers` and `ray` are those of `bench run`: each worker holds the pipeline and the reward.
    """

    kind: Literal["diffusers"]
    model: str
    batch: int = Field(4, gt=0)
    steps: int = Field(28, gt=0)
    guidance: list[float] = Field([5.0, 7.0, 9.0, 11.0], min_length=1)
    side: int | None = Field(None, gt=0)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    reward: ImageReward | None = None
    workers: int | None = Field(None, gt=0)
    ray: str | None = None

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"batch", "workers", "ray"})


class FolderImages(Settings):
    """Images that are there already.

    Prompt number n has the n-th file by name, or the one its row names.
    """

    kind: Literal["folder"]
    path: Beside


Images = SceneImages | DiffusersImages | FolderImages
Prompt = tuple[int, PromptRow]  # with its number
Fields = dict[str, Any]  # file, candidates, dropped of an image's row


class Drawn(NamedTuple):
    """The best of a prompt's candidates, and what is known of all of them."""

    image: Image.Image
    candidates: list[dict[str, Any]]


# From prompts to what a pipeline draws for each.
Painter = Callable[[Sequence[Prompt]], list[Drawn]]


def identity(settings: Images) -> Any:
    """The names and sizes of a folder's images; the weights of pipeline and reward."""
    if isinstance(settings, SceneImages):
        return None
    if isinstance(settings, DiffusersImages):
        reward = settings.reward.identity() if settings.reward else None
        return [checkpoints.contents(settings.model), reward]
    return [(file.name, file.stat().st_size) for file in _image_files(settings.path)]


def check(settings: Images) -> None:
    """Raises RecipeError if diffusers is wanted and not installed."""
    if isinstance(settings, DiffusersImages) and importlib.util.find_spec("diffusers") is None:
        raise no_diffusers()


def no_diffusers() -> RecipeError:
    """The error of a pipeline without its library."""
    return RecipeError(
        "diffusers is not installed.",
        "`images: {kind: diffusers}` draws with it.",
        "pip install 'synth-align[generate]'.",
    )


def run(settings: Images, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """One image a prompt. Images that cannot be read are dropped and counted."""
    file = out / "images.jsonl"
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    rows = read_lines(inputs["prompts"] / "prompts.jsonl", PromptRow)
    done = {row["id"] for row in read_lines(file, ImageRow)}
    waiting = [(number, row) for number, row in enumerate(rows) if row["id"] not in done]
    size = settings.batch if isinstance(settings, DiffusersImages) else 1
    batches = [waiting[start : start + size] for start in range(0, len(waiting), size)]
    with progress_bar("images", len(rows)) as progress:
        progress(len(rows) - len(waiting))
        # Nothing is loaded if no image is missing.
        made = _made(settings, seed, batches, folder) if batches else iter(())
        for prompts, fields_of in zip(batches, made, strict=True):
            new = []
            for (_, row), fields in zip(prompts, fields_of, strict=True):
                new.append(
                    {
                        "id": row["id"],
                        "prompt": row["prompt"],
                        "instructions": row["instructions"],
                        **fields,
                    }
                )
            append_lines(file, new)
            progress(len(new))
    images = read_lines(file, ImageRow)
    dropped = sum(image["file"] is None for image in images)
    return {
        "images": len(images) - dropped,
        "candidates": sum(len(image["candidates"]) for image in images),
        "dropped": dropped,
    }


def _made(
    settings: Images, seed: int, batches: Sequence[Sequence[Prompt]], folder: Path
) -> Iterator[list[Fields]]:
    """The fields of each batch's images, which are then in the folder."""
    if isinstance(settings, DiffusersImages):
        for prompts, drawn in zip(batches, _painted(settings, seed, batches), strict=True):
            fields_of = []
            for (_, row), one in zip(prompts, drawn, strict=True):
                file = f"{row['id']}.png"
                one.image.save(folder / file)
                fields_of.append({"file": f"images/{file}", "candidates": one.candidates})
            yield fields_of
        return
    for prompts in batches:
        if isinstance(settings, SceneImages):
            yield [_draw(settings, seed, *item, folder) for item in prompts]
        else:
            yield [_take(settings, *item, folder) for item in prompts]


def _painted(
    settings: DiffusersImages, seed: int, batches: Sequence[Sequence[Prompt]]
) -> Iterator[list[Drawn]]:
    """What a pipeline draws, in the order of the prompts; by workers if there are any."""
    if settings.workers or settings.ray:
        workers, _ = start_workers(
            _PaintingWorker, lambda _: (settings, seed), settings.workers, settings.ray
        )
        yield from in_order(
            workers,
            batches,
            lambda worker, prompts: worker.paint.remote(prompts),
            lambda prompts: f"the prompts from {prompts[0][1]['id']} on",
        )
        return
    paint = _painter(settings, seed)
    for prompts in batches:
        yield paint(prompts)


class _PaintingWorker:
    """In an actor's process: one pipeline and one reward."""

    def __init__(self, settings: DiffusersImages, seed: int) -> None:
        self.fault: Fault | None = None
        try:
            self.painter = _painter(settings, seed)
        except BenchError as error:
            self.fault = (error.fact, error.reason, error.remedy)

    def about(self) -> Fault | str:
        return self.fault or "ready"

    def paint(self, prompts: Sequence[Prompt]) -> list[Drawn]:
        return self.painter(prompts)


def _draw(
    settings: SceneImages, seed: int, number: int, row: PromptRow, folder: Path
) -> dict[str, Any]:
    """The scene whose objects are most like the prompt's. Raises RecipeError without a place."""
    candidates = _candidates(settings.candidates, row, number, seed)
    scores = [facts_score(candidate, row) for candidate in candidates]
    best = candidates[scores.index(max(scores))]
    render(best).save(folder / best.name)
    listed = []
    for candidate, score in zip(candidates, scores, strict=True):
        listed.append({"image": candidate.name, "score": score})
    return {"file": f"images/{best.name}", "candidates": listed}


def _candidates(count: int, row: PromptRow, number: int, seed: int) -> list[Scene]:
    """Scenes of the prompt's place.

    As of those that a text-to-image model would draw, none is sure to show all of the prompt.
    """
    if row.get("place") not in PLACES:
        raise RecipeError(
            f"Prompt {row['id']} names no place of the built-in world.",
            f"It is {row['prompt']!r:.80}.",
            "Use `prompts: {kind: templates}` with `images: {kind: scenes}`.",
        )
    candidates: list[Scene] = []
    index = number * SCENES_PER_PROMPT
    while len(candidates) < count:
        # Seed 0 of the train split is what llava-tiny was trained on.
        item = scene("train", seed + 1, index)
        index += 1
        if item.context.name == row["place"]:
            candidates.append(item)
    return candidates


def facts_score(item: Scene, row: PromptRow) -> float:
    """F1 of the objects shown and those that the prompt asks for."""
    wanted, shown = {*row["objects"]}, {*item.counts}
    return 2 * len(wanted & shown) / (len(wanted) + len(shown))


def _take(settings: FolderImages, number: int, row: PromptRow, folder: Path) -> dict[str, Any]:
    files = _image_files(settings.path)
    name = row.get("image")
    if name is None and number >= len(files):
        return {"file": None, "candidates": [], "dropped": "no picture left in the folder"}
    source = settings.path / name if name is not None else files[number]
    try:
        read_image(source)
    except DataError as error:
        return {"file": None, "candidates": [], "dropped": f"{error.fact} {error.reason}"}
    target = folder / f"{row['id']}-{source.name}"
    link_image(source, target)
    return {"file": f"images/{target.name}", "candidates": []}


def _image_files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise RecipeError(
            f"{folder} cannot be read.", f"{os_reason(error)}.", "Check the path."
        ) from error


def _painter(settings: DiffusersImages, seed: int) -> Painter:
    """A text-to-image pipeline, and the reward that picks among its candidates.

    Raises RecipeError if either cannot be loaded.
    """
    import torch

    pipeline = _load_pipeline(settings)
    # Without a reward the first candidate is as good as any.
    score = scorer(settings.reward) if settings.reward else None
    size = {"height": settings.side, "width": settings.side} if settings.side else {}

    def paint(prompts: Sequence[Prompt]) -> list[Drawn]:
        images: list[list[Image.Image]] = [[] for _ in prompts]  # candidates of each prompt
        listed: list[list[dict[str, Any]]] = [[] for _ in prompts]
        for index, scale in enumerate(settings.guidance):
            generators = []
            for (_, row), candidates in zip(prompts, listed, strict=True):
                image_seed = zlib.crc32(f"{seed} {row['id']} {index}".encode())
                # On the CPU, so that every device draws from the same noise.
                generators.append(torch.Generator("cpu").manual_seed(image_seed))
                candidates.append({"guidance": scale, "seed": image_seed})
            try:
                output = pipeline(
                    [row["prompt"] for _, row in prompts],
                    num_inference_steps=settings.steps,
                    guidance_scale=scale,
                    generator=generators,
                    **size,
                )
            except Exception as error:  # several models in one, each raises what it likes
                raise RecipeError(
                    f"{settings.model} cannot draw.",
                    f"{type(error).__name__}: {first_line(error)}.",
                    "Its files do not fit each other, or memory is short: restore them from their "
                    "source, or lower `batch` or `side`; what was drawn is kept.",
                ) from error
            for of_prompt, image in zip(images, output.images, strict=True):
                of_prompt.append(image)
        drawn = []
        for (_, row), of_prompt, candidates in zip(prompts, images, listed, strict=True):
            scores = score(row["prompt"], of_prompt) if score else [0.0] * len(of_prompt)
            if not all(map(math.isfinite, scores)):
                raise RecipeError(
                    "The reward of the pictures is not a number.",
                    f"It gives {scores} for {row['prompt']!r:.60}.",
                    "Use another one, or restore its files; what was drawn is kept.",
                )
            for candidate, value in zip(candidates, scores, strict=True):
                candidate["score"] = value
            drawn.append(Drawn(of_prompt[scores.index(max(scores))], candidates))
        return drawn

    return paint


def _load_pipeline(settings: DiffusersImages) -> Any:
    import torch

    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise no_diffusers() from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: str = settings.dtype
    if dtype == "auto":
        dtype = "float16" if device == "cuda" else "float32"
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            settings.model, torch_dtype=getattr(torch, dtype), use_safetensors=True
        )
    except Exception as error:  # what is wrong in its files comes as dozens of types
        raise RecipeError(
            f"The text-to-image pipeline {settings.model} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Give a hub id or folder of a diffusers pipeline with safetensors.",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
