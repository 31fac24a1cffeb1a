"""A model's card for the hub.

Its results as `model-index`, with intervals, and the command that repeats them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from bench.errors import BenchError
from bench.escaping import markdown_text, visible
from bench.runs.run import Run
from bench.types import Metric, scale_of
from reports.results import benchmark_tables, best_runs
from reports.tables import markdown


class CardError(BenchError):
    """Runs of which no card can be made."""


def model_card(runs: Sequence[Run]) -> str:
    """The README of one model. Raises CardError if the runs are of several."""
    from huggingface_hub import EvalResult, ModelCardData

    names = list(dict.fromkeys(run.label for run in runs))
    if len(names) != 1:
        raise CardError(
            "A card is of one model.", f"The runs are of {', '.join(names)}.", "Name only its runs."
        )
    results = []
    for run in runs:
        dataset = f"{run.benchmark} ({run.record['source']['data']})"
        for name, metric in run.whole().items():
            if math.isnan(metric.value):  # the hub's index takes numbers only
                continue
            results.append(
                EvalResult(
                    task_type="image-text-to-text",
                    dataset_type=run.benchmark,
                    dataset_name=dataset,
                    metric_type=name,
                    metric_name=visible(
                        "; ".join([f"{name}, 95 % interval {_interval(metric)}", *metric.caveats])
                    ),
                    metric_value=round(scale_of(metric.unit) * metric.value, 2),
                )
            )
    record = runs[0].record
    model = record["model"]
    adapter: dict[str, Any] = {}
    if model.get("adapter_sha256"):
        # The hub shows an adapter below its base model.
        base = visible(str(model["name"]).partition("+")[0])
        adapter = {"base_model": base, "library_name": "peft"}
    metadata = ModelCardData(
        model_name=visible(names[0]),
        eval_results=results,
        pipeline_tag="image-text-to-text",
        **adapter,
    )
    tables = []
    for table in benchmark_tables(runs, best_runs(runs)):
        tables.append(markdown(table._replace(caption=table.name)))
    commands = dict.fromkeys(_command(run) for run in runs)
    protocol = (model.get("protocol") or {}).get("name", "recorded answers")
    packages = (record.get("environment") or {}).get("packages", {})
    version = packages.get("synth-align", "of unknown version")
    return f"""---
{metadata.to_yaml()}
---

# {markdown_text(names[0])}

Measured with synth-align {version}; protocol `{protocol}`, weights `{model.get("weights_sha256")}`.

{chr(10).join(tables)}
## To repeat

```console
{chr(10).join(commands)}
```
"""


def _interval(metric: Metric) -> str:
    scale = scale_of(metric.unit)
    return f"{scale * metric.low:.2f} to {scale * metric.high:.2f}"


def _command(run: Run) -> str:
    """The command as it was typed, or as it would be."""
    words = run.record.get("command")
    if not words:
        model, data = str(run.record["model"]["name"]), str(run.record["source"]["data"])
        words = ["run", "--model", model, "--suite", run.benchmark, "--data", data]
    command = shlex.join(words)
    # It stands between two lines of ```, of which it may hold none.
    if "\n" in command or "`" in command:
        command = " ".join(command.replace("`", "'").split())
    return f"$ bench {visible(command)}"
