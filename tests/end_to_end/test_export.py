"""Runs for other tools: what is written is read again, by pandas, by `replay:`, by inspect_ai."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from tests.conftest import bench, metrics


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    words = ("run", "--model", "llava-tiny", "--suite", "pope,mmhal,chair", "--data", "scenes")
    assert bench(*words, "--limit", "30", "--out", folder).returncode == 0
    return folder


def values_of(run):
    """The figures that answers alone decide: recorded ones have no P(yes)."""
    values = {}
    for (name, subset), row in metrics(run).items():
        if name in ("accuracy", "precision", "recall", "f1", "chair_s", "chair_i", "score"):
            values[name, subset] = row["value"]
    return values


@pytest.mark.parametrize("task", ["pope", "mmhal", pytest.param("chair", marks=pytest.mark.slow)])
def test_lmms_evals_samples_are_replayed_to_the_same_figures(runs, tmp_path, task):
    done = bench("export", runs / task, "--format", "lmms-eval", "--out", tmp_path / "lmms")
    assert done.returncode == 0, done.stderr
    samples = tmp_path / "lmms" / f"{task}_samples_{task}.jsonl"
    assert str(samples) in done.stdout
    words = ("--suite", task, "--data", "scenes", "--out", tmp_path / "again")
    again = bench("run", "--model", f"replay:{samples}", *words)
    assert again.returncode in (0, 3), again.stderr
    assert values_of(tmp_path / "again" / task) == pytest.approx(
        values_of(runs / task), nan_ok=True
    )
    results = json.loads((tmp_path / "lmms" / f"{task}_results.json").read_text())
    figures = results["results"][task]
    name = {"pope": "accuracy", "mmhal": "score", "chair": "chair_s"}[task]
    (subset,) = {"pope": ["mean"], "mmhal": ["all"], "chair": ["all"]}[task]
    assert figures[f"{name},none"] == metrics(runs / task)[name, subset]["value"]


def test_tables_have_a_row_a_sample(runs, tmp_path):
    for form in ("csv", "parquet"):
        assert bench("export", runs, "--format", form, "--out", tmp_path).returncode == 0
    pope = pd.read_parquet(tmp_path / "pope.parquet")
    assert len(pope) == 30
    accuracy = metrics(runs / "pope")["accuracy", "all"]["value"]
    assert pope["score.correct"].mean() == pytest.approx(accuracy)
    chair = pd.read_csv(tmp_path / "chair.csv")
    false = chair["score.hallucinated"].map(json.loads)
    assert (false.map(len) > 0).mean() == metrics(runs / "chair")["chair_s", "all"]["value"]
    assert chair["question"].str.contains("describe", case=False).all()


def test_two_runs_of_a_benchmark_become_two_files(runs, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(runs / "pope", tmp_path / "runs" / name / "pope")
    done = bench("export", tmp_path / "runs", "--format", "csv", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = {
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.csv")
    }
    assert files == {"a/pope.csv", "b/pope.csv"}


def test_inspect_ai_reads_its_log(runs, tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    assert bench("export", runs / "pope", "--format", "inspect", "--out", tmp_path).returncode == 0
    read = log.read_eval_log(str(tmp_path / "pope.eval"))
    assert read.status == "success" and len(read.samples) == 30
    right = [sample.scores["pope"].value == "C" for sample in read.samples]
    assert sum(right) / 30 == pytest.approx(metrics(runs / "pope")["accuracy", "all"]["value"])
    (score,) = read.results.scores
    assert score.metrics["accuracy"].value == metrics(runs / "pope")["accuracy", "mean"]["value"]


def test_without_inspect_ai_it_says_what_to_install(runs, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    done = bench("export", runs / "pope", "--format", "inspect", "--out", tmp_path)
    assert done.returncode == 2
    assert "pip install inspect_ai" in done.stderr
