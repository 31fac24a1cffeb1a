"""A model's card for the hub: its results as `model-index`, with intervals, and the command that repeats them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from bench.errors import BenchError
from bench.types import Metric, scale_of
from leaderboards.board import Run
from reports.results import benchmark_tables, whole
from reports.tables import markdown


class CardError(BenchError):
    """Runs of which no card can be made."""


def model_card(runs: Sequence[Run]) -> str:
    """The README of one model. Raises CardError where the runs are of several."""
    from huggingface_hub import EvalResult, ModelCardData

    names = list(dict.fromkeys(run.model for run in runs))
    if len(names) != 1:
        raise CardError("A card is of one model.", f"The runs are of {', '.join(names)}.", "Name its runs alone.")
    record = runs[0].record
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=run.benchmark,
            dataset_name=f"{run.benchmark} ({run.record['source']['data']})",
            metric_type=name,
            metric_name=f"{name}, 95 % interval {_ends(metric)}",
            metric_value=round(scale_of(metric.unit) * metric.value, 2),
        )
        for run in runs
        for name, metric in whole(run).items()
        if metric.value == metric.value and metric.unit != "count"
    ]
    base = str(record["model"]["name"]).partition("+")[0]
    told: dict[str, Any] = {"base_model": base, "library_name": "peft"} if record["model"].get("adapter_sha256") else {}
    data = ModelCardData(model_name=names[0], eval_results=results, pipeline_tag="image-text-to-text", **told)
    tables = "\n".join(markdown(table._replace(caption=f"{table.name}")) for table in benchmark_tables(runs))
    commands = dict.fromkeys(_command(run) for run in runs)
    protocol = (record["model"].get("protocol") or {}).get("name", "recorded answers")
    version = (record.get("environment") or {}).get("packages", {}).get("synth-align", "of unknown version")
    return f"""---
{data.to_yaml()}
---

# {names[0]}

Measured with synth-align {version}; protocol `{protocol}`, weights `{record["model"].get("weights_sha256")}`.

{tables}
## To repeat

```console
{chr(10).join(commands)}
```
"""


def _ends(metric: Metric) -> str:
    return f"{scale_of(metric.unit) * metric.low:.2f} to {scale_of(metric.unit) * metric.high:.2f}"


def _command(run: Run) -> str:
    """As it was typed, or as it would be."""
    words = run.record.get("command") or [
        "run", "--model", str(run.record["model"]["name"]), "--suite", run.benchmark,
        "--data", str(run.record["source"]["data"]),
    ]  # fmt: skip
    return f"$ bench {shlex.join(words)}"
