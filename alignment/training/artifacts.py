"""What a training leaves beside the adapter: its card and its curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.rows import Manifest
from alignment.training.settings import Training

COLUMNS = (
    "step",
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "grad_norm",
)
MEASURED = "measured.jsonl"  # figures of benchmarks on the way


def model_card(
    settings: Training,
    seed: int,
    base: str,
    steps: Sequence[Mapping[str, Any]],
    preferences: Manifest | None,
) -> str:
    """The adapter's card: what it was trained from, on and how.

    Args:
        settings: Of the training.
        seed: Of the training.
        base: The base model's name.
        steps: The trainer's log, a row a step.
        preferences: The manifest of the pairs, None if there is none.
    """
    table = settings.model_dump(exclude={"lora", "measure"})
    setting_rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    counts = []
    for name, value in preferences["counts"].items() if preferences else ():
        counts.append(f"{name} {value}")
    inputs = preferences["inputs"] if preferences else {}
    made_from = preferences["sha256"] if preferences else "not recorded"
    source_rows = "\n".join(f"| {name} | `{digest}` |" for name, digest in inputs.items())
    return f"""---
base_model: {json.dumps(base)}
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
| preferences | `{made_from}` |
{source_rows}
"""  # noqa: E501


def write_curves(
    history: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], out: Path
) -> None:
    """curves.csv, every step of a training, and curves.png, which shows them.

    Args:
        history: The trainer's log, a row a step.
        measured: Rows of measured.jsonl; empty if nothing was measured.
        out: The artifact's folder.
    """
    import pandas as pd

    from bench.training_curves import training_curves

    with (out / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(history)
    curves = pd.DataFrame(list(history)).set_index("step")
    training_curves({"": curves}, measured).savefig(out / "curves.png", dpi=150)
