"""Plots: drawn from what was measured, right is better, and broken curves leave no plot."""

from __future__ import annotations

import pytest

from bench.runs.run import Run
from leaderboards.compare import compare
from reports import plots
from tests.recorded_runs import metric_row, pope_run, record_of, score_row, write_run


def pope(folder, name, share, adapter=None):
    """A POPE run of 400 questions, `share` of them right."""
    record = record_of(name)
    if adapter is not None:
        record["source"]["adapter"] = str(adapter)
    right = [number % 100 < 100 * share for number in range(400)]
    return pope_run(folder / name / "pope", right, record, [metric_row("accuracy", "mean", share)])


def test_in_the_forest_what_is_better_stands_on_the_right(tmp_path):
    base, aligned = pope(tmp_path, "base", 0.8), pope(tmp_path, "aligned", 0.9)
    comparisons = compare(base, [aligned])
    names = {base: "base", aligned: "aligned"}
    (axes,) = plots.forest(comparisons, names).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    row = labels.index("POPE accuracy")
    point = next(line for line in axes.lines if list(line.get_ydata()) == [row])
    assert point.get_xdata()[0] == pytest.approx(10)
    assert point.get_marker() == "o"
    assert any("80.00 → 90.00   +10.00 [" in text.get_text() for text in axes.texts)
    # Turned round, the same difference is worse: a square on the left.
    (axes,) = plots.forest(compare(aligned, [base]), names).axes
    point = next(line for line in axes.lines if list(line.get_ydata()) == [row])
    assert point.get_xdata()[0] == pytest.approx(-10)
    assert point.get_marker() == "s"


def mmhal(folder, name, rating):
    """Forty answers of one rating each, 0 to 6, a little different between images."""
    record = record_of(name, benchmark={"name": "mmhal", "version": "1"})
    scores = []
    for number in range(40):
        rated = rating + number % 2
        values = {
            "rating": rated,
            "hallucination": rated < 3,
            "correct": rated >= 3,
            "informativeness": 2,
        }
        scores.append(score_row(f"q{number}", f"{number}.png", "attribute", **values))
    return write_run(folder / name, record, scores)


def test_each_unit_has_a_panel_of_its_own(tmp_path):
    runs = mmhal(tmp_path, "base", 2), mmhal(tmp_path, "aligned", 4)
    names = dict(zip(runs, ("base", "aligned"), strict=True))
    panels = plots.forest(compare(runs[0], [runs[1]]), names).axes
    units = {
        axes.get_xlabel(): [text.get_text() for text in axes.get_yticklabels()] for axes in panels
    }
    assert "MMHal score" in units["points of the rating"]
    assert units["percentage points"] == ["MMHal hallucination rate"]


CURVES = "step,loss,rewards/chosen,rewards/rejected,rewards/margins,rewards/accuracies,grad_norm\n"


@pytest.mark.parametrize(
    ("text", "is_drawn"),
    [
        (CURVES + "1,0.7,0,0,0,0.5,1\n2,0.5,0,0,0.2,1.0,1\n", True),
        (CURVES + "1,seven,0,0,0,0.5,1\n", True),
        ("", False),
        ("loss\n0.5\n", False),
        ('step,loss\n1,"0.5\n', False),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), False),
    ],
)
def test_training_curves_that_cannot_be_read_are_left_out(tmp_path, text, is_drawn):
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "curves.csv").write_text(text)
    folder = pope(tmp_path, "aligned", 0.9, tmp_path / "dpo" / "adapter")
    assert (plots.training([Run(folder)]) is not None) == is_drawn


def test_a_rate_of_hallucination_is_plotted_over_recall(tmp_path):
    runs = []
    for name, rate, recall in (("one", 0.5, 0.9), ("other", 0.2, 0.7)):
        record = record_of(name, benchmark={"name": "chair", "version": "1"})
        metrics = [metric_row("chair_s", "all", rate), metric_row("recall", "all", recall)]
        runs.append(write_run(tmp_path / name, record, [], metrics))
    (named,) = plots.beside_what_is_said(list(map(Run, runs)))
    assert named.name == "chair-chair_s-and-recall"
    (axes,) = named.plot.axes
    points = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() in "os"
    ]
    assert points == [pytest.approx((90, 50)), pytest.approx((70, 20))]
    assert "CHAIR recall" in axes.get_xlabel()
