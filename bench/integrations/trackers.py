"""Finished runs in a tracker: figures with the ends of their intervals, examples, the record.

What a tracker cannot take costs no figures: it is told, and the run stays whole.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import dump
from bench.runs.run import Run
from bench.runs.store import flatten

PROJECT = "synth-align"
LONGEST = 500  # characters of a parameter that mlflow takes
Tracker = Callable[[Run, dict[str, float], dict[str, Any], Path], None]


class TrackError(BenchError):
    """A tracker that is not known or not installed."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises TrackError for a name that is no tracker, or whose library is missing."""
    for name in names:
        if name not in TRACKERS:
            raise TrackError(
                f"There is no tracker '{name}'.",
                f"There are {', '.join(TRACKERS)}.",
                "Name one of them.",
            )
        module = MODULES[name]
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise TrackError(
                f"--track {name} needs its library.",
                f"{module} cannot be imported: {error}.",
                f"pip install {name}",
            ) from error


def track(run: Run, names: Sequence[str]) -> list[str]:
    """Sends a finished run to trackers; returns a remark for each that failed.

    Args:
        run: The run.
        names: Of TRACKERS; where they send it, their own environment variables say.
    """
    figures = figures_of_run(run)
    config = flatten(run.record)
    remarks = []
    for name in names:
        try:
            TRACKERS[name](run, figures, config, run.folder / "examples.png")
        except Exception as error:  # a tracker's library raises whatever its server makes it raise
            remarks.append(f"{name} did not take {run.folder}: {type(error).__name__}: {error}")
    return remarks


def figures_of_run(run: Run) -> dict[str, float]:
    """Values as recorded by BENCHMARK/METRIC/SUBSET, and the ends of their intervals."""
    figures = {}
    for metric in run.metrics:
        name = f"{run.benchmark}/{metric.name}/{metric.subset}".replace(":", "-")
        for end, value in (("", metric.value), ("_low", metric.low), ("_high", metric.high)):
            if not math.isnan(value):
                figures[f"{name}{end}"] = value
    return figures


def _tensorboard(
    run: Run, figures: dict[str, float], config: dict[str, Any], examples: Path
) -> None:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.folder / "tensorboard")) as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value)
        writer.add_text("run.json", f"    {dump(config)}")  # indented: Markdown takes it as it is
        if examples.is_file():
            with Image.open(examples) as image:
                pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
            writer.add_image("examples", pixels, dataformats="HWC")


def _wandb(run: Run, figures: dict[str, float], config: dict[str, Any], examples: Path) -> None:
    import wandb

    with wandb.init(
        project=PROJECT, name=f"{run.label} {run.benchmark}", config=config, dir=str(run.folder)
    ) as session:
        session.log(figures)
        if examples.is_file():
            session.log({"examples": wandb.Image(str(examples))})


def _trackio(run: Run, figures: dict[str, float], config: dict[str, Any], examples: Path) -> None:
    import trackio

    trackio.init(project=PROJECT, name=f"{run.label} {run.benchmark}", config=config)
    try:
        trackio.log(figures)
        if examples.is_file():
            trackio.log({"examples": trackio.Image(str(examples))})
    finally:
        trackio.finish()


def _mlflow(run: Run, figures: dict[str, float], config: dict[str, Any], examples: Path) -> None:
    import mlflow

    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=f"{run.label} {run.benchmark}"):
        mlflow.log_metrics(figures)
        mlflow.log_params({name: str(value)[:LONGEST] for name, value in config.items()})
        mlflow.log_artifact(str(run.folder / "run.json"))
        if examples.is_file():
            mlflow.log_artifact(str(examples))


TRACKERS: dict[str, Tracker] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
MODULES = {
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "mlflow": "mlflow",
}
