"""Puts a model, a benchmark, data and a judge together into a run; opens a recorded one again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from bench import registry
from bench.errors import BenchError, DataError, StoreError
from bench.files import dump
from bench.language.thoughts import Tags
from bench.runs import runner
from bench.runs.environment import environment
from bench.runs.run import Run
from bench.runs.runner import Outcome, Questions
from bench.runs.sources import open_data
from bench.runs.store import RunFolder, asked_of
from bench.terminal import note, progress_bar
from bench.types import (
    Batching,
    Benchmark,
    Checkable,
    Judge,
    Model,
    Negotiating,
    Repeating,
    Request,
    Rewording,
    Sample,
    Score,
)

USUAL = {"protocol": "auto", "dtype": "auto", "device": "auto"}  # options that are always given
URL_SECRETS = re.compile(r"(://)[^/@\s]*@|\?\S*$")


@dataclass(frozen=True)
class Job:
    """One model on one benchmark."""

    benchmark: Benchmark
    model: Model
    judge: Judge | None
    data: str
    images: Path | None
    limit: int | float | None  # below 1 a share of the samples
    out: Path
    subsets: tuple[str, ...] | None = None
    name: str | None = None
    max_tokens: int | None = None  # in place of what benchmark and protocol say
    thinking_tokens: int = 0
    reasoning_tags: Tags | None = None


@dataclass(frozen=True)
class Prepared:
    """A job whose questions are read and checked, with its record and its folder."""

    job: Job
    questions: Questions
    record: Mapping[str, Any]
    store: RunFolder


def load_model(spec: str, options: Mapping[str, Any]) -> Model:
    """The adapter for a --model text: KIND:REST of a registered kind, else an `hf` model.

    Raises BenchError if an option does nothing for this kind.
    """
    kind, rest = registry.split_kind("models", spec) or ("hf", spec)
    adapter = registry.load("models", kind)
    _check_options(adapter, options, f"--model {kind}:…" if kind != "hf" else "a local model", "")
    # Only a local model can be spread over workers; a server has its own.
    if kind == "hf" and (options.get("workers") or options.get("ray")):
        from bench.models.ray_workers import RayModel

        return RayModel(rest, options)
    model: Model = adapter(rest, options)
    return model


def load_judge(
    spec: str,
    template: Path | None = None,
    max_tokens: int | None = None,
    api_key_env: str | None = None,
    claims: str | None = None,
) -> Judge:
    """The judge for a --judge text.

    Raises BenchError if it names no known kind, or if an option does nothing for it.
    """
    kind, _, rest = spec.partition(":")
    options = {
        "template": template,
        "max_tokens": max_tokens,
        "api_key_env": api_key_env,
        "claims": claims,
    }
    adapter = registry.load("judges", kind)
    _check_options(adapter, options, f"--judge {kind}", "judge-")
    judge: Judge = adapter(rest, options)
    return judge


def load_judges(
    specs: Sequence[str],
    template: Path | None = None,
    max_tokens: int | None = None,
    api_key_env: str | None = None,
    claims: str | None = None,
) -> list[Judge]:
    """Several judges; an option goes to those that take it.

    Raises BenchError as `load_judge` does, and if no judge takes an option.
    """
    options = {
        "template": template,
        "max_tokens": max_tokens,
        "api_key_env": api_key_env,
        "claims": claims,
    }
    adapters = [registry.load("judges", spec.partition(":")[0]) for spec in specs]
    judges = []
    for spec, adapter in zip(specs, adapters, strict=True):
        own: dict[str, Any] = {}
        for name, value in options.items():
            # What no judge takes is refused by the first.
            is_taken_elsewhere = any(_takes(other, name) for other in adapters)
            if _takes(adapter, name) or not is_taken_elsewhere:
                own[name] = value
        judges.append(load_judge(spec, **own))
    return judges


def _takes(adapter: Any, option: str) -> bool:
    return option in getattr(adapter, "OPTIONS", (option,))


def _check_options(adapter: Any, options: Mapping[str, Any], what: str, prefix: str) -> None:
    """Raises BenchError if an option is given that the adapter does not take.

    Another package's adapter need not say what it takes.
    """
    taken = getattr(adapter, "OPTIONS", None)
    if taken is None:
        return
    for name, value in options.items():
        is_given = value is not None and value is not False and value != USUAL.get(name)
        if is_given and name not in taken:
            flags = [f"--{prefix}{option.replace('_', '-')}" for option in sorted(taken)]
            raise BenchError(
                f"--{prefix}{name.replace('_', '-')} does nothing for {what}.",
                f"It takes {', '.join(flags)}." if flags else "It takes no such option.",
                "Leave it out.",
            )


def judge_for(
    spec: str | None,
    data: str,
    template: Path | None = None,
    max_tokens: int | None = None,
    api_key_env: str | None = None,
    claims: str | None = None,
) -> Judge | None:
    """The judge of a run: the one that was asked for, else the oracle on the built-in world."""
    if spec is None and data == "scenes":
        spec = "scene"  # it knows the facts of every scene
    if spec is None and (template or max_tokens or api_key_env or claims):
        raise BenchError(
            "The options of a judge do nothing without one.",
            "--judge-template, --judge-max-tokens, --judge-api-key-env and --judge-claims say how "
            "it is asked.",
            "Give --judge too, or leave them out.",
        )
    return None if spec is None else load_judge(spec, template, max_tokens, api_key_env, claims)


def prepare(job: Job, command: Sequence[str], now: str) -> Prepared:
    """Reads and checks everything that a job needs but the images and weights.

    Args:
        job: The job.
        command: The words of the command line, for the record.
        now: The time, for the record.

    Raises:
        BenchError: Something is wrong with it.
    """
    benchmark, model = job.benchmark, job.model
    recorded = model.recorded
    # Recorded answers decide which images a benchmark without a list of its own is about.
    known_images = None if recorded is None else tuple(recorded.images)
    data = open_data(job.data, job.images, benchmark.name, known_images, job.subsets)
    suffix = model.suffix(benchmark)
    question = model.question(benchmark) if isinstance(model, Rewording) else None
    seeds = model.seeds if isinstance(model, Repeating) else 1
    samples = runner.read_samples(benchmark, data)
    subsets: Sequence[str] | None = job.subsets
    matching = None
    if recorded is not None:
        asked_samples = runner.of_subsets(benchmark, samples, subsets)
        asked_subsets, matching = recorded.match(benchmark, asked_samples)
        # A split that the file was not asked would stand beside the others as unscored.
        if len(asked_subsets) < len({sample.subset for sample in asked_samples}):
            subsets = asked_subsets
    limit = _limit_of(job, len(runner.of_subsets(benchmark, samples, subsets)))
    questions = runner.prepare(
        benchmark,
        data,
        samples,
        suffix,
        _bound_of(job),
        limit,
        subsets,
        per_sample=recorded is not None,
        question=question,
        seeds=seeds,
        thinking_tokens=job.thinking_tokens,
        reasoning_tags=job.reasoning_tags,
    )
    judge = job.judge.describe() if job.judge and benchmark.judged else None
    prompt: dict[str, Any] = {"suffix": suffix}
    if question is not None:
        prompt["question"] = question
    if job.thinking_tokens:
        prompt["thinking_tokens"] = job.thinking_tokens
    if job.reasoning_tags is not None:
        prompt["reasoning_tags"] = list(job.reasoning_tags)
    # How long recorded answers might become is not known.
    if recorded is None:
        prompt["max_tokens"] = sorted({request.max_tokens for request in questions.requests})
    record = {
        "created": now,
        "command": list(map(without_url_secrets, command)),
        "name": job.name,
        "benchmark": {"name": benchmark.name, "version": benchmark.version},
        "data": {
            "samples": len(questions.samples) // seeds,
            "sha256": questions.sha256,
            "files": data.digests(),
        },
        "source": {
            "data": _absolute(job.data),
            "images": job.images and _absolute(str(job.images)),
            "replayed": recorded is not None,
            # Earlier versions gave equal questions one recorded answer.
            "per_sample": recorded is not None,
            "model": model.source and _absolute(str(model.source)),
            "adapter": model.adapter and _absolute(str(model.adapter)),
        },
        "prompt": prompt,
        "limit": limit,
        "seeds": seeds if seeds > 1 else None,
        "max_tokens": job.max_tokens,
        "all_samples": len(samples),
        "subsets": subsets and list(subsets),
        "recorded": matching,
        "model": model.describe(),
        "judge": judge,
        "environment": environment(),
    }
    return Prepared(job, questions, record, folder_of(job))


def folder_of(job: Job) -> RunFolder:
    """Where a job's run lies, or will lie."""
    return RunFolder(job.out / job.benchmark.name.replace(":", "-"))


