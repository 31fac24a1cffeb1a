"""The bench while a model trains: a callback for trl's and transformers' trainers.

from alignment.training.measuring import BenchCallback

trainer.add_callback(
    BenchCallback("llava-hf/llava-1.5-7b-hf", suite=["pope", "chair"], every=100, limit=200,
                  data="data", out=Path("measured"))
)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from alignment.rows import MeasuredRow
from alignment.settings import RecipeError
from alignment.training.artifacts import MEASURED
from bench.files import read_lines, replace_lines
from bench.models.hf import HFModel
from bench.runs.jobs import judge_for
from bench.runs.run import Run
from bench.runs.suites import run_suite
from bench.types import scale_of


class BenchCallback(TrainerCallback):  # type: ignore[misc]
    """Runs benchmarks on the adapter as it is after some updates.

    The network that trains answers itself, so no second copy is loaded. Each measurement is a run
    like any other, in OUT/step-N; its figures with their intervals are the rows of
    OUT/measured.jsonl, and go to the trainer's trackers.

    Args:
        base: The base model, as `--model` takes it.
        suite: Names of benchmarks.
        every: Updates between two measurements; the last one is always measured.
        out: A folder for the runs.
        data: As `--data` of `bench run`.
        limit: Samples of each benchmark; None for all.
        judge: As `--judge`.
        file: Where the rows go, if not into `out`.
    """

    def __init__(
        self,
        base: str,
        suite: Sequence[str],
        every: int,
        out: Path,
        data: str = "hub",
        limit: int | None = None,
        judge: str | None = None,
        file: Path | None = None,
    ) -> None:
        self.base, self.suite, self.every, self.out = base, suite, every, out
        self.data, self.limit, self.judge = data, limit, judge
        self.file = file or out / MEASURED
        self.unsent: dict[str, float] = {}  # figures that no tracker has got yet

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measures if it is time. Raises what a run raises; RecipeError without an adapter."""
        step = state.global_step
        is_time = step % self.every == 0 or step == state.max_steps
        if is_time and state.is_world_process_zero:
            was_training = model.training
            self.measure(model.eval(), step)
            model.train(was_training)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Adds the newest figures to what trackers get; it has to stand before them."""
        if logs is not None:
            logs.update(self.unsent)
        self.unsent = {}

    def measure(self, network: Any, step: int) -> None:
        """Runs the suite on a network with an adapter and records its figures.

        Args:
            network: A peft model in evaluation mode.
            step: How many updates it has seen.
        """
        if not isinstance(network, PeftModel):
            raise RecipeError(
                "BenchCallback measures adapters.",
                f"The model that trains is a {type(network).__name__}.",
                "Train with peft, or run `bench run` on the checkpoints.",
            )
        folder = self.out / f"step-{step}"
        adapter = folder / "adapter"
        # Saved, so that the run's record names what it measured; and removed, for it is large.
        network.save_pretrained(adapter, save_embedding_layers=False)  # else peft asks the hub
        model = HFModel(f"{self.base}+{adapter}", {})
        model.take_network(network.get_base_model())
        judge = judge_for(self.judge, self.data)
        outcomes = run_suite(self.suite, model, judge, self.data, self.limit, folder)
        shutil.rmtree(adapter)
        rows = [row for row in read_lines(self.file, MeasuredRow) if row["step"] != step]
        for outcome in outcomes.values():
            rows += _rows(Run(outcome.folder), step)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_lines(self.file, sorted(rows, key=lambda row: row["step"]))
        for row in rows:
            if row["step"] == step:
                name = f"bench/{row['figure']}"
                self.unsent[name] = row["value"]
                for end in ("low", "high"):
                    value = row[end]  # type: ignore[literal-required]
                    if value is not None and not math.isnan(value):
                        self.unsent[f"{name}/{end}"] = value


def _rows(run: Run, step: int) -> list[MeasuredRow]:
    """The run's figures over the whole benchmark, with their intervals, as tables show them."""
    rows: list[MeasuredRow] = []
    for figure in run.figures:
        for metric in run.metrics:
            if not figure.stands_for_whole(metric) or math.isnan(metric.value):
                continue
            scale = scale_of(metric.unit)
            rows.append(
                {
                    "step": step,
                    "figure": figure.title,
                    "better": figure.better,
                    "unit": figure.unit,
                    "value": scale * metric.value,
                    "low": scale * metric.low,
                    "high": scale * metric.high,
                    "n": metric.n,
                    "caveats": list(metric.caveats),
                }
            )
    return rows
