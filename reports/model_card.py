"""A model's card for the hub: its results as `model-index`, and the command that repeats them.

Beside the card the hub reads results from `.eval_results/`, each under the data set it is of.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.data.hub import REPOSITORIES
from bench.errors import BenchError
from bench.escaping import markdown_text, visible
from bench.runs.run import Run
from bench.types import Metric, scale_of
from reports.results import benchmark_tables, best_runs
from reports.tables import markdown

EVAL_RESULTS = ".eval_results/synth-align.yaml"
KEPT = ("license", "license_name", "license_link", "language", "base_model", "datasets", "tags")


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
        for metric_name, metric in run.whole().items():
            if math.isnan(metric.value):  # the hub's index takes numbers only
                continue
            results.append(
                EvalResult(
                    task_type="image-text-to-text",
                    dataset_type=run.benchmark,
                    dataset_name=dataset,
                    metric_type=metric_name,
                    metric_name=visible("; ".join([_with_interval(metric), *metric.caveats])),
                    metric_value=round(scale_of(metric.unit) * metric.value, 2),
                )
            )
    name = runs[0].model_name  # which data its figures are of, each of them says
    record = runs[0].record
    model = record["model"]
    known = _own_card(record["source"])
    if model.get("adapter_sha256"):
        # The hub shows an adapter below its base model.
        known["base_model"] = visible(str(model["name"]).partition("+")[0])
        known["library_name"] = "peft"
    metadata = ModelCardData(
        model_name=visible(name),
        eval_results=results,
        pipeline_tag="image-text-to-text",
        **known,
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

# {markdown_text(name)}

Measured with synth-align {version}; protocol `{protocol}`, weights `{model.get("weights_sha256")}`.

{chr(10).join(tables)}
## To repeat

```console
{chr(10).join(commands)}
```
"""


def eval_results(runs: Sequence[Run]) -> str | None:
    """The content of EVAL_RESULTS: each main figure of a run on a data set of the hub.

    None if no run is of such data: the hub shows a result on its data set's page only.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = []
    for run in runs:
        repository = REPOSITORIES.get(run.benchmark)
        headed = [figure for figure in run.figures if figure.heading]
        metric = run.whole().get(headed[0].metric) if headed else None
        if run.record["source"]["data"] != "hub" or repository is None or metric is None:
            continue
        notes = [_with_interval(metric), *metric.caveats]
        entries.append(
            EvalResultEntry(
                dataset_id=repository,
                task_id="default",
                value=round(scale_of(metric.unit) * metric.value, 2),
                date=str(run.record["created"]),
                notes=visible("; ".join(notes)),
            )
        )
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)


def _own_card(source: dict[str, Any]) -> dict[str, Any]:
    """What the card in the model's own folder says of licence, base, data sets and tags."""
    from huggingface_hub import metadata_load

    for folder in (source.get("adapter"), source.get("model")):
        card = Path(folder or "") / "README.md"
        if not folder or not card.is_file():
            continue
        try:
            metadata = metadata_load(card) or {}
        except (ValueError, OSError, yaml.YAMLError):
            continue
        return {name: metadata[name] for name in KEPT if name in metadata}
    return {}


def _with_interval(metric: Metric) -> str:
    scale = scale_of(metric.unit)
    ends = f"{scale * metric.low:.2f} to {scale * metric.high:.2f}"
    return f"{metric.name}, 95 % interval {ends}"


def _command(run: Run) -> str:
    """The command as it was typed, or as it would be."""
    words = run.record.get("command")
    if not words:
        source = run.record["source"]
        # Where the checkpoint lies if it is of this machine, else its name at the hub.
        model = str(source.get("model") or run.record["model"]["name"].partition("+")[0])
        if source.get("adapter"):
            model += f"+{source['adapter']}"
        words = ["run", "--model", model, "--suite", run.benchmark, "--data", str(source["data"])]
        for option in ("limit", "max_tokens"):
            if run.record.get(option) is not None:
                words += [f"--{option.replace('_', '-')}", str(run.record[option])]
    command = shlex.join(words)
    # It stands between two lines of ```, of which it may hold none.
    if "\n" in command or "`" in command:
        command = " ".join(command.replace("`", "'").split())
    return f"$ bench {visible(command)}"
