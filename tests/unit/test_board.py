"""The board: published figures with their sources, disagreements flagged, implied figures derived,
runs beside."""

from __future__ import annotations

import json

import pytest

from bench.files import write_json
from leaderboards.board import as_text, board
from leaderboards.published import Published, PublishedError, derived, disputed, read_published
from tests.conftest import bench
from tests.recorded_runs import RECORD, metric_row, write_run


def papers(shared, name):
    return json.loads((shared / "papers" / name).read_text())


@pytest.mark.parametrize(
    ("table", "ours"),
    [
        ("v2_table1_hallucination (table-1-hallucination.png)", "table 1: hallucination"),
        ("v2_table2_general (table-2-general-benchmark.png)", "table 2: general benchmarks"),
        ("v2_table3_objhal_pope_scaling (table-3-ablation.png)", "table 3: Object HalBench"),
    ],
)
def test_the_papers_tables_are_there_to_the_last_figure(shared, table, ours):
    rows = papers(shared, "synthalign_tables.json")[table]["rows"]
    published = [
        sorted(v for v in row[1:] if isinstance(v, int | float) and not isinstance(v, bool))
        for row in rows
    ]
    values_by_model: dict[str, list[float]] = {}
    for figure in read_published():
        if "v2;" in figure.source and ours in figure.source:
            values_by_model.setdefault(figure.model, []).append(figure.value)
    assert [sorted(values) for values in values_by_model.values()] == [
        values for values in published if values
    ]


def test_baselines_are_there_and_have_a_source(shared):
    figures = read_published()
    assert all(figure.source for figure in figures)
    values = {(f.model, f.column): f.value for f in figures if "HA-DPO README" in f.source}
    ha_dpo = next(
        v for k, v in papers(shared, "baseline_tables.json").items() if k.startswith("HA-DPO")
    )
    for model in ("LLaVA-1.5-7B", "MiniGPT-4-7B"):
        for subset in ("random", "popular", "adversarial"):
            row = [
                values[model, f"pope.{m}.{subset}"]
                for m in ("accuracy", "precision", "recall", "f1", "yes_ratio")
            ]
            assert row == ha_dpo[model][subset]


def test_sources_that_disagree_are_flagged_and_both_are_kept():
    apart = disputed(read_published())
    povid = {figure.value for figure in apart["LLaVA-1.5-7B + POVID", "pope.accuracy"]}
    assert povid == {86.9, 84.77}
    assert {86.1, 85.9} <= {figure.value for figure in apart["LLaVA-1.5-7B", "pope.accuracy"]}
    text = as_text(*board([]))
    assert "† LLaVA-1.5-7B + POVID, POPE acc: 86.9 in Synth-Align" in text


def test_what_llava_calls_85_9_is_a_mean_f1():
    figures = [f for f in read_published() if "MODEL_ZOO" in f.source and f.model == "LLaVA-1.5-7B"]
    assert next(f for f in figures if f.value == 85.9).column == "pope.f1"


def test_derived_figures_are_those_that_others_publish():
    """HA-DPO gives all five figures of each subset: what accuracy and precision imply must be the
    other three."""
    whole = [f for f in read_published() if "HA-DPO README" in f.source and "LLaVA" in f.model]
    known = {(f.model, f.column): f.value for f in whole}
    two = [f for f in whole if f.column.split(".")[1] in ("accuracy", "precision")]
    derived_figures = derived(two)
    assert len(derived_figures) == 2 * 3 * 3
    for figure in derived_figures:
        assert figure.derived
        assert figure.value == pytest.approx(known[figure.model, figure.column], abs=0.15), figure


def test_what_cannot_be_derived_is_not():
    def of(accuracy, precision):
        return derived(
            [
                Published("m", "pope.accuracy", accuracy, "s"),
                Published("m", "pope.precision", precision, "s"),
            ]
        )

    assert of(90, 50) == of(99, 60) == of(40, 90) == []
    assert (
        derived(
            [
                Published("m", "pope.accuracy", 90, "s"),
                Published("m", "pope.precision", 90, "another"),
            ]
        )
        == []
    )


@pytest.fixture
def run(tmp_path):
    metrics = [metric_row("accuracy", "mean", 0.861)]
    return write_run(tmp_path / "runs" / "pope", RECORD, [], metrics)


def test_runs_stand_beside_with_intervals(run):
    table, remarks = board([run.parent])
    lines = table.lines
    assert lines[-1].measured
    assert lines[-1].cells["pope.accuracy"].value == pytest.approx(86.1)
    above, measured = as_text(table, remarks).split("\n\n")[0].splitlines()[-2:]
    assert set(above) == {"─"} and "86.10 ±1.0" in measured, "what was measured is told apart"
    rows = json.loads(bench("board", run, "--json").stdout)["board"]
    assert rows[-1]["cells"]["pope.accuracy"]["low"] == pytest.approx(85.1)


@pytest.mark.parametrize("damage", ["half", "old", "nan", "torn"])
def test_a_damaged_run_is_named_and_the_others_are_shown(run, tmp_path, damage):
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("run.json", "metrics.json"):
        (bad / name).write_text((run / name).read_text())
    if damage == "half":
        (bad / "metrics.json").unlink()
    elif damage == "old":
        write_json(bad / "run.json", RECORD | {"format": 0})
    elif damage == "torn":
        (bad / "run.json").write_text('{"format": 1, "benchm')
    else:
        (bad / "metrics.json").write_text(
            (run / "metrics.json").read_text().replace("0.861", "null")
        )
    table, remarks = board([bad, run])
    lines = table.lines
    assert lines[-1].cells["pope.accuracy"].value == pytest.approx(86.1) or damage == "nan"
    if damage != "nan":
        assert str(bad) in remarks[0]
    assert "86.10" in as_text(table, remarks)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "source: x",
        "source: x\ntables: [{name: t, columns: [a], rows: {m: [1, 2]}}]",
        "a: [",
    ],
)
def test_a_broken_table_is_named(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(PublishedError, match=r"t\.yaml"):
        read_published(tmp_path)
