"""What a recipe would do: items of every stage, estimates of disk and memory, and time.

Time is known only if a like stage was timed in the same folder.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from alignment.pipeline import STAGES, planned_stages
from alignment.recipe import Recipe
from alignment.rewards.reward import Reward
from alignment.rows import MANIFEST, Manifest, read_manifest
from alignment.settings import RecipeError, Settings
from alignment.stages.images import DiffusersImages
from alignment.stages.pair_formats import read_pairs
from alignment.stages.prompts import FilePrompts
from alignment.stages.released_pairs import Pairs
from alignment.stages.responses import Responses
from bench import registry
from bench.errors import BenchError
from bench.files import read_text
from bench.models import checkpoints

LINE_BYTES = 400  # of a response's line
IMAGE_BYTES = {"scenes": 5_000, "diffusers": 1_500_000, "folder": 0}
ADAM_BYTES = 16  # a trained weight, its gradient and two moments in float32
CHECKPOINT_BYTES = 4 * (1 + 3)  # the adapter, and one checkpoint with its optimizer
INSTRUCTION_TOKENS = 64
RESPONSE_SHARE = 0.25  # of max_tokens that a response takes on average
RELEASED_RESPONSE_TOKENS = 128
CLIP_IMAGE_TOKENS = 576
UNKNOWN = math.nan


class Planned(NamedTuple):
    """A stage before it is run. What is not known is NaN.

    Args:
        stage: Its name.
        items: How many items.
        what: What they are.
        disk: Bytes on disk.
        memory: Bytes of memory.
        seconds: How long.
    """

    stage: str
    items: float
    what: str
    disk: float = 0.0
    memory: float = 0.0
    seconds: float = math.nan


class Plan(NamedTuple):
    """What a recipe would do, and what it lacks for that.

    Args:
        stages: In their order.
        missing: What would stop it, a line each.
    """

    stages: list[Planned]
    missing: list[str]


def plan(recipe: Recipe, out: Path) -> Plan:
    """All stages of a recipe. Nothing is downloaded but configs of a few kilobytes.

    Memory is an estimate: of weights and, in training, of optimizer and activations.
    """
    # The same machine and models did it at this pace before.
    pace = _seconds_per_item(out)
    timed = []
    for stage in _stages(recipe):
        timed.append(stage._replace(seconds=stage.items * pace.get(stage.stage, math.nan)))
    return Plan(timed, _missing(recipe))


def _stages(recipe: Recipe) -> list[Planned]:
    """All stages, their times unknown."""
    if recipe.pairs:
        stages: list[Planned] = []
        path = recipe.pairs.path
        # Those of the hub are counted when they are there: a plan downloads nothing.
        is_there = path is not None and path.exists()
        pairs = sum(1 for _ in read_pairs(path)) if path and is_there else UNKNOWN
    else:
        stages, pairs = _before_pairs(recipe)
    stages.append(Planned("preferences", pairs, "pairs at most", pairs * 2 * LINE_BYTES))
    stages.append(_training(recipe, pairs))
    if recipe.evaluate is not None:
        benchmarks = len(recipe.evaluate.suite)
        memory = _memory(recipe.dpo.model)
        stages.append(
            Planned("evaluate", benchmarks, "benchmarks, base and aligned", memory=memory)
        )
    return stages


def check_space(recipe: Recipe, out: Path) -> None:
    """Raises RecipeError if the disk has no room for what a recipe leaves, as far as it is known.

    Not if `out` is there: much of it may be done.
    """
    if out.exists():
        return
    needed = 0.0
    for stage in _stages(recipe):
        needed += 0.0 if math.isnan(stage.disk) else stage.disk
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RecipeError(
            f"The disk of {out} has no room for {recipe.name}.",
            f"It needs about {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB.",
            "Free space, or give another disk's folder with --out.",
        )


def _missing(recipe: Recipe) -> list[str]:
    """Files that are not there, and what a stage's own check finds.

    Models and data sets of the hub are left out: to look at them is to download them.
    """
    missing = []
    for name, (stage, settings) in planned_stages(recipe).items():
        for field in type(settings).model_fields:
            value = getattr(settings, field)
            if isinstance(value, Path) and not value.exists():
                missing.append(f"{name}.{field}: there is no {value}")
        if any(fault.startswith(f"{name}.") for fault in missing):
            continue
        try:
            if isinstance(settings, Reward):
                settings.check()
            elif not _is_download(settings):
                stage.check(settings)
        except BenchError as error:
            missing.append(f"{name}: {error.fact} {error.reason} {error.remedy}")
    return missing


def _is_download(settings: Settings) -> bool:
    """Whether a stage's check downloads what the stage reads."""
    return isinstance(settings, Responses) or (isinstance(settings, Pairs) and bool(settings.hub))