def _limit_of(job: Job, samples: int) -> int | None:
    """How many samples are asked at most. Raises DataError for what is no number of samples."""
    limit = job.limit
    if limit is None or (limit >= 1 and limit % 1 == 0):
        return None if limit is None else int(limit)
    if not 0 < limit < 1:
        raise DataError(
            f"--limit {limit:g} is no number of samples.",
            "It takes a whole number, or a share between 0 and 1.",
            "Write 100, or 0.1 for a tenth.",
        )
    return max(1, round(limit * samples))


def _bound_of(job: Job) -> Callable[[Sample], int]:
    """The longest answer to a sample, in tokens."""
    bound = job.max_tokens
    is_set = bound is not None or job.thinking_tokens
    if is_set and job.model.recorded is not None:
        raise BenchError(
            "--max-tokens and --thinking-tokens do nothing for recorded answers.",
            "They are as long as they are.",
            "Leave it out.",
        )
    if bound is None:
        return partial(job.model.max_tokens, job.benchmark)
    return lambda sample: bound


def check_server(server: Model | Judge) -> None:
    """Raises a BenchError if a model or judge is behind a server that cannot be asked."""
    if isinstance(server, Checkable):
        server.check()


def lacks_images(prepared: Prepared) -> bool:
    """Whether there is something to ask and not one of its images was found."""
    job, requests = prepared.job, prepared.questions.requests
    if not job.model.reads_images or any(request.path is not None for request in requests):
        return False
    answered = prepared.store.answers().keys()
    return any(request.key not in answered for request in requests)


