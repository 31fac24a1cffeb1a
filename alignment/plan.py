"""What a recipe would do: items of every stage, estimates of disk and memory, and time.

Time is known only if a like stage was timed in the same folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignment.pipeline import MANIFEST, STAGES
from alignment.recipe import Recipe
from alignment.stages.prompts import FilePrompts
from alignment.stages.released_pairs import read_released
from bench.files import read_json
from bench.runs.jobs import load_model

LINE_BYTES = 400  # of a response's line
IMAGE_BYTES = {"scenes": 5_000, "diffusers": 1_500_000, "folder": 0}
ADAM_BYTES = 16  # a trained weight, its gradient and two moments in float32
CHECKPOINT_BYTES = 4 * (1 + 3)  # the adapter, and one checkpoint with its optimizer
INSTRUCTION_TOKENS = 64
RESPONSE_SHARE = 0.25  # of max_tokens that a response takes on average
RELEASED_RESPONSE_TOKENS = 128
CLIP_IMAGE_TOKENS = 576


class Planned(NamedTuple):
    """A stage before it is run.

    Args:
        stage: Its name.
        items: How many items.
        what: What they are.
        disk: Bytes on disk.
        memory: Bytes of memory.
        seconds: NaN if unknown.
    """

    stage: str
    items: int
    what: str
    disk: float = 0.0
    memory: float = 0.0
    seconds: float = math.nan


def plan(recipe: Recipe, out: Path) -> list[Planned]:
    """All stages of a recipe.

    Memory is an estimate: of weights and, in training, of optimizer and activations.
    """
    if recipe.pairs:
        stages: list[Planned] = []
        pairs = len(read_released(recipe.pairs.path))
    else:
        stages, pairs = _before_pairs(recipe)
    stages.append(Planned("preferences", pairs, "pairs at most", pairs * 2 * LINE_BYTES))
    stages.append(_training(recipe, pairs))
    if recipe.evaluate is not None:
        benchmarks = len(recipe.evaluate.suite)
        memory = _weight_bytes(recipe.dpo.model)
        stages.append(
            Planned("evaluate", benchmarks, "benchmarks, base and aligned", memory=memory)
        )
    # The same machine and models did it at this pace before.
    pace = _seconds_per_item(out)
    return [
        stage._replace(seconds=stage.items * pace.get(stage.stage, math.nan)) for stage in stages
    ]


def as_text(name: str, stages: Sequence[Planned]) -> str:
    """The stages of a recipe with their items and estimates, for a terminal."""
    lines = [f"{name}: items; estimates of disk, memory and time"]
    for stage in stages:
        size = f"{stage.disk / 1e6:,.1f} MB, {stage.memory / 1e9:.1f} GB of memory"
        known = not math.isnan(stage.seconds)
        time = f"{stage.seconds / 60:.1f} min" if known else "not timed yet"
        lines.append(f"  {stage.stage:12}{stage.items:>8} {stage.what:30} {size}, {time}")
    return "\n".join(lines)


def _before_pairs(recipe: Recipe) -> tuple[list[Planned], int]:
    """Prompts, images, responses and rewards, and how many pairs they can give."""
    prompts, images = recipe.prompts, recipe.images
    responses, rewards = recipe.responses, recipe.rewards
    assert prompts and images and responses and rewards
    if isinstance(prompts, FilePrompts):
        count = len(prompts.path.read_text().splitlines())
    else:
        count = prompts.count
    instructions = count * prompts.per_prompt
    answers = instructions * len(responses.models) * responses.samples
    answering = max(map(_weight_bytes, responses.models))
    # One model of a panel is loaded at a time.
    rewarding = max(map(_weight_bytes, rewards.asked_models()), default=0.0)
    image_bytes = LINE_BYTES + IMAGE_BYTES[images.kind]
    stages = [
        Planned("prompts", count, "prompts", count * LINE_BYTES),
        Planned("images", count, "images", count * image_bytes),
        Planned("responses", answers, "responses", answers * LINE_BYTES, answering),
        Planned("rewards", answers, "rewards", answers * LINE_BYTES, rewarding),
    ]
    return stages, min(instructions, recipe.preferences.limit or instructions)


def _weight_bytes(spec: str) -> float:
    """Bytes of a model's weights in the dtype that it would be loaded in."""
    model: Any = load_model(spec, {})
    size = 0
    for file in model.folder.glob("*.safetensors"):
        size += file.stat().st_size
    # A checkpoint in half precision doubles on a CPU, which computes in single.
    stored = 2 if "16" in str(model.config.dtype) else 4
    return float(size / stored * model.dtype.itemsize)


def _training(recipe: Recipe, pairs: int) -> Planned:
    """Steps; memory of weights, LoRA with Adam, and activations of one batch."""
    settings = recipe.dpo
    steps = math.ceil(pairs * settings.epochs / (settings.batch * settings.accumulate))
    model: Any = load_model(settings.model, {})
    text = model.config.get_text_config()
    trained = text.num_hidden_layers * settings.lora.rank * _lora_width(text)

    image_tokens = getattr(model.config, "image_seq_length", None) or CLIP_IMAGE_TOKENS
    response_tokens: float = RELEASED_RESPONSE_TOKENS
    if recipe.responses:
        response_tokens = recipe.responses.max_tokens * RESPONSE_SHARE
    row_tokens = image_tokens + INSTRUCTION_TOKENS + response_tokens
    tokens = 2 * settings.batch * row_tokens  # chosen and rejected
    hidden, inner = text.hidden_size, text.intermediate_size
    # Checkpointing keeps a layer's input only.
    kept_per_token = hidden if settings.gradient_checkpointing else 14 * hidden + 4 * inner
    activations = tokens * model.dtype.itemsize * text.num_hidden_layers * kept_per_token
    memory = _weight_bytes(settings.model) + trained * ADAM_BYTES + activations
    return Planned("dpo", steps, "steps", trained * CHECKPOINT_BYTES, memory)


def _lora_width(text: Any) -> int:
    """Inputs and outputs of a layer's adapted matrices, added up: LoRA's weights at rank 1."""
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    key_value = head_width * (getattr(text, "num_key_value_heads", None) or heads)
    hidden, inner = text.hidden_size, text.intermediate_size
    shapes = [
        (hidden, hidden),  # q
        (hidden, key_value),  # k
        (hidden, key_value),  # v
        (hidden, hidden),  # o
        (hidden, inner),  # gate
        (hidden, inner),  # up
        (inner, hidden),  # down
    ]
    return sum(inputs + outputs for inputs, outputs in shapes)


def _seconds_per_item(out: Path) -> Mapping[str, float]:
    """Of the last finished artifact of each stage in `out`."""
    pace = {}
    manifests = sorted(out.glob(f"*/{MANIFEST}"), key=lambda file: file.stat().st_mtime)
    for file in manifests:
        manifest = read_json(file)
        stage = manifest.get("stage")
        items = _items(manifest)
        if stage in STAGES and items:
            pace[stage] = manifest["seconds"] / items
    return pace


def _items(manifest: Mapping[str, Any]) -> int:
    """How many items a finished stage made: its steps, its benchmarks, or its first count."""
    if manifest.get("stage") == "evaluate":
        return len(manifest["settings"]["suite"])
    counts = manifest.get("counts", {})
    if counts.get("steps"):
        return int(counts["steps"])
    numbers = []
    for value in counts.values():
        if isinstance(value, int):
            numbers.append(value)
    return numbers[0] if numbers else 0
