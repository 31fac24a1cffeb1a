"""The bench from Python: what `bench run` and `bench compare` do, as functions.

>>> from bench import Run, compare, run
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.runs.jobs import Job, judge_for, load_model, usual_folder
from bench.runs.run import Run
from bench.runs.sources import check_source
from bench.runs.suites import choose, execute_suite, prepare_suite
from leaderboards.compare import Comparison
from leaderboards.compare import compare as compare_folders

__all__ = ["Run", "compare", "run"]


def run(
    model: str,
    suite: str | Sequence[str],
    *,
    data: str = "hub",
    images: str | Path | None = None,
    judge: str | None = None,
    limit: int | float | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    max_tokens: int | None = None,
    **options: Any,
) -> list[Run]:
    """Asks a model, scores its answers, and returns the finished runs.

    A run that was begun with the same settings is continued.

    Args:
        model: As `--model`: a hub id, a folder, `BASE+ADAPTER`, `openai:MODEL@URL` and so on.
        suite: Benchmarks or suites, as a list or with commas between them.
        data: `hub`, `scenes`, or a folder of official files.
        images: Images that are not under DATA/images.
        judge: As `--judge`; on scenes their facts judge if none is named.
        limit: Only so many samples of each benchmark (or a share, 0.1), evenly from all subsets.
        out: The folder of the runs; by default the command's own.
        name: What tables call the model.
        max_tokens: The longest answer, in place of the benchmarks' own.
        options: The model's further options as the command names them, with underscores:
            `protocol`, `decoding`, `dtype`, `device`, `workers`, `trust_remote_code` …

    Of a suite's benchmarks, those whose data or images are missing are left out and told.

    Raises:
        BenchError: Something is wrong with the request, or a run failed. What was answered is kept.

    Example:
        >>> runs = run("llava-tiny", "pope", data="scenes", limit=60)  # doctest: +SKIP
        >>> runs[0].whole()["accuracy"].value  # doctest: +SKIP
        0.9166666666666666
    """
    names = suite.split(",") if isinstance(suite, str) else list(suite)
    choice = choose(names, limit)
    check_source(data)
    its_judge = judge_for(judge, data)
    adapter = load_model(model, options)
    folder = Path(out) if out else usual_folder(adapter, names, data, limit, None, (max_tokens, 0))

    job_of = partial(
        Job,
        model=adapter,
        judge=its_judge,
        data=data,
        images=Path(images) if images else None,
        out=folder,
        name=name,
        max_tokens=max_tokens,
    )
    prepared = prepare_suite(choice, job_of)
    with warnings.catch_warnings():
        # Libraries address these to the developers who call them, not to our users.
        warnings.simplefilter("ignore", FutureWarning)
        return [Run(outcome.folder) for _, outcome in execute_suite(prepared)]


def compare(
    first: str | Path | Run, *others: str | Path | Run, force: bool = False
) -> list[Comparison]:
    """All benchmarks of the other runs against the first one's, sample by sample.

    Args:
        first: A run, its folder, or a folder of runs.
        others: The same.
        force: Compare what was not run alike; the comparison names what differs.

    Raises:
        StoreError: `first` has two runs of one benchmark.
        CompareError: Runs are not comparable, or share no sample.

    Example:
        >>> for row in compare("runs/base", "runs/aligned")[0].rows:  # doctest: +SKIP
        ...     print(row.paired.figure.title, row.paired.difference.value, row.p_holm)
    """
    return compare_folders(_folder(first), list(map(_folder, others)), force)


def _folder(run: str | Path | Run) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)