def is_batched(model: Model) -> TypeGuard[Batching]:
    """Whether a model is asked by whole batches, which take hours."""
    return isinstance(model, Batching) and model.in_batches


def begin_batches(prepared: Prepared) -> None:
    """Starts a run whose model answers in batches: they are sent, and nothing is waited for."""
    with prepared.store.locked():
        _begin(prepared)
        _send_batches(prepared)


def _begin(prepared: Prepared) -> None:
    """Starts the run or continues it. Raises StoreError if it is another one."""
    keys = [request.key for request in _with_images(prepared)]
    prepared.store.begin(prepared.record, keys)


def _send_batches(prepared: Prepared) -> None:
    """Sends what is neither answered nor under way; nothing if the model is asked otherwise."""
    model, store = prepared.job.model, prepared.store
    if is_batched(model):
        done = frozenset(store.answers())
        model.begin_batches(_with_images(prepared), done, store.batches_file)


def _with_images(prepared: Prepared) -> list[Request]:
    """The requests that can be asked."""
    return [request for request in prepared.questions.requests if request.path is not None]


def execute(prepared: Prepared) -> Outcome:
    """Runs a prepared job to its end in its folder, or continues it there."""
    job, questions, store = prepared.job, prepared.questions, prepared.store
    name = job.benchmark.name
    with store.locked():
        _begin(prepared)
        size_before = store.size_of_answers()
        asked, answered = len(questions.requests), len(questions.samples)
        if asked < answered:
            note(
                f"{name}: {asked:,} distinct questions stand for {answered:,} samples; the same "
                "question about an image is asked once"
            )
        _send_batches(prepared)
        if lacks_images(prepared):
            raise runner.no_images(job.benchmark, questions)
        with progress_bar(f"{name}: asking", asked) as progress:
            unanswered = runner.ask(store, job.model, questions, progress)
        is_only_shown = 0 < size_before == store.size_of_answers() and not unanswered
        unjudged: Mapping[str, str] = {}
        if job.benchmark.judged and job.judge is not None:
            with progress_bar(f"{name}: judging", len(questions.samples)) as progress:
                unjudged = runner.judge_answers(store, job.judge, questions, progress)
        record = _with_judge_and_refusals(store, prepared)
        outcome = runner.summarise(store, job.benchmark, questions, record, unanswered, unjudged)
        return replace(outcome, recorded_before=record["created"] if is_only_shown else None)


