"""`bench export`: a run's samples for other tools, NAME being the run's folder.

| format | files |
|---|---|
| csv, parquet | a row for each sample: question, answer, what the rule made of it |
| lmms-eval | NAME_results.json and NAME_samples_TASK.jsonl, as its `--log_samples` writes them |
| inspect | NAME.eval, a log of inspect_ai, which has to be installed |
| every-eval-ever | NAME.json: the figures with their intervals, no samples |
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.files import dump, replace_file, without_surrogates
from bench.runs.run import Run
from bench.runs.store import Recorded
from bench.types import Sample, Score
from reports.every_eval_ever import every_eval_ever
from reports.page_data import RunSamples
from reports.tables import csv_of


class ExportError(BenchError):
    """A run that cannot be exported."""


def export(asked: RunSamples, form: str, folder: Path) -> list[Path]:
    """Writes a run into a folder and returns the files.

    Args:
        asked: The run and what it asked.
        form: One of the formats above.
        folder: Where the files go; it is made if it is not there.

    Raises:
        ExportError: A library is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Two runs of a benchmark lie in two folders, and must not become one file.
    name = asked.run.folder.resolve().name
    task = asked.run.benchmark.replace(":", "-")
    if form == "inspect":
        return [_write_inspect(asked, folder / f"{name}.eval")]
    if form == "every-eval-ever":
        file = folder / f"{name}.json"
        replace_file(file, json.dumps(every_eval_ever(asked.run), indent=2) + "\n")
        return [file]
    if form == "lmms-eval":
        results, samples = folder / f"{name}_results.json", folder / f"{name}_samples_{task}.jsonl"
        replace_file(results, json.dumps(_lmms_results(asked.run, task), indent=2) + "\n")
        replace_file(samples, "".join(f"{dump(row)}\n" for row in _lmms_samples(asked)))
        return [results, samples]
    frame = samples_frame(asked)
    file = folder / f"{name}.{form}"
    is_csv = form == "csv"
    replace_file(file, csv_of(frame) if is_csv else frame.to_parquet(index=False))
    return [file]


def samples_frame(asked: RunSamples) -> pd.DataFrame:
    """A row for each sample; what the rule recorded of it stands in columns `score.NAME`."""
    rows = []
    for sample, recorded, score in _answered(asked):
        row: dict[str, Any] = {
            "sample": sample.id,
            "subset": sample.subset,
            "image": sample.image,
            "question": sample.question,
            "reference": _text(sample.reference),
            "answer": recorded.answer.text if recorded else None,
            "thoughts": recorded.answer.thoughts if recorded else None,
            "finish": recorded.answer.finish if recorded else None,
            "tokens": recorded.answer.tokens if recorded else None,
            "seconds": recorded.answer.seconds if recorded else None,
            "unscored": score.unscored if score else "no score",
        }
        for name, value in (score.values if score else {}).items():
            is_plain = value is None or isinstance(value, bool | int | float | str)
            row[f"score.{name}"] = value if is_plain else dump(value)
        rows.append(row)
    return pd.DataFrame(without_surrogates(rows))


def _answered(asked: RunSamples) -> Iterator[tuple[Sample, Recorded | None, Score | None]]:
    run = asked.run
    for sample in asked.samples:
        yield sample, run.answers.get(asked.key_of.get(sample.id, "")), run.scores.get(sample.id)


def _text(reference: Any) -> str:
    return reference if isinstance(reference, str) else dump(reference)


def _lmms_results(run: Run, task: str) -> dict[str, Any]:
    """As lmms-eval's results file: `METRIC,none` with its standard error beside."""
    figures: dict[str, Any] = {"alias": task}
    for name, metric in run.whole().items():
        if not math.isnan(metric.value):
            figures[f"{name},none"] = metric.value
            # Half of a 95 % interval is 1.96 standard errors.
            error = (metric.high - metric.low) / (2 * 1.96)
            figures[f"{name}_stderr,none"] = "N/A" if math.isnan(error) else error
    model = run.record["model"]
    return {
        "results": {task: figures},
        "configs": {task: {"task": task}},
        "versions": {task: run.record["benchmark"]["version"]},
        "n-samples": {task: {"original": len(run.scores), "effective": len(run.scored)}},
        "model_source": "synth-align",
        "model_name": str(model["name"]),
        "config": {"model": str(model["name"]), "limit": run.record.get("limit")},
        "date": run.record["created"],
    }


