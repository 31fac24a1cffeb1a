"""Puts a model, a benchmark, data and a judge together into a run, and finds them again for a recorded one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench import registry, runner
from bench.data import open_data
from bench.environment import environment
from bench.errors import BenchError, StoreError
from bench.runner import Asked, Outcome
from bench.store import RunFolder, dump
from bench.terminal import progress_bar
from bench.types import Benchmark, Judge, Model, Score


@dataclass(frozen=True)
class Job:
    """One model on one benchmark."""

    benchmark: Benchmark
    model: Model
    judge: Judge | None
    data: str
    images: Path | None
    limit: int | None
    out: Path | None


def load_model(spec: str, options: Mapping[str, Any]) -> Model:
    """The adapter for a --model text: KIND:REST of a registered kind, else an alias, hub id or folder."""
    kind, rest = registry.split_kind("models", spec) or ("hf", spec)
    if kind == "hf" and (options.get("workers") or options.get("ray")):
        from bench.models.workers import RayModel

        return RayModel(rest, options)
    model: Model = registry.load("models", kind)(rest, options)
    return model


def load_judge(spec: str | None, template: Path | None) -> Judge | None:
    """The judge for a --judge text, None without one. Raises BenchError where it names no known kind."""
    if spec is None:
        return None
    kind, _, rest = spec.partition(":")
    judge: Judge = registry.load("judges", kind)(rest, {"template": template})
    return judge


@dataclass(frozen=True)
class Prepared:
    """A job whose questions are read and checked, with its record and its folder."""

    job: Job
    asked: Asked
    record: Mapping[str, Any]
    store: RunFolder


def prepare(job: Job, command: Sequence[str], now: str) -> Prepared:
    """Reads and checks everything that a job needs but the images and weights. Raises BenchError where it is amiss."""
    recorded = job.model.recorded_images()
    data = open_data(job.data, job.images, job.benchmark.name, None if recorded is None else tuple(recorded))
    suffix = job.model.suffix(job.benchmark)
    asked = runner.prepare(job.benchmark, data, suffix, partial(job.model.max_tokens, job.benchmark), job.limit)
    record = {
        "created": now,
        "command": [_without_secret(word) for word in command],
        "benchmark": {"name": job.benchmark.name, "version": job.benchmark.version},
        "data": {"samples": len(asked.samples), "sha256": asked.sha256, "files": data.digests()},
        "source": {
            "data": _absolute(job.data),
            "images": job.images and _absolute(str(job.images)),
            "replayed": recorded is not None,
            "adapter": (adapter := getattr(job.model, "adapter", None)) and _absolute(str(adapter)),
        },
        "prompt": {"suffix": suffix},
        "limit": job.limit,
        "model": job.model.describe(),
        "judge": job.judge.describe() if job.judge and job.benchmark.judged else None,
        "environment": environment(),
    }
    folder = (job.out or Path("runs") / _slug(record)) / job.benchmark.name.replace(":", "-")
    return Prepared(job, asked, record, RunFolder(folder))


def execute(prepared: Prepared) -> Outcome:
    """Runs a prepared job to its end in its folder, or continues it there."""
    job, asked, store = prepared.job, prepared.asked, prepared.store
    with store.locked():
        store.begin(prepared.record)
        with progress_bar(f"{job.benchmark.name}: asking", len(asked.requests)) as progress:
            unanswered = runner.ask(store, job.model, asked, progress)
        unjudged = {}
        if job.benchmark.judged and job.judge is not None:
            with progress_bar(f"{job.benchmark.name}: judging", len(asked.samples)) as progress:
                unjudged = runner.judge_answers(store, job.judge, asked, progress)
        return runner.summarise(store, job.benchmark, asked, store.record()["judge"], unanswered, unjudged)


def run_suite(
    names: Sequence[str], model: Model, judge: Judge | None, data: str, limit: int | None, out: Path
) -> dict[str, Outcome]:
    """One model on benchmarks by name, each in its folder under `out`, continued where it was begun before."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    jobs = [Job(registry.load("benchmarks", name), model, judge, data, None, limit, out) for name in names]
    return {job.benchmark.name: execute(prepare(job, [], now)) for job in jobs}


