"""What a recipe would do: items of every stage, estimates of disk and memory, and time where a like stage was timed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignment.exchange import read_released
from alignment.pipeline import MANIFEST, STAGES
from alignment.recipe import FilePrompts, GroundingReward, Recipe
from bench.compose import load_model
from bench.store import read_json

LINE = 400  # bytes of a response's line
PIXELS = {"scenes": 5_000, "diffusers": 1_500_000, "folder": 0}  # bytes of a picture
ADAM = 16  # bytes of a trained weight: itself, its gradient and two moments in float32


class Planned(NamedTuple):
    """A stage before it is run: how many items of what, bytes on disk, bytes of memory, seconds (NaN: unknown)."""

    stage: str
    items: int
    what: str
    disk: float
    memory: float
    seconds: float


def plan(recipe: Recipe, out: Path) -> list[Planned]:
    """All stages of a recipe. Memory is of weights and, in training, of optimizer and activations; an estimate."""
    rows, pairs = ([], len(read_released(recipe.pairs.path))) if recipe.pairs else _before_pairs(recipe)
    rows.append(("preferences", pairs, "pairs at most", pairs * 2 * LINE, 0.0))
    steps = math.ceil(pairs * recipe.dpo.epochs / (recipe.dpo.batch * recipe.dpo.accumulate))
    trained, training = _training(recipe)
    rows.append(("dpo", steps, "steps", trained * 4 * (1 + 3), training))
    if recipe.evaluate is not None:
        suite = len(recipe.evaluate.suite)
        rows.append(("evaluate", suite, "benchmarks, base and aligned", 0.0, _weights(recipe.dpo.model)))
    pace = _pace(out)
    return [Planned(*row, row[1] * pace.get(row[0], math.nan)) for row in rows]


def _before_pairs(recipe: Recipe) -> tuple[list[tuple[str, int, str, float, float]], int]:
    """Prompts, images, responses and rewards, and how many pairs they can give."""
    prompts, images, responses, rewards = recipe.prompts, recipe.images, recipe.responses, recipe.rewards
    assert prompts and images and responses and rewards
    count = len(prompts.path.read_text().splitlines()) if isinstance(prompts, FilePrompts) else prompts.count
    asked = count * prompts.per_prompt
    said = asked * len(responses.models) * responses.samples
    answering = max(_weights(name) for name in responses.models)
    judging = max(map(_weights, rewards.models)) if isinstance(rewards, GroundingReward) else 0.0
    rows: list[tuple[str, int, str, float, float]] = [
        ("prompts", count, "prompts", count * LINE, 0.0),
        ("images", count, "images", count * (LINE + PIXELS[images.kind]), 0.0),
        ("responses", said, "responses", said * LINE, answering),
        ("rewards", said, "rewards", said * LINE, judging),
    ]
    return rows, min(asked, recipe.preferences.limit or asked)


def _weights(spec: str) -> float:
    """Bytes of a model's weights in the dtype that it would be loaded in."""
    model: Any = load_model(spec, {})
    size = sum(file.stat().st_size for file in model.folder.glob("*.safetensors"))
    stored = 2 if "16" in str(model.config.dtype) else 4
    return float(size / stored * model.dtype.itemsize)


def _training(recipe: Recipe) -> tuple[float, float]:
    """LoRA's parameters, and bytes for training: weights, LoRA with Adam, activations of one batch."""
    model: Any = load_model(recipe.dpo.model, {})
    text = model.config.get_text_config()
    heads = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    shared = heads * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    wide, inner = text.hidden_size, text.intermediate_size
    shapes = [(wide, wide), (wide, shared), (wide, shared), (wide, wide), (wide, inner), (wide, inner), (inner, wide)]
    trained = text.num_hidden_layers * recipe.dpo.lora.rank * sum(a + b for a, b in shapes)
    image = getattr(model.config, "image_seq_length", None) or 576
    said = recipe.responses.max_tokens / 4 if recipe.responses else 128
    tokens = 2 * recipe.dpo.batch * (image + 64 + said)
    per_layer = wide if recipe.dpo.gradient_checkpointing else 14 * wide + 4 * inner
    activations = tokens * model.dtype.itemsize * text.num_hidden_layers * per_layer
    return trained, _weights(recipe.dpo.model) + trained * ADAM + activations


def _pace(out: Path) -> Mapping[str, float]:
    """Seconds an item in the last finished artifact of each stage in `out`."""
    pace = {}
    for file in sorted(out.glob(f"*/{MANIFEST}"), key=lambda file: file.stat().st_mtime):
        manifest = read_json(file)
        counts = [value for value in manifest.get("counts", {}).values() if isinstance(value, int)]
        items = manifest["counts"].get("steps") or (counts[0] if counts else 0)
        if manifest.get("stage") == "evaluate":
            items = len(manifest["settings"]["suite"])
        if manifest.get("stage") in STAGES and items:
            pace[manifest["stage"]] = manifest["seconds"] / items
    return pace