def _with_judge_and_refusals(store: RunFolder, prepared: Prepared) -> dict[str, Any]:
    """The run's record, with who judged it, and what servers refused.

    Another temperature moves answers. Without a judge the verdicts of an earlier start count.
    """
    job, record = prepared.job, store.record()
    record["judge"] = prepared.record["judge"] or record["judge"]
    refusals = dict.fromkeys(record.get("negotiated") or ())
    for server in (job.model, job.judge if job.benchmark.judged else None):
        if isinstance(server, Negotiating):
            refusals |= dict.fromkeys(server.negotiated)
    if refusals:
        record["negotiated"] = list(refusals)
    return record


def rescore(run: Run, judge: Judge | None) -> tuple[Benchmark, Outcome]:
    """Scores a recorded run again, judged anew if `judge` is given.

    Raises StoreError if the data is no longer the one that was asked about, BenchError if the
    benchmark takes no judge.
    """
    benchmark: Benchmark = registry.benchmark(run.benchmark)
    # Scoring by rule what was meant to be judged would look like a result.
    if judge is not None and not benchmark.judged:
        raise BenchError(
            f"{benchmark.title} takes no judge.",
            "Its answers are scored by rule.",
            "Use `bench score`.",
        )
    store, record = run.store, run.record
    # Nobody else writes while scores and metrics are replaced together.
    with store.locked():
        questions = recorded_questions(run, benchmark)
        unjudged: Mapping[str, str] = {}
        if judge is not None:
            with progress_bar(f"{benchmark.name}: judging", len(questions.samples)) as progress:
                unjudged = runner.judge_answers(store, judge, questions, progress)
            record = {**record, "judge": judge.describe()}
        # With the record, so that a folder that has moved is found there from now on.
        return benchmark, runner.summarise(store, benchmark, questions, record, {}, unjudged)


def score_as(
    run: Run, name: str, source: str | None = None, images: Path | None = None
) -> tuple[Benchmark, Outcome]:
    """A recorded run's answers, scored by another benchmark over the same images and questions.

    The result is a run of its own beside the first. Questions without a recorded answer are
    unscored.

    Args:
        run: The recorded run.
        name: The other benchmark.
        source: Its data, if it lies elsewhere.
        images: Its images, if they lie elsewhere.

    Raises:
        ModelError: No answer belongs to a question of it.
        BenchError: The run was made of recorded answers, the benchmark's files are missing, or its
            folder holds another run.
    """
    benchmark: Benchmark = registry.benchmark(name)
    record = run.record
    if record["source"]["replayed"]:
        # Which part of its benchmark a row answered stands in that file only.
        raise BenchError(
            f"{run.folder} was made of recorded answers.",
            "Which questions its rows answer stands in the file of answers alone.",
            f"bench run --model replay:{record['model'].get('file')} --suite {name} "
            f"--data {source or record['source']['data']}",
        )
    if (record.get("seeds") or 1) > 1:
        raise BenchError(
            f"{run.folder} has several answers to each question.",
            "Recorded answers are found by image and question, which would take the last of them.",
            f"Run the model with --suite {name}.",
        )
    answers = load_model(f"replay:{run.folder}", {})
    recorded_images = record["source"]["images"]
    job = Job(
        benchmark,
        answers,
        None,
        source or record["source"]["data"],
        images or (recorded_images and Path(recorded_images)),
        record["limit"],
        run.folder.parent,
        name=record.get("name"),
    )
    prepared = prepare(job, record["command"], record["created"])
    # The answers are the model's, however they came here.
    scored_record = {
        **prepared.record,
        "model": record["model"],
        "prompt": record["prompt"],
        "scored_from": {
            "benchmark": run.benchmark,
            "folder": str(run.folder.resolve()),
            "prompt": prepared.record["prompt"],
        },
    }
    return benchmark, execute(replace(prepared, record=scored_record))