def judge_for(spec: str | None, data: str) -> str | None:
    """The --judge text, or the oracle's on the built-in world, whose facts it knows."""
    return spec or ("scene" if data == "scenes" else None)


def rescore(path: Path, judge: Judge | None) -> tuple[Benchmark, Outcome, str]:
    """Scores a recorded run again, judged anew where `judge` is given; returns the benchmark and model name too.

    Raises StoreError where the data is no longer the one that was asked about, BenchError where the benchmark
    takes no judge.
    """
    store = RunFolder(path)
    record = store.record()
    benchmark: Benchmark = registry.load("benchmarks", record["benchmark"]["name"])
    if judge is not None and not benchmark.judged:
        raise BenchError(f"{benchmark.title} takes no judge.", "Its answers are scored by rule.", "Use `bench score`.")
    with store.locked():
        asked = asked_before(store, record, benchmark)
        unjudged = {}
        if judge is not None:
            with progress_bar(f"{benchmark.name}: judging", len(asked.samples)) as progress:
                unjudged = runner.judge_answers(store, judge, asked, progress)
            record = {**record, "judge": judge.describe()}
            store.write_record(record)
        outcome = runner.summarise(store, benchmark, asked, record["judge"], {}, unjudged)
    return benchmark, outcome, str(record["model"].get("name", "?"))


def scores_by(path: Path, judges: Sequence[Judge]) -> list[dict[str, Score]]:
    """A recorded run's scores by sample id under each of the judges that have judged it."""
    store = RunFolder(path)
    record = store.record()
    benchmark: Benchmark = registry.load("benchmarks", record["benchmark"]["name"])
    asked, answers = asked_before(store, record, benchmark), store.answers()
    found = []
    for judge in judges:
        verdicts = store.verdicts(runner.judge_digest(judge.describe()))
        answered = [sample for sample in asked.samples if asked.key_of[sample.id] in answers]
        given = [(s, answers[asked.key_of[s.id]][0], verdicts.get(s.id)) for s in answered]
        found.append({sample.id: benchmark.score(sample, answer, verdict) for sample, answer, verdict in given})
    return found


def asked_before(store: RunFolder, record: Mapping[str, Any], benchmark: Benchmark) -> runner.Asked:
    """What a recorded run asked, read again. Raises StoreError where the data is no longer the one it asked about."""
    source = record["source"]
    answered = tuple(store.answered_images()) if source["replayed"] else None
    data = open_data(source["data"], source["images"] and Path(source["images"]), benchmark.name, answered)
    asked = runner.prepare(benchmark, data, record["prompt"]["suffix"], benchmark.max_tokens, record["limit"])
    if asked.sha256 != record["data"]["sha256"]:
        raise StoreError(
            f"The questions in {source['data']} are no longer those of {store.path}.",
            "The files have changed since the run.",
            "Restore them, or run again in a new folder.",
        )
    return asked


def _without_secret(word: str) -> str:
    """A word of the command line without the user, password and query that a URL in it may carry."""
    return re.sub(r"(://)[^/@\s]*@|\?\S*$", r"\1", word) if "://" in word else word


def _absolute(source: str) -> str:
    return source if source in ("hub", "scenes") else str(Path(source).resolve())


def _slug(record: Mapping[str, Any]) -> str:
    """A folder name for the model and everything else that must not change under it, apart from the benchmark."""
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", str(record["model"].get("name", "model"))).strip("-.") or "model"
    same = {key: record[key] for key in ("model", "limit", "environment", "data")}
    return f"{name[:60]}-{hashlib.sha256(dump(same).encode()).hexdigest()[:8]}"