def _lmms_samples(asked: RunSamples) -> Iterator[dict[str, Any]]:
    """As lmms-eval's samples file. A sample that was not answered is left out, as it does."""
    for number, (sample, recorded, score) in enumerate(_answered(asked)):
        if recorded is None:
            continue
        answer = recorded.answer
        probabilities = {}
        if answer.p_yes is not None:  # lmms-eval has no field for it; `replay:` reads it
            probabilities = {"p_yes": answer.p_yes, "p_no": answer.p_no}
        yield {
            "doc_id": number,
            "doc": {
                "question_id": sample.id,
                "question": sample.question,
                "image_source": sample.image,
                "category": sample.subset,
            },
            "input": sample.question,
            "target": _text(sample.reference),
            # As lmms-eval writes them where a question has one answer; `resps` would say the same.
            "filtered_resps": answer.text,
            "scores": dict(score.values) if score else {},
            **probabilities,
        }


def _write_inspect(asked: RunSamples, file: Path) -> Path:
    try:
        from inspect_ai import log
        from inspect_ai.model import ChatMessageUser, ModelOutput
        from inspect_ai.scorer import Score as InspectScore
    except ImportError as error:
        raise ExportError(
            "A log of inspect_ai is written by its own library.",
            f"It cannot be imported: {error}.",
            "pip install inspect_ai",
        ) from error
    run, record = asked.run, asked.run.record
    name = str(record["model"]["name"])
    samples = []
    for sample, recorded, score in _answered(asked):
        text = recorded.answer.text if recorded else ""
        samples.append(
            log.EvalSample(
                id=sample.id,
                epoch=1,
                input=[ChatMessageUser(content=sample.question)],
                target=_text(sample.reference),
                output=ModelOutput.from_content(name, text),
                scores={run.benchmark: InspectScore(value=_inspect_value(score), answer=text)},
                metadata={"image": sample.image, "subset": sample.subset},
            )
        )
    metrics = {}
    for metric_name, metric in run.whole().items():
        if not math.isnan(metric.value):
            known = {"low": metric.low, "high": metric.high, "n": metric.n}
            metrics[metric_name] = log.EvalMetric(
                name=metric_name, value=metric.value, metadata=known
            )
    scores = [log.EvalScore(name=run.benchmark, scorer=run.benchmark, metrics=metrics)]
    # The viewer computes a duration from both ends; a run records the time of each answer.
    start = datetime.fromisoformat(str(record["created"]))
    seconds = sum(recorded.answer.seconds for recorded in run.answers.values())
    eval_log = log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=str(record["created"]),
            task=run.benchmark,
            dataset=log.EvalDataset(name=run.benchmark, samples=len(samples)),
            model=name,
            config=log.EvalConfig(limit=record.get("limit")),
            metadata={"synth_align": {"judge": record.get("judge"), "prompt": record["prompt"]}},
        ),
        stats=log.EvalStats(
            started_at=start.isoformat(),
            completed_at=(start + timedelta(seconds=seconds)).isoformat(),
        ),
        results=log.EvalResults(
            total_samples=len(samples), completed_samples=len(run.answers), scores=scores
        ),
        samples=samples,
    )
    log.write_eval_log(eval_log, str(file), format="eval")
    return file


def _inspect_value(score: Score | None) -> Any:
    """C or I, as inspect_ai's own scorers; what is neither right nor wrong by its plain values."""
    if score is None or score.unscored is not None:
        return "N"
    correct = score.values.get("correct")
    if correct is not None:
        return "C" if correct else "I"
    plain = {}
    for name, value in score.values.items():
        if isinstance(value, bool | int | float | str):
            plain[name] = value
    return plain
