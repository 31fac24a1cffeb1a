"""A benchmark's figures: every built-in one is compared, gated and on the board by its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import registry
from bench.benchmarks.pope import COCO
from bench.metrics.paired import paired
from bench.types import Score
from tests.conftest import bench
from tests.recorded_runs import metric_row, pope_run, record_of, score_row, write_run

NAMES = [name for name in registry.BENCHMARKS if name != "lmms"]


def figure_of(benchmark, metric):
    return next(figure for figure in benchmark.figures if figure.metric == metric)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_that_stands_for_a_benchmark_is_a_figure(name):
    """A metric that no table, gate or comparison could show would be lost."""
    benchmark = registry.benchmark(name)
    titles = [figure.title for figure in benchmark.figures]
    assert len(set(titles)) == len(titles)
    assert any(figure.heading for figure in benchmark.figures)
    assert any(figure.margin is not None for figure in benchmark.figures)


def pope_scores(rng, n=120):
    """Random POPE scores with P(yes), three subsets, four questions an image."""
    scores = {}
    for number in range(n):
        label = "yes" if rng.random() < 0.5 else "no"
        p_yes = float(np.clip(rng.normal(0.65 if label == "yes" else 0.4, 0.2), 0, 1))
        answer = "yes" if p_yes > 0.5 else "no"
        values = {"label": label, "answer": answer, "correct": answer == label, "p_yes": p_yes}
        subset = ("random", "popular", "adversarial")[number % 3]
        scores[str(number)] = Score(str(number), subset, str(number // 4), values)
    return scores


def test_popes_figures_are_the_metrics_that_papers_quote():
    """Against scikit-learn-free second readings: counts by hand, AUC by comparing all pairs."""
    scores = pope_scores(np.random.default_rng(0))
    both = {
        metric: paired(figure_of(COCO, metric), scores, scores).first.value
        for metric in ("precision", "f1", "yes_ratio", "auc")
    }
    precisions, f1s, ratios = [], [], []
    for subset in ("random", "popular", "adversarial"):
        group = [score.values for score in scores.values() if score.subset == subset]
        said_yes = [v for v in group if v["answer"] == "yes"]
        hits = sum(v["label"] == "yes" for v in said_yes)
        positives = sum(v["label"] == "yes" for v in group)
        precisions.append(hits / len(said_yes))
        f1s.append(2 * hits / (len(said_yes) + positives))
        ratios.append(len(said_yes) / len(group))
    assert both["precision"] == pytest.approx(np.mean(precisions))
    assert both["f1"] == pytest.approx(np.mean(f1s))
    assert both["yes_ratio"] == pytest.approx(np.mean(ratios))
    yes = [s.values["p_yes"] for s in scores.values() if s.values["label"] == "yes"]
    no = [s.values["p_yes"] for s in scores.values() if s.values["label"] == "no"]
    wins = [(a > b) + 0.5 * (a == b) for a in yes for b in no]
    assert both["auc"] == pytest.approx(np.mean(wins))


def test_a_shift_of_the_threshold_moves_accuracy_and_not_auc():
    first = pope_scores(np.random.default_rng(1))
    second = {}
    for name, score in first.items():
        answer = "yes" if score.values["p_yes"] > 0.8 else "no"
        correct = answer == score.values["label"]
        values = {**score.values, "answer": answer, "correct": correct}
        second[name] = Score(score.sample, score.subset, score.cluster, values)
    assert paired(figure_of(COCO, "auc"), first, second).difference.value == 0
    assert paired(figure_of(COCO, "accuracy"), first, second).difference.high < 0


def test_ties_count_on_both_sides_whatever_the_rounding():
    scores = pope_scores(np.random.default_rng(2))
    again = dict(reversed(scores.items()))
    item = paired(figure_of(COCO, "f1"), scores, again)
    assert item.difference.p == 1


def test_a_sample_alone_has_its_own_value():
    scores = list(pope_scores(np.random.default_rng(3)).values())
    values = figure_of(COCO, "accuracy").statistic.alone(scores)
    assert values.tolist() == [float(score.values["correct"]) for score in scores]


def description_row(number, hallucinated, covered):
    return score_row(
        str(number),
        f"{number}.png",
        "generative:relation-only",
        named=["dog"] * 4,
        hallucinated=["cat"] * hallucinated,
        any_hallucination=hallucinated > 0,
        correct=hallucinated == 0,
        covered=covered,
        objects=4,
        imagined=0,
        likely=2,
    )


@pytest.fixture
def descriptions(tmp_path):
    """Two AMBER runs of descriptions: all without, and all with a hallucination."""
    record = record_of(benchmark={"name": "amber-generative", "version": "1-relation-only"})
    subset = "generative:relation-only"
    folders = []
    for name, hallucinated in (("good", 0), ("bad", 1)):
        rows = [description_row(number, hallucinated, 2) for number in range(40)]
        metrics = [metric_row("hal", subset, float(hallucinated), 0.0)]
        folders.append(write_run(tmp_path / name, record, rows, metrics))
    return folders


def test_descriptions_are_compared_by_ambers_figures_and_not_by_an_accuracy(descriptions):
    comparison = json.loads(bench("compare", *descriptions, "--json").stdout)["comparisons"][0]
    rows = {row["figure"]: row for row in comparison["rows"]}
    assert set(rows) == {"AMBER hallucination", "AMBER Cover", "AMBER CHAIR", "AMBER Cog"}
    assert rows["AMBER hallucination"]["difference"][0] == 1
    assert rows["AMBER CHAIR"]["second"][0] == 0.25
    assert rows["AMBER Cover"]["first"][0] == 0.5
    board = bench("board", descriptions[0], "--columns", "amber-generative").stdout
    assert "Hal" in board.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "label"),
    [("pope-2910", "POPE-2910"), ("pope-aokvqa", "POPE-A-OKVQA"), ("pope-gqa", "POPE-GQA")],
)
def test_popes_other_forms_have_columns_and_figures_of_their_own(tmp_path, name, label):
    record = record_of("m", benchmark={"name": name, "version": "1"})
    metrics = [metric_row("accuracy", "mean", 0.9)]
    run = pope_run(tmp_path / "a", [n % 10 != 0 for n in range(2000)], record, metrics)
    worse = pope_run(tmp_path / "b", [n % 5 != 0 for n in range(2000)], record, metrics)
    board = bench("board", run, "--columns", name).stdout.splitlines()
    assert f"{label} acc" in board[0]
    assert any(line.startswith("m ") and "90.00" in line for line in board)
    done = bench("check", worse, "--against", run)
    assert done.returncode == 1
    printed = done.stdout.partition("FAIL  ")[2].partition(":")[0]
    assert printed == f"{label} accuracy"
    margins = tmp_path / "margins.yaml"
    margins.write_text(f"margins: {{{printed}: 0.2}}")
    assert bench("check", worse, "--against", run, "--margins", margins).returncode == 0


def test_a_benchmark_that_is_not_installed_is_compared_by_its_recorded_means(tmp_path):
    record = record_of(benchmark={"name": "somebodys", "version": "1"})
    folders = []
    for name, share in (("a", 0.5), ("b", 0.75)):
        rows = [score_row(str(n), str(n), "all", right=n % 4 < 4 * share) for n in range(40)]
        metrics = [metric_row("right", "all", share), metric_row("other", "all", 0.1)]
        folders.append(write_run(tmp_path / name, record, rows, metrics))
    comparison = json.loads(bench("compare", *folders, "--json").stdout)["comparisons"][0]
    assert [row["figure"] for row in comparison["rows"]] == ["somebodys right"]
    assert comparison["rows"][0]["difference"][0] == pytest.approx(0.25)
