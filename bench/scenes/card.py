"""The model card of a checkpoint trained on scenes: what it learned from, how long, and how well it does."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.compose import load_judge, load_model, run_suite
from bench.types import format_value

SUITE = ("pope", "mmhal", "chair", "amber")
ROWS = (
    ("pope", "accuracy", "random"), ("pope", "accuracy", "popular"), ("pope", "accuracy", "adversarial"),
    ("pope", "yes_ratio", "all"), ("pope", "f1", "mean"), ("pope", "auc", "all"),
    ("mmhal", "score", "all"), ("mmhal", "hallucination_rate", "all"),
    ("chair", "chair_s", "all"), ("chair", "chair_i", "all"), ("chair", "recall", "all"), ("chair", "length", "all"),
    ("amber", "chair", "generative:relation-only"), ("amber", "cover", "generative:relation-only"),
    ("amber", "hal", "generative:relation-only"), ("amber", "accuracy", "discriminative"),
)  # fmt: skip
WINDOW = 20


def measure(checkpoint: Path, runs: Path) -> dict[tuple[str, str, str], str]:
    """All four benchmarks on the test split: (benchmark, metric, subset) → "value ±half-width" as tables print it."""
    outcomes = run_suite(SUITE, load_model(str(checkpoint), {}), load_judge("scene", None), "scenes", None, runs)
    return {(name, m.name, m.subset): format_value(m) for name, outcome in outcomes.items() for m in outcome.metrics}


def write_curves(history: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Loss and share of right answers by step, stage after stage, as means over a window, as PNG."""
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(row["stage"] for row in history))
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, len(stages), squeeze=False)
    for column, stage in enumerate(stages):
        rows = [row for row in history if row["stage"] == stage]
        for line, key in enumerate(("loss", "right")):
            values = [statistics.fmean(r[key] for r in rows[max(0, i - WINDOW) : i + 1]) for i in range(len(rows))]
            axes[line][column].plot(values, color="#0060a0")
            axes[line][column].grid(alpha=0.3)
        axes[0][column].set(title=stage, yscale="log", ylabel="loss")
        right = "patches named rightly" if stage == "sight" else "yes/no answered rightly"
        axes[1][column].set(xlabel="step", ylabel=right, ylim=(0, 1.02))
    figure.savefig(file, dpi=100)


def write_card(
    file: Path,
    name: str,
    seed: int,
    habits: Any,
    history: Sequence[Mapping[str, Any]],
    found: Mapping[Any, str],
    threads: int,
) -> None:
    """The card in Markdown, with every figure as measured."""
    stages = list(dict.fromkeys(row["stage"] for row in history))
    minutes = sum(row["seconds"] for row in history) / 60
    trained = "\n".join(
        f"| {stage} | {len(rows)} | {rows[0]['scenes']} | {sum(row['seconds'] for row in rows) / 60:.1f} |"
        for stage in stages
        if (rows := [row for row in history if row["stage"] == stage])
    )
    measured = "\n".join(
        f"| {benchmark} | {metric} | {subset} | {found[benchmark, metric, subset]} |"
        for benchmark, metric, subset in ROWS
        if (benchmark, metric, subset) in found
    )
    file.write_text(
        f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# {name}

A `LlavaForConditionalGeneration` of 4.9 M parameters (CLIP tower 192 × 5, Llama 256 × 4, 128 × 128 pixels, 64 image
tokens) that knows one small world: 64 COCO categories as emoji in 16 kinds of places (`bench.scenes`). It answers
yes/no questions, MMHal-Bench's eight types and requests for short and long descriptions, and it hallucinates what
usually goes with a place, because some of what it learned from did. It is for trying the bench and for experiments on
alignment; it knows nothing of photographs.

## Training

`python -m bench.scenes.train {name} --seed {seed}`: scenes of the train split, drawn anew for every step;
{len(history)} steps took {minutes:.0f} minutes on {threads} CPU thread{"s" * (threads > 1)}.
`bench/scenes/train.py` says what each stage does:

| stage | steps | scenes | minutes |
|---|---:|---:|---:|
{trained}

The annotators of `pictures` mention an object that the place often has but the picture does not show in
{habits.mention:.0%} of the descriptions and sentences where there is such an object, and affirm it in
{habits.affirm:.0%} of the yes/no questions about it, and objects that are common everywhere in {habits.common:.0%}
(`bench/scenes/lessons.py`).

![loss and share of right answers](curves.png)

## Quality

`bench run --model {name} --suite {",".join(SUITE)} --data scenes`, test split, ± half-width of the 95 % interval
clustered by image; percent, ratings or words:

| benchmark | metric | subset | value |
|---|---|---|---:|
{measured}

## Licence

Apache-2.0; the emoji are of Noto Color Emoji (OFL 1.1).
""",
        encoding="utf-8",
    )
