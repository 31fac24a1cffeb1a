"""Several benchmarks of one model: all are prepared and checked before the first is asked.

A mistake in the last one would else be told after hours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import registry
from bench.errors import BenchError, DataError
from bench.runs import runner
from bench.runs.jobs import (
    Job,
    Prepared,
    begin_batches,
    check_server,
    execute,
    folder_of,
    is_batched,
    lacks_images,
    prepare,
)
from bench.runs.runner import Outcome
from bench.terminal import note
from bench.types import Benchmark, Judge, Model

Limit = int | float | None  # of samples; below 1 a share of them


@dataclass(frozen=True)
class ChosenBenchmarks:
    """The benchmarks that names stand for.

    Args:
        benchmarks: Each with its limit of samples, by name.
        named: Those that were named themselves, and not as members of a suite.
        missing: Why members of suites cannot be had, by name.
    """

    benchmarks: Mapping[str, tuple[Benchmark, Limit]]
    named: Collection[str]
    missing: Mapping[str, DataError]


@dataclass(frozen=True)
class Suite:
    """What one model is asked.

    Args:
        jobs: The benchmarks that can be asked.
        missing: Why others cannot, by benchmark: members of suites, which nobody named.
        answering: Models and judges that have given a sign of life, by `id`.
    """

    jobs: Sequence[Prepared]
    missing: Mapping[str, DataError]
    answering: Collection[int]


def choose(names: Sequence[str], limit: Limit) -> ChosenBenchmarks:
    """The benchmarks that the names stand for, each with its limit of samples.

    Nothing is fetched: a name that is wrong costs nothing.

    Args:
        names: Names of benchmarks and of several of them (`registry.SUITES`), which have limits of
            their own.
        limit: The limit that was asked for, None for the usual one.

    Raises:
        BenchError: There is no name, or no such benchmark.
    """
    if not names:
        raise BenchError(
            "The suite names no benchmark.", "It is empty.", "`bench list suites` shows all."
        )
    limits: dict[str, Limit] = {}
    # A benchmark that is named itself counts first.
    for name in names:
        if name not in registry.SUITES:
            limits[name] = limit
    for name in names:
        for member, usual_limit in registry.SUITES.get(name, {}).items():
            limits.setdefault(member, usual_limit if limit is None else limit)
    benchmarks: dict[str, tuple[Benchmark, Limit]] = {}
    missing: dict[str, DataError] = {}
    for name, its_limit in limits.items():
        try:
            benchmarks[name] = (registry.benchmark(name), its_limit)
        except DataError as error:  # a task of lmms-eval without it
            if name in names:
                raise
            missing[name] = error
    return ChosenBenchmarks(benchmarks, frozenset(names), missing)


def prepare_suite(
    choice: ChosenBenchmarks, job_of: Callable[..., Job], command: Sequence[str] = ()
) -> Suite:
    """Reads all that benchmarks need but images and weights.

    Of a suite, what can be measured is; what cannot is left out and told.

    Args:
        choice: The benchmarks.
        job_of: Makes a job of `benchmark` and `limit`: a `Job` with all its other fields.
        command: The words of the command line, for the records.

    Raises:
        BenchError: Something is wrong with a benchmark that was named, with a server that is to be
            asked, or with all members of the suites.
    """
    missing = dict(choice.missing)
    jobs = {}
    for name, (benchmark, limit) in choice.benchmarks.items():
        jobs[name] = job_of(benchmark=benchmark, limit=limit)
    # Data may have to be fetched, and that there is no key is known before.
    not_begun = [job for job in jobs.values() if not folder_of(job).record_file.exists()]
    answering = _check_servers(not_begun)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    prepared = []
    for name, job in jobs.items():
        is_named = name in choice.named
        try:
            item = prepare(job, command, now)
            if not is_named and lacks_images(item):
                raise runner.no_images(job.benchmark, item.questions)
            prepared.append(item)
        except DataError as error:
            if is_named:
                raise
            missing[name] = error
    for name, reason in missing.items():
        note(f"{name} is left out. {reason.fact} {reason.remedy}")
    if not prepared:
        raise next(iter(missing.values()))
    return Suite(prepared, missing, answering)


def execute_suite(suite: Suite) -> Iterator[tuple[Prepared, Outcome]]:
    """Runs what was prepared, or continues it, one benchmark after the other.

    Whatever can fail is tried before the first answer is paid for: folders are made, images looked
    for, servers asked for a sign of life. A run that has all its answers needs neither images nor
    servers.

    Raises:
        BenchError: A trial or a run failed. What was answered is kept.
    """
    _check_jobs(suite.jobs, suite.answering)
    # The batches of all are sent first, so that none waits for another's to end.
    for item in suite.jobs:
        if is_batched(item.job.model):
            begin_batches(item)
    for item in suite.jobs:
        yield item, execute(item)


def run_suite(
    names: Sequence[str],
    model: Model,
    judge: Judge | None,
    data: str,
    limit: Limit,
    out: Path,
    subsets: Sequence[str] | None = None,
    images: Path | None = None,
) -> dict[str, Outcome]:
    """One model on benchmarks by name, each in its folder under `out`.

    A run that was begun before is continued.
    """
    parts = None if subsets is None else tuple(subsets)
    job_of = partial(
        Job, model=model, judge=judge, data=data, images=images, out=out, subsets=parts
    )
    suite = prepare_suite(choose(names, limit), job_of)
    return {item.job.benchmark.name: outcome for item, outcome in execute_suite(suite)}


def _check_jobs(jobs: Sequence[Prepared], answering: Collection[int]) -> None:
    """Raises what `execute` would raise later; servers that are `answering` are not asked again."""
    to_ask: list[Model | Judge] = []
    for prepared in jobs:
        job, questions, store = prepared.job, prepared.questions, prepared.store
        with store.locked():
            store.check_space(len(questions.requests))
            if store.record_file.exists():
                store.check_same(prepared.record)
        if lacks_images(prepared):
            raise runner.no_images(job.benchmark, questions)
        answered = store.answers().keys()
        if any(request.key not in answered for request in questions.requests):
            to_ask.append(job.model)
        if job.benchmark.judged and job.judge is not None:
            judged = store.verdicts(runner.judge_digest(job.judge.describe()))
            if any(sample.id not in judged for sample in questions.samples):
                to_ask.append(job.judge)
    _check_each([server for server in to_ask if id(server) not in answering])


def _check_servers(jobs: Sequence[Job]) -> Collection[int]:
    """Raises if a model or judge of runs that have not begun cannot be asked; else their ids."""
    to_ask: list[Model | Judge] = []
    for job in jobs:
        to_ask.append(job.model)
        if job.benchmark.judged and job.judge is not None:
            to_ask.append(job.judge)
    return _check_each(to_ask)


def _check_each(servers: Sequence[Model | Judge]) -> Collection[int]:
    """Tries each server once and returns their ids."""
    by_id = {id(server): server for server in servers}
    for server in by_id.values():
        check_server(server)
    return by_id.keys()
