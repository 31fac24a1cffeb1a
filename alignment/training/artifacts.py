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
MEASURED = "measured.jsonl"  # figures of benchmarks on the way
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
    table = settings.model_dump(exclude={"lora", "measure"})
    setting_rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    counts = [f"{name} {value}" for name, value in preferences.get("counts", {}).items()]
    inputs = preferences.get("inputs", {})
    source_rows = "\n".join(f"| {name} | `{digest}` |" for name, digest in inputs.items())
    return f"""---
base_model: {base}
library_name: peft
pipeline_tag: image-text-to-text
tags: [lora, {settings.loss}, preference-optimisation, hallucination]
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


def write_curves(
    history: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], out: Path
) -> None:
    """curves.csv and curves.png: what a training was like, by step.

    Loss, rewards of chosen and rejected responses, and the rates that were measured on the way.

    Args:
        history: The trainer's log, a row a step.
        measured: Rows of measured.jsonl; empty if nothing was measured.
        out: The artifact's folder.
    """
    from matplotlib.figure import Figure

    with (out / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, CURVES, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(history)
    panels = 3 if measured else 2
    figure = Figure(figsize=(4.5 * panels, 3.6), layout="constrained")
    left, middle, *rest = figure.subplots(1, panels)
    steps = [row["step"] for row in history]
    losses = [row["loss"] for row in history]
    left.plot(steps, losses, color=COLOURS["chosen"])
    left.set(xlabel="step", ylabel="loss")
    for side, colour in COLOURS.items():
        # A supervised training has no rewards.
        rewards = [row.get(f"rewards/{side}", 0.0) for row in history]
        middle.plot(steps, rewards, color=colour, label=side)
    middle.set(xlabel="step", ylabel="implicit reward")
    middle.legend()
    for panel in rest:
        _plot_rates(panel, measured)
    figure.savefig(out / "curves.png", dpi=110)


def _plot_rates(panel: Any, measured: Sequence[Mapping[str, Any]]) -> None:
    """Measured percentages over steps with their 95 % intervals; other units have other axes."""
    by_figure: dict[str, list[Mapping[str, Any]]] = {}
    for row in measured:
        if row["unit"] == "fraction":
            by_figure.setdefault(row["figure"], []).append(row)
    for title, rows in by_figure.items():
        steps = [row["step"] for row in rows]
        (line,) = panel.plot(steps, [row["value"] for row in rows], marker="o", label=title)
        ends = [(row["low"], row["high"]) for row in rows]
        # A count has no interval.
        if all(None not in end for end in ends):
            low, high = zip(*ends, strict=True)
            panel.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    panel.set(xlabel="step", ylabel="%, with 95 % interval")
    panel.legend(fontsize="small")
