"""Comparing runs: only what was run alike, on the samples that both scored; flips, power, Holm."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import t

from bench.errors import StoreError
from bench.metrics.paired import paired, ratio_of_sums
from bench.stats import detectable, holm
from bench.types import Figure, Score
from leaderboards.compare import CompareError, as_text, compare
from tests.conftest import bench
from tests.recorded_runs import RECORD, pope_run


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    first = (rng.random(400) < 0.7).astype(int)
    second = np.where(rng.random(400) < 0.5, 1, first)
    return (
        pope_run(tmp_path / "a", list(first)),
        pope_run(tmp_path / "b", list(second)),
        first,
        second,
    )


def test_difference_flips_and_power(runs):
    one, two, first, second = runs
    [comparison] = compare(one, [two])
    accuracy = next(row for row in comparison.rows if row.paired.figure.title == "POPE accuracy")
    assert accuracy.paired.difference.value == pytest.approx(second.mean() - first.mean())
    assert accuracy.paired.difference.low > 0
    tested = [row for row in comparison.rows if row.paired.figure.better != "neither"]
    smallest = min(row.paired.difference.p for row in tested)
    assert accuracy.p_holm == pytest.approx(len(tested) * smallest), "Holm over the table"
    assert accuracy.p_holm < 0.01
    assert comparison.flips.worse == {}
    assert comparison.flips.better == {
        "random": [f"random/{n}" for n in np.flatnonzero(second > first)]
    }
    assert comparison.flips.p == pytest.approx(2 * 0.5 ** (second > first).sum())
    assert accuracy.needed < 400
    assert "flipped to wrong 0" in as_text([comparison])


def test_a_run_against_itself_has_no_difference(runs):
    [comparison] = compare(runs[0], [runs[0]])
    for row in comparison.rows:
        value, low, high, p, _ = row.paired.difference
        # No sample has changed here; others might.
        assert (value, p) == (0, 1) and -0.04 < low <= 0 <= high < 0.04
    assert comparison.flips.p == 1


def test_only_samples_that_both_scored_count(runs, tmp_path):
    one, _, first, _ = runs
    half = pope_run(tmp_path / "half", [ok if n < 200 else None for n, ok in enumerate(first)])
    [comparison] = compare(one, [half])
    assert (comparison.matched, comparison.only_first, comparison.only_second) == (200, 200, 0)
    assert {row.paired.samples for row in comparison.rows} == {200}


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("benchmark", {"name": "pope", "version": "2"}, "benchmark.version: 1 and 2"),
        ("prompt", {"suffix": ""}, "prompt.suffix"),
        ("data", RECORD["data"] | {"files": {"a.json": "2"}}, "data.files.a.json: 1 and 2"),
        ("judge", {"kind": "openai", "prompt_sha256": "z"}, None),
        (
            "model",
            RECORD["model"] | {"protocol": {"name": "native"}},
            "model.protocol.name: llava and native",
        ),
    ],
)
def test_runs_that_were_not_run_alike_are_refused_naming_what_differs(
    runs, tmp_path, part, value, named
):
    one, _, first, _ = runs
    other = pope_run(tmp_path / "other", list(first), RECORD | {part: value})
    if named is None:  # one run tells no judge
        assert compare(one, [other])[0].differs == []
        return
    with pytest.raises(CompareError, match="not comparable") as raised:
        compare(one, [other])
    assert named in raised.value.reason
    [comparison] = compare(one, [other], force=True)
    assert f"NOT RUN ALIKE: {named}" in as_text([comparison])


def test_two_judges_are_two_rulers(runs, tmp_path):
    _, _, first, _ = runs
    judged = [
        pope_run(
            tmp_path / name, list(first), RECORD | {"judge": {"model": name, "prompt_sha256": "z"}}
        )
        for name in ("gpt-4", "gpt-4o")
    ]
    with pytest.raises(CompareError) as raised:
        compare(judged[0], [judged[1]])
    assert "judge.model: gpt-4 and gpt-4o" in raised.value.reason


def test_what_cannot_be_compared_is_told(runs, tmp_path):
    one, _, first, _ = runs
    with pytest.raises(StoreError, match="holds no run"):
        compare(one, [tmp_path / "nothing"])
    chair = pope_run(
        tmp_path / "chair", list(first), RECORD | {"benchmark": {"name": "chair", "version": "1"}}
    )
    with pytest.raises(CompareError, match="no benchmark in common"):
        compare(one, [chair])
    empty = pope_run(tmp_path / "empty", [])
    with pytest.raises(CompareError, match="no scored sample in common"):
        compare(one, [empty])


def test_the_command_prints_tables_and_json(runs):
    one, two, *_ = runs
    done = bench("compare", one, two)
    assert done.returncode == 0, done.stderr
    assert "POPE accuracy" in done.stdout
    outcome = json.loads(bench("compare", one, two, "--json").stdout)["comparisons"][0]
    assert outcome["matched"] == 400
    assert len(outcome["flips"]["better"]["random"]) > 40


def test_the_paired_difference_leaves_out_whole_images():
    """Against a jackknife that drops rows, image by image."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(30), 5)
    above = rng.random((2, 150))
    below = rng.random((2, 150)) + 0.5
    figure = Figure("r", "r", "higher", ratio_of_sums(lambda v: v["a"], lambda v: v["b"]))
    models = []
    for model in range(2):
        scores = {}
        for row in range(150):
            values = {"a": above[model, row], "b": below[model, row]}
            scores[str(row)] = Score(str(row), "all", str(clusters[row]), values)
        models.append(scores)
    difference = paired(figure, *models).difference
    differences = []
    for image in range(30):
        rest = clusters != image
        first, second = above[:, rest].sum(1) / below[:, rest].sum(1)
        differences.append(second - first)
    error = np.sqrt(29 / 30 * np.square(differences - np.mean(differences)).sum())
    assert difference.error == pytest.approx(error)
    assert difference.high - difference.value == pytest.approx(2.0452296 * error)  # t, 29 degrees
    assert difference.p == pytest.approx(2 * t.sf(abs(difference.value) / error, 29))


def test_holm_steps_down_and_leaves_nan_alone():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, float("nan"), 0.9])[0] == 1.0
    assert np.isnan(holm([0.5, float("nan"), 0.9])[1])


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    error = 0.02
    is_significant = np.abs(rng.normal(detectable(error), error, 20_000)) > 1.96 * error
    assert is_significant.mean() == pytest.approx(0.8, abs=0.01)
