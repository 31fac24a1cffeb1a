"""A run's figures as Every Eval Ever's JSON, schema 0.2.2: one file for each evaluation.

The schema holds values and ends of intervals as recorded (fractions from 0 to 1), asks for a best
direction of each and for bounds; what has none (the rate of yes, words, counts) is left out.
"""

from __future__ import annotations

import math
import time
from typing import Any

from bench.data.hub import REPOSITORIES
from bench.files import dump
from bench.runs.run import Run
from bench.types import Metric

SCHEMA = "0.2.2"
DETAILS = (
    "weights_sha256",
    "adapter_sha256",
    "revision",
    "dtype",
    "engine",
    "protocol",
    "decoding",
)


def every_eval_ever(run: Run) -> dict[str, Any]:
    """The run as the schema's aggregate record. Details are texts: it takes nothing else there."""
    record = run.record
    model, source = record["model"], record["source"]
    name, benchmark = str(model["name"]), run.benchmark
    packages = (record.get("environment") or {}).get("packages", {})
    results = []
    whole = run.whole()
    for figure in run.figures:
        metric = whole.get(figure.metric)
        if metric is None or math.isnan(metric.value):
            continue
        if figure.better != "neither" and figure.bounds is not None:
            results.append(_result(run, metric, figure.bounds))
    details = {}
    for key in DETAILS:
        if model.get(key) is not None:
            details[key] = _text(model[key])
    engine = {}
    if model["kind"] == "hf":
        version = packages.get("transformers", "unknown")
        engine = {"inference_engine": {"name": "transformers", "version": version}}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{benchmark}/{name}/{record['created']}",
        "evaluation_timestamp": str(record["created"]),
        "retrieved_timestamp": str(int(time.time())),
        "source_metadata": {
            "source_name": "Synth-Align Bench",
            "source_type": "evaluation_run",
            "source_organization_name": "not given",
            "evaluator_relationship": "other",
            "additional_details": {"data": str(source["data"])},
        },
        "eval_library": {"name": "synth-align", "version": packages.get("synth-align", "unknown")},
        "model_info": {"name": run.label, "id": name, **engine, "additional_details": details},
        "evaluation_results": results,
    }


def _result(run: Run, metric: Metric, bounds: tuple[float, float]) -> dict[str, Any]:
    record = run.record
    low, high = bounds
    uncertainty: dict[str, Any] = {"num_samples": metric.n}
    if not math.isnan(metric.low):
        uncertainty["confidence_interval"] = {
            "lower": metric.low,
            "upper": metric.high,
            "confidence_level": 0.95,
            "method": "clustered by image",
        }
    details = {"subset": metric.subset, "unscored": str(metric.unscored)}
    if metric.caveats:
        details["caveats"] = "; ".join(metric.caveats)
    if record.get("judge"):
        details["judge"] = dump(record["judge"])
    arguments: dict[str, Any] = {}
    decoding = record["model"].get("decoding") or {}
    if decoding.get("greedy"):
        arguments["temperature"] = 0
    limits = record["prompt"].get("max_tokens") or []
    if len(limits) == 1:
        (arguments["max_tokens"],) = limits
    if record.get("command"):
        arguments["execution_command"] = " ".join(["bench", *map(str, record["command"])])
    return {
        "evaluation_name": f"{run.benchmark} {metric.name}",
        "evaluation_timestamp": str(record["created"]),
        "source_data": _source_data(run),
        "metric_config": {
            "evaluation_description": f"{metric.name} of {run.benchmark}, as its authors define it",
            "lower_is_better": metric.better == "lower",
            "score_type": "continuous",
            "min_score": low,
            "max_score": high,
        },
        "score_details": {
            "score": metric.value,
            "details": details,
            "uncertainty": uncertainty,
        },
        "generation_config": {"generation_args": arguments},
    }


def _source_data(run: Run) -> dict[str, Any]:
    data = run.record["data"]
    digest = {"questions_sha256": str(data["sha256"])}
    if run.record["source"]["data"] == "hub":
        return {
            "dataset_name": run.benchmark,
            "source_type": "hf_dataset",
            "hf_repo": REPOSITORIES[run.benchmark],
            "samples_number": data["samples"],
            "additional_details": digest,
        }
    return {"dataset_name": run.benchmark, "source_type": "other", "additional_details": digest}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)
