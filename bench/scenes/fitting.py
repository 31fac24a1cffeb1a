"""How the small models beside llava-tiny are trained: a new folder, and steps down a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.errors import DataError
from bench.terminal import progress_bar


def make_new(folder: Path) -> None:
    """Makes a folder for a model. Raises DataError if something lies in it."""
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder} is not empty.", "A model is written there.", "Name a new folder."
        )
    folder.mkdir(parents=True, exist_ok=True)


def fit(
    model: Any, loss_of_batch: Callable[[], torch.Tensor], steps: int, rate: float, title: str
) -> None:
    """Trains all weights of a model by AdamW, the learning rate rising to `rate` and falling.

    Args:
        model: A module, trained in place.
        loss_of_batch: The loss of the next batch, a scalar.
        steps: How many batches.
        rate: The highest learning rate.
        title: Of the progress bar.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    with progress_bar(title, steps) as progress:
        for _ in range(steps):
            loss = loss_of_batch()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress(1)
