"""What a training leaves beside the adapter: its card and its curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.training.settings import Training

CURVES = (
    "step",
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "grad_norm",
)
COLOURS = {"chosen": "#0060a0", "rejected": "#be3c00"}


def model_card(
    settings: Training,
    seed: int,
    base: str,
    steps: Sequence[Mapping[str, Any]],
    preferences: Mapping[str, Any],
) -> str:
    """The adapter's card: what it was trained from, on and how.

    Args:
        settings: Of the training.
        seed: Of the training.
        base: The base model's name.
        steps: The trainer's log, a row a step.
        preferences: The manifest of the pairs; empty if there is none.
    """
    table = settings.model_dump(exclude={"lora"})
    setting_rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    counts = [f"{name} {value}" for name, value in preferences.get("counts", {}).items()]
    inputs = preferences.get("inputs", {})
    source_rows = "\n".join(f"| {name} | `{digest}` |" for name, digest in inputs.items())
    return f"""---
base_model: {base}
library_name: peft
pipeline_tag: image-text-to-text
---

# {base}, aligned

A LoRA (rank {settings.lora.rank}, alpha {settings.lora.alpha}) on the language model of {base}, trained by preference
optimisation (trl's DPOTrainer) for {len(steps)} steps with seed {seed}; loss {steps[0]["loss"]:.4f} →
{steps[-1]["loss"]:.4f}. Use it as `bench run --model {base}+FOLDER`.

| setting | value |
|---|---|
{setting_rows}

## Data

{", ".join(counts) or "Not recorded."}

| made from | sha256 |
|---|---|
| preferences | `{preferences.get("sha256", "not recorded")}` |
{source_rows}
"""  # noqa: E501


def write_curves(history: Sequence[Mapping[str, Any]], out: Path) -> None:
    """curves.csv and curves.png: loss, and rewards of chosen and rejected responses, by step."""
    from matplotlib.figure import Figure

    with (out / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, CURVES, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(history)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    losses = [row["loss"] for row in history]
    left.plot(steps, losses, color=COLOURS["chosen"])
    left.set(xlabel="step", ylabel="loss")
    for side, colour in COLOURS.items():
        # A supervised training has no rewards.
        rewards = [row.get(f"rewards/{side}", 0.0) for row in history]
        right.plot(steps, rewards, color=colour, label=side)
    right.set(xlabel="step", ylabel="implicit reward")
    right.legend()
    figure.savefig(out / "curves.png", dpi=110)
