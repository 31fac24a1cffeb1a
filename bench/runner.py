"""Ask → judge → score → summarise: one model on one benchmark, recorded in a run folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import DataError, StoreError
from bench.store import RunFolder, dump
from bench.types import Benchmark, Data, Judge, Metric, Model, Progress, Request, Sample, Score, Verdict


@dataclass(frozen=True)
class Asked:
    """The samples of a run and the distinct requests they come down to; `key_of` maps sample ids to request keys."""

    samples: Sequence[Sample]
    requests: Sequence[Request]
    key_of: Mapping[str, str]
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, its metrics, and how many samples have no score for which reason."""

    folder: Path
    metrics: Sequence[Metric]
    unscored: Mapping[str, int] = field(default_factory=dict)


def prepare(benchmark: Benchmark, data: Data, suffix: str, max_tokens: Any, limit: int | None) -> Asked:
    """Samples and their distinct requests, grouped by image.

    Raises DataError on duplicate ids, on a benchmark without samples, or on a limit below 1.
    """
    samples = _limited(benchmark.samples(data), limit)
    if not samples:
        raise DataError(
            f"{benchmark.title} has no samples here.", f"{data.label} lists none.", "Check the data folder."
        )
    twice = next((name for name, number in Counter(sample.id for sample in samples).items() if number > 1), None)
    if twice is not None:
        raise DataError(
            f"{benchmark.title}: the id {twice} occurs twice.",
            "Answers and scores belong to ids, so each must be unique.",
            f"Mend the question files in {data.label}.",
        )
    images: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        prompt = f"{sample.question}\n{suffix}" if suffix and benchmark.yes_no(sample) else sample.question
        images.setdefault(sample.image, {}).setdefault(prompt, []).append(sample)
    folder = getattr(benchmark, "images", "")
    requests: list[Request] = []
    key_of: dict[str, str] = {}
    for name, prompts in images.items():
        path = data.image(name, folder)
        for prompt, shared in prompts.items():
            key, first = _key(name, prompt), shared[0]
            ids = tuple(sample.id for sample in shared)
            key_of |= dict.fromkeys(ids, key)
            tokens, yes_no = max_tokens(first), benchmark.yes_no(first)
            requests.append(Request(key, name, path, first.question, prompt, tokens, yes_no, ids))
    return Asked(samples, requests, key_of, _digest(samples))


def _key(image: str, prompt: str) -> str:
    """Twenty hex digits that stand for a distinct (image, prompt) pair."""
    return hashlib.sha256(f"{image}\0{prompt}".encode()).hexdigest()[:20]


def _limited(samples: list[Sample], limit: int | None) -> list[Sample]:
    """The first `limit` samples, taken evenly from every subset, in their order."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise DataError(f"--limit {limit} leaves no sample.", "A run needs at least one.", "Give a limit of 1 or more.")
    subsets: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        subsets.setdefault(sample.subset, []).append(index)
    rank = {index: place for group in subsets.values() for place, index in enumerate(group)}
    kept = sorted(sorted(range(len(samples)), key=lambda index: (rank[index], index))[:limit])
    return [samples[index] for index in kept]


def _digest(samples: Iterable[Sample]) -> str:
    """One digest over what is asked and what is right; side files are covered by `Data.digests`."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(dump([sample.id, sample.image, sample.question, sample.reference, sample.subset]).encode())
    return digest.hexdigest()


def ask(store: RunFolder, model: Model, asked: Asked, progress: Progress) -> dict[str, str]:
    """Gets and records every answer that is not recorded yet; returns why requests have none, by key.

    Raises StoreError where an image has changed since it was answered, DataError where no image is there at all.
    """
    sha256 = cache(_image_digest)
    recorded = store.answers()
    ready = [request for request in asked.requests if request.path is not None or not model.reads_images]
    if not ready:
        raise DataError(
            f"None of the {len({r.image for r in asked.requests})} images was found.",
            f"The first one looked for is {asked.requests[0].image}.",
            "Put the images under DIR/images, or pass their folder with --images.",
        )
    for request in ready:
        kept = recorded.get(request.key, (None, None))[1]
        if kept is not None and request.path is not None and sha256(request.path) != kept:
            raise StoreError(
                f"The image {request.image} has changed since it was answered.",
                f"{request.path} is another file than the one in {store.answers_file}.",
                "Restore the image, or run again in a new folder with --out.",
            )
    failures = {r.key: f"image {r.image} not found" for r in asked.requests if r.path is None and model.reads_images}
    progress(len(recorded))
    for batch in model.answer(ready, frozenset(recorded)):
        new = [(request, answer) for request, answer in batch if request.key not in recorded]
        failures |= {request.key: answer.error for request, answer in new if answer.error is not None}
        good = [(r, a, sha256(r.path) if model.reads_images and r.path else None) for r, a in new if a.error is None]
        store.append_answers(good)
        progress(len(new))
    return failures


def _image_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def judge_answers(store: RunFolder, judge: Judge, asked: Asked, progress: Progress) -> dict[str, str]:
    """Gets and records every verdict that is not recorded yet; returns why samples have none, by id."""
    digest = judge_digest(judge.describe())
    answers, verdicts = store.answers(), store.verdicts(digest)
    waiting = [sample for sample in asked.samples if sample.id not in verdicts and asked.key_of[sample.id] in answers]
    progress(len(asked.samples) - len(waiting))
    failures: dict[str, str] = {}
    for batch in judge.judge([(sample, answers[asked.key_of[sample.id]][0]) for sample in waiting]):
        failures |= {sample.id: verdict.error for sample, verdict in batch if verdict.error is not None}
        good = [(sample.id, verdict) for sample, verdict in batch if verdict.error is None]
        store.append_verdicts(good, digest)
        progress(len(batch))
    return failures


def judge_digest(description: Mapping[str, Any]) -> str:
    """Twelve hex digits that stand for a judge in verdicts.jsonl."""
    return hashlib.sha256(dump(description).encode()).hexdigest()[:12]


def summarise(
    store: RunFolder,
    benchmark: Benchmark,
    asked: Asked,
    judge: Mapping[str, Any] | None,
    unanswered: Mapping[str, str] | None = None,
    unjudged: Mapping[str, str] | None = None,
) -> Outcome:
    """Scores the recorded answers, writes scores and metrics, and returns them.

    `unanswered` (by request key) and `unjudged` (by sample id) say why an answer or a verdict is missing.
    """
    answers = store.answers()
    verdicts = store.verdicts(judge_digest(judge)) if judge else {}
    scores = []
    for sample in asked.samples:
        key = asked.key_of[sample.id]
        if key not in answers:
            reason = (unanswered or {}).get(key, "not answered")
            scores.append(Score(sample.id, sample.subset, sample.cluster, unscored=reason))
            continue
        verdict = verdicts.get(sample.id)
        if verdict is None and sample.id in (unjudged or {}):
            verdict = Verdict("", (unjudged or {})[sample.id])
        scores.append(benchmark.score(sample, answers[key][0], verdict))
    metrics = benchmark.metrics(scores)
    store.write_results(scores, metrics)
    reasons: dict[str, int] = {}
    for score in scores:
        if score.unscored is not None:
            reasons[score.unscored] = reasons.get(score.unscored, 0) + 1
    return Outcome(store.path, metrics, reasons)
