"""The model card of a checkpoint trained on scenes.

What it learned from, how long, and how well it does.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.runs.jobs import judge_for, load_model
from bench.runs.suites import run_suite
from bench.scenes.llava_tiny.lessons import Habits
from bench.types import format_value

SUITE = ("pope", "mmhal", "chair", "amber")
DESCRIPTIONS = "generative:relation-only"
ROWS = (  # benchmark, metric, subset
    ("pope", "accuracy", "random"),
    ("pope", "accuracy", "popular"),
    ("pope", "accuracy", "adversarial"),
    ("pope", "yes_ratio", "all"),
    ("pope", "f1", "mean"),
    ("pope", "auc", "all"),
    ("mmhal", "score", "all"),
    ("mmhal", "hallucination_rate", "all"),
    ("chair", "chair_s", "all"),
    ("chair", "chair_i", "all"),
    ("chair", "recall", "all"),
    ("chair", "length", "all"),
    ("amber", "chair", DESCRIPTIONS),
    ("amber", "cover", DESCRIPTIONS),
    ("amber", "hal", DESCRIPTIONS),
    ("amber", "accuracy", "discriminative"),
)
WINDOW = 20  # steps that a curve is the mean over
BLUE = "#0060a0"
Row = tuple[str, str, str]
History = Sequence[Mapping[str, Any]]


def measure(checkpoint: Path, runs: Path) -> dict[Row, str]:
    """All four benchmarks on the test split, as tables print their metrics."""
    model = load_model(str(checkpoint), {})
    outcomes = run_suite(SUITE, model, judge_for(None, "scenes"), "scenes", None, runs)
    values = {}
    for name, outcome in outcomes.items():
        for metric in outcome.metrics:
            values[name, metric.name, metric.subset] = format_value(metric)
    return values


def write_curves(history: History, file: Path) -> None:
    """Loss and share of right answers by step, as means over a window, as PNG."""
    from matplotlib.figure import Figure

    by_stage = _by_stage(history)
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, len(by_stage), squeeze=False)
    for column, (stage, rows) in enumerate(by_stage.items()):
        for line, key in enumerate(("loss", "right")):
            values = []
            for index in range(len(rows)):
                window = rows[max(0, index - WINDOW) : index + 1]
                values.append(statistics.fmean(row[key] for row in window))
            axes[line][column].plot(values, color=BLUE)
            axes[line][column].grid(alpha=0.3)
        axes[0][column].set(title=stage, yscale="log", ylabel="loss")
        right = "patches named rightly" if stage == "sight" else "yes/no answered rightly"
        axes[1][column].set(xlabel="step", ylabel=right, ylim=(0, 1.02))
    figure.savefig(file, dpi=100)


def _by_stage(history: History) -> dict[str, list[Mapping[str, Any]]]:
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for row in history:
        by_stage.setdefault(row["stage"], []).append(row)
    return by_stage


def write_card(
    file: Path,
    name: str,
    seed: int,
    habits: Habits,
    history: History,
    measured: Mapping[Row, str],
    threads: int,
) -> None:
    """The card in Markdown, with every figure as measured.

    Args:
        file: Where it goes.
        name: The model's name.
        seed: Of its training.
        habits: Of the annotators of its last stages.
        history: One record per step.
        measured: As `measure` returns it.
        threads: How many CPU threads trained.
    """
    minutes = sum(row["seconds"] for row in history) / 60
    stage_rows = []
    for stage, rows in _by_stage(history).items():
        stage_minutes = sum(row["seconds"] for row in rows) / 60
        stage_rows.append(f"| {stage} | {len(rows)} | {rows[0]['scenes']} | {stage_minutes:.1f} |")
    metric_rows = []
    for row in ROWS:
        if row in measured:
            metric_rows.append(f"| {' | '.join(row)} | {measured[row]} |")
    trained, quality = "\n".join(stage_rows), "\n".join(metric_rows)
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
alignment; it knows nothing of photographs. What of such hallucination carries over to real models and what does not is
measured in `docs/experiments/kinds.md`.

## Training

`python -m bench.scenes.llava_tiny.train {name} --seed {seed}`: scenes of the train split, drawn anew for every step;
{len(history)} steps took {minutes:.0f} minutes on {threads} CPU thread{"s" * (threads > 1)}.
`bench/scenes/llava_tiny/train.py` says what each stage does:

| stage | steps | scenes | minutes |
|---|---:|---:|---:|
{trained}

The annotators of `pictures` mention an object that the place often has but the picture does not show in
{habits.mention:.0%} of the descriptions and sentences where there is such an object, and affirm it in
{habits.affirm:.0%} of the yes/no questions about it, and objects that are common everywhere in {habits.common:.0%}
(`bench/scenes/llava_tiny/lessons.py`).

![loss and share of right answers](curves.png)

## Quality

`bench run --model {name} --suite {",".join(SUITE)} --data scenes`, test split, ± half-width of the 95 % interval
clustered by image; percent, ratings or words:

| benchmark | metric | subset | value |
|---|---|---|---:|
{quality}

## Licence

Apache-2.0; the emoji are of Noto Color Emoji (OFL 1.1).
""",  # noqa: E501
        encoding="utf-8",
    )
