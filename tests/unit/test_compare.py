"""Comparing runs: only what was run alike, on the samples that both scored; flips, power, Holm."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.errors import StoreError
from bench.stats import cluster_weights, detectable, holm, mcnemar, paired_difference, ratio
from bench.store import append_lines, write_json
from leaderboards.compare import CompareError, as_text, compare
from tests.conftest import bench

RECORD = {
    "format": 1,
    "benchmark": {"name": "pope", "version": "1"},
    "data": {"samples": 400, "sha256": "x", "files": {"a.json": "1"}},
    "prompt": {"suffix": "Answer."},
    "judge": None,
    "model": {"name": "m", "protocol": {"name": "llava"}},
}


def run_folder(folder, right, record=RECORD):
    """A finished POPE run with four questions an image; `right` says which are answered rightly."""
    folder.mkdir(parents=True)
    write_json(folder / "run.json", record)
    rows = [
        {
            "sample": f"random/{n}",
            "subset": "random",
            "cluster": f"{n // 4}.png",
            "values": {
                "answer": "yes" if ok == n % 2 else "no",
                "label": "yes" if n % 2 else "no",
                "correct": bool(ok),
            },
            "unscored": None,
        }
        for n, ok in enumerate(right)
        if ok is not None
    ]
    append_lines(folder / "scores.jsonl", rows)
    return folder


@pytest.fixture
def runs(tmp_path):
    chance = np.random.default_rng(0)
    first = (chance.random(400) < 0.7).astype(int)
    second = np.where(chance.random(400) < 0.5, 1, first)
    return run_folder(tmp_path / "a", list(first)), run_folder(tmp_path / "b", list(second)), first, second


def test_difference_flips_and_power(runs):
    one, two, first, second = runs
    [found] = compare(one, [two])
    accuracy = next(row for row in found.rows if row.paired.figure.name == "POPE accuracy")
    assert accuracy.paired.difference.value == pytest.approx(second.mean() - first.mean())
    assert accuracy.paired.difference.low > 0
    assert accuracy.p_holm == accuracy.paired.difference.p < 0.01, "the only figure that has a better side"
    assert found.flips.worse == {}
    assert found.flips.better == {"random": [f"random/{n}" for n in np.flatnonzero(second > first)]}
    assert found.flips.p == pytest.approx(2 * 0.5 ** (second > first).sum())
    assert accuracy.needed < 400
    assert "flipped to wrong 0" in as_text([found])


def test_a_run_against_itself_has_no_difference(runs):
    [found] = compare(runs[0], [runs[0]])
    assert all(row.paired.difference[:4] == (0, 0, 0, 1) for row in found.rows)
    assert found.flips.p == 1


def test_only_samples_that_both_scored_count(runs, tmp_path):
    one, _, first, _ = runs
    half = run_folder(tmp_path / "half", [ok if n < 200 else None for n, ok in enumerate(first)])
    [found] = compare(one, [half])
    assert (found.matched, found.only_first, found.only_second) == (200, 200, 0)
    assert {row.paired.samples for row in found.rows} == {200}


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("benchmark", {"name": "pope", "version": "2"}, "benchmark.version: 1 and 2"),
        ("prompt", {"suffix": ""}, "prompt.suffix"),
        ("data", {"files": {"a.json": "2"}}, "data.files.a.json: 1 and 2"),
        ("judge", {"kind": "openai", "prompt_sha256": "z"}, None),
        ("model", {"protocol": {"name": "native"}}, "model.protocol.name: llava and native"),
    ],
)
def test_runs_that_were_not_run_alike_are_refused_naming_what_differs(runs, tmp_path, part, value, named):
    one, _, first, _ = runs
    other = run_folder(tmp_path / "other", list(first), RECORD | {part: value})
    if named is None:  # one run tells no judge
        assert compare(one, [other])[0].differs == []
        return
    with pytest.raises(CompareError, match="not comparable") as told:
        compare(one, [other])
    assert named in told.value.reason
    [found] = compare(one, [other], force=True)
    assert f"NOT RUN ALIKE: {named}" in as_text([found])


def test_two_judges_are_two_rulers(runs, tmp_path):
    _, _, first, _ = runs
    judged = [
        run_folder(tmp_path / name, list(first), RECORD | {"judge": {"model": name, "prompt_sha256": "z"}})
        for name in ("gpt-4", "gpt-4o")
    ]
    with pytest.raises(CompareError) as told:
        compare(judged[0], [judged[1]])
    assert "judge.model: gpt-4 and gpt-4o" in told.value.reason


def test_what_cannot_be_compared_is_told(runs, tmp_path):
    one, _, first, _ = runs
    with pytest.raises(StoreError, match="holds no run"):
        compare(one, [tmp_path / "nothing"])
    chair = run_folder(tmp_path / "chair", list(first), RECORD | {"benchmark": {"name": "chair", "version": "1"}})
    with pytest.raises(CompareError, match="no benchmark in common"):
        compare(one, [chair])
    empty = run_folder(tmp_path / "empty", [])
    with pytest.raises(CompareError, match="no scored sample in common"):
        compare(one, [empty])


def test_the_command_prints_tables_and_json(runs):
    one, two, *_ = runs
    done = bench("compare", one, two)
    assert done.returncode == 0, done.stderr
    assert "POPE accuracy" in done.stdout
    told = json.loads(bench("compare", one, two, "--json").stdout)["comparisons"][0]
    assert told["matched"] == 400
    assert len(told["flips"]["better"]["random"]) > 40


def test_the_paired_bootstrap_is_that_of_whole_clusters():
    chance = np.random.default_rng(1)
    clusters = np.repeat(np.arange(30), 5)
    first, second = (np.stack([chance.random(150), chance.random(150) + 0.5], 1) for _ in range(2))
    found = paired_difference(first, second, clusters, lambda sums: ratio(sums[:, 0], sums[:, 1]), seed=3)
    drawn = []
    for weights in cluster_weights(30, seed=3):
        rows = np.repeat(np.arange(150), weights[clusters].astype(int))
        quotients = [part[rows, 0].sum() / part[rows, 1].sum() for part in (first, second)]
        drawn.append(quotients[1] - quotients[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert found.error == pytest.approx(np.std(drawn, ddof=1))
    assert found.p == pytest.approx(2 * min((np.array(drawn) <= 0).mean(), (np.array(drawn) >= 0).mean()))


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(5, 1) == mcnemar(1, 5)


def test_holm_steps_down_and_leaves_nan_alone():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, float("nan"), 0.9])[0] == 1.0
    assert np.isnan(holm([0.5, float("nan"), 0.9])[1])


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    chance = np.random.default_rng(2)
    error = 0.02
    found = np.abs(chance.normal(detectable(error), error, 20_000)) > 1.96 * error
    assert found.mean() == pytest.approx(0.8, abs=0.01)