def scores_by(run: Run, judges: Sequence[Judge]) -> list[dict[str, Score]]:
    """A recorded run's scores by sample id, under each of the judges that have judged it."""
    benchmark: Benchmark = registry.benchmark(run.benchmark)
    questions, answers = recorded_questions(run, benchmark), run.answers
    by_judge = []
    for judge in judges:
        verdicts = run.store.verdicts(runner.judge_digest(judge.describe()))
        scores = {}
        for sample in questions.samples:
            key = questions.key_of[sample.id]
            if key in answers:
                verdict = verdicts.get(sample.id)
                scores[sample.id] = benchmark.score(sample, answers[key].answer, verdict)
        by_judge.append(scores)
    return by_judge


def recorded_questions(run: Run, benchmark: Benchmark) -> Questions:
    """What a recorded run asked, read again.

    Raises StoreError if the data is no longer the one it asked about.
    """
    record, source = run.record, run.record["source"]
    # A replayed run asked about the images that its file knew.
    answered = tuple(run.store.answered_images()) if source["replayed"] else None
    images = source["images"] and Path(source["images"])
    subsets = record.get("subsets")
    # Answers that were scored again are kept under what they were found by.
    prompt = record.get("scored_from", {}).get("prompt") or record["prompt"]
    data = open_data(source["data"], images, benchmark.name, answered, subsets)
    questions = runner.prepare(
        benchmark,
        data,
        runner.read_samples(benchmark, data),
        prompt["suffix"],
        benchmark.max_tokens,
        record["limit"],
        subsets,
        source.get("per_sample", False),
        prompt.get("question"),
        record.get("seeds") or 1,
    )
    if questions.sha256 != record["data"]["sha256"]:
        raise StoreError(
            f"The questions in {source['data']} are no longer those of {run.folder}.",
            "The files have changed since the run.",
            "Restore them, or run again in a new folder.",
        )
    return questions


def without_url_secrets(word: str) -> str:
    """A word of the command line without the user, password and query that a URL may carry."""
    return URL_SECRETS.sub(r"\1", word) if "://" in word else word


def _absolute(source: str) -> str:
    return source if source in ("hub", "scenes") else str(Path(source).resolve())


def usual_folder(
    model: Model,
    suite: Sequence[str],
    data: str,
    limit: int | float | None,
    subsets: Sequence[str] | None,
    thinking: Sequence[int | str | None] = (),
) -> Path:
    """Where the runs of one command go if the user names no folder.

    The same question gets the same folder, so that the same command continues, whatever versions
    of packages it finds.

    Args:
        model: The model.
        suite: The names of benchmarks and suites.
        data: Where the data comes from.
        limit: The limit of samples.
        subsets: The subsets.
        thinking: Bounds of answers and thoughts and the marks of these, where they are set.
    """
    description = asked_of(model.describe())
    name = str(description.get("name", "model"))
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", name).strip("-.") or "model"
    parts = [description, sorted(suite), _absolute(data), limit, subsets]
    if any(thinking):
        parts += thinking
    digest = hashlib.sha256(dump(parts).encode()).hexdigest()
    return Path("runs") / f"{name[:60]}-{digest[:8]}"
