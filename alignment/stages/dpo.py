"""Preference training with a LoRA on the language model (`alignment/training/`).

Artifact: adapter/ (peft) with its card, merged/ if asked for, curves.csv, curves.png.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.training.launch import check_launch, launch
from alignment.training.settings import Training
from alignment.training.trainer import check_trackers, train
from bench.runs.jobs import load_model

VERSION = "3"


def identity(settings: Training) -> Any:
    """The base model as its adapter describes it."""
    return load_model(settings.model, {}).describe()


def check(settings: Training) -> None:
    """Raises RecipeError if a library is missing that the training needs."""
    check_trackers(settings)
    check_launch(settings)


def run(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Trains on all pairs, in this process or in those that `launch` starts."""
    if settings.launch.strip():
        return launch(settings, inputs, out, seed)
    with warnings.catch_warnings():
        # The libraries warn each other.
        warnings.filterwarnings("ignore", category=FutureWarning)
        return train(settings, inputs, out, seed)