def as_text(name: str, planned: Plan) -> str:
    """What is missing, then the stages with their items and estimates, for a terminal."""
    lines = [f"{name}: missing: {fault}" for fault in planned.missing]
    lines.append(f"{name}: items; estimates of disk, memory and time")
    for stage in planned.stages:
        items = "?" if math.isnan(stage.items) else f"{stage.items:.0f}"
        size = f"{_amount(stage.disk / 1e6, 'MB')}, {_amount(stage.memory / 1e9, 'GB')} of memory"
        known = not math.isnan(stage.seconds)
        time = f"{stage.seconds / 60:.1f} min" if known else "not timed yet"
        lines.append(f"  {stage.stage:12}{items:>8} {stage.what:30} {size}, {time}")
    return "\n".join(lines)


def _amount(value: float, unit: str) -> str:
    return f"? {unit}" if math.isnan(value) else f"{value:,.1f} {unit}"


def _before_pairs(recipe: Recipe) -> tuple[list[Planned], float]:
    """Prompts, images, responses and rewards, and how many pairs they can give."""
    prompts, images = recipe.prompts, recipe.images
    responses, rewards = recipe.responses, recipe.given_rewards()
    assert prompts and images and responses and rewards
    count: float
    if isinstance(prompts, FilePrompts):
        count = UNKNOWN
        if prompts.path.is_file():
            lines = read_text(prompts.path).split("\n")
            count = len(list(filter(str.strip, lines)))
    else:
        count = prompts.count
    instructions = count * prompts.per_prompt
    answers = instructions * len(responses.models) * responses.samples
    answering = max(map(_memory, responses.models))
    # One model of a panel is loaded at a time.
    rewarding = max(map(_memory, rewards.weights()), default=0.0)
    drawing = 0.0
    if isinstance(images, DiffusersImages):
        drawing = _memory(images.model)
        if images.reward:
            drawing += _memory(images.reward.source())
    image_bytes = LINE_BYTES + IMAGE_BYTES[images.kind]
    stages = [
        Planned("prompts", count, "prompts", count * LINE_BYTES),
        Planned("images", count, "images", count * image_bytes, drawing),
        Planned("responses", answers, "responses", answers * LINE_BYTES, answering),
        Planned("rewards", answers, "rewards", answers * LINE_BYTES, rewarding),
    ]
    return stages, min(instructions, recipe.preferences.limit or instructions)


def _memory(spec: str) -> float:
    """Bytes of a model's weights in the precision that it would be loaded in.

    0 for one behind a server, NaN if its size is not known.
    """
    if registry.split_kind("models", spec) is not None:
        return 0.0
    name, _ = registry.split_adapter(registry.MODEL_ALIASES.get(spec, spec))
    size = checkpoints.weight_bytes(name)
    if size is None:
        return math.nan
    # A checkpoint in half precision doubles on a CPU, which computes in single.
    config = _config(name)
    stored = 2 if config is not None and "16" in str(config.dtype) else 4
    if config is None:
        return float(size)  # a pipeline, whose parts are as they are
    computed = 2 if torch.cuda.is_available() else 4
    return size / stored * computed


def _config(name: str) -> Any:
    """A model's config, None if it has none that transformers reads, or the hub is not there."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception:  # the stage that loads it tells what is wrong
        return None


def _training(recipe: Recipe, pairs: float) -> Planned:
    """Steps; memory of weights, LoRA with Adam, and activations of one batch."""
    settings = recipe.dpo
    updates = pairs * settings.epochs / (settings.batch * settings.accumulate)
    steps = UNKNOWN if math.isnan(updates) else math.ceil(updates)
    name, _ = registry.split_adapter(registry.MODEL_ALIASES.get(settings.model, settings.model))
    weights = _memory(settings.model)
    config = None if math.isnan(weights) else _config(name)
    if config is None:
        return Planned("dpo", steps, "steps", UNKNOWN, UNKNOWN)
    text = config.get_text_config()
    trained = text.num_hidden_layers * settings.lora.rank * _lora_width(text)

    image_tokens = getattr(config, "image_seq_length", None) or CLIP_IMAGE_TOKENS
    response_tokens: float = RELEASED_RESPONSE_TOKENS
    if recipe.responses:
        response_tokens = recipe.responses.max_tokens * RESPONSE_SHARE
    # A pair's image and prompt are computed once.
    tokens = settings.batch * (image_tokens + INSTRUCTION_TOKENS + 2 * response_tokens)
    hidden, inner = text.hidden_size, text.intermediate_size
    # Checkpointing keeps a layer's input only.
    kept_per_token = hidden if settings.gradient_checkpointing else 14 * hidden + 4 * inner
    number_bytes = 2 if torch.cuda.is_available() else 4
    activations = tokens * number_bytes * text.num_hidden_layers * kept_per_token
    memory = weights + trained * ADAM_BYTES + activations
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
        manifest = read_manifest(file.parent)
        stage, items = manifest["stage"], _items(manifest)
        if stage in STAGES and items:
            pace[stage] = manifest["seconds"] / items
    return pace


def _items(manifest: Manifest) -> int:
    """How many items a finished stage made: its steps, its benchmarks, or its first count."""
    if manifest["stage"] == "evaluate":
        return len(manifest["settings"].get("suite", ()))
    counts = manifest["counts"]
    if counts.get("steps"):
        return int(counts["steps"])
    numbers = []
    for value in counts.values():
        if isinstance(value, int):
            numbers.append(value)
    return numbers[0] if numbers else 0
