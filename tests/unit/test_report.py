"""Reports: the same runs give the same bytes, verdicts and bold say what the intervals say, texts
are escaped."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import pandas as pd
import pytest

from bench import registry
from bench.errors import BenchError
from bench.runs.run import Run, read_runs
from leaderboards.compare import compare_runs
from leaderboards.published import measured_by, read_published
from reports.report import ReportError, write_report
from reports.results import (
    benchmark_tables,
    best_runs,
    difference_table,
    overview_table,
    paper_tables,
)
from reports.tables import Cell, Table, as_csv, document, latex, markdown
from tests.conftest import bench
from tests.recorded_runs import metric_row, pope_run, record_of, sealed, write_run


def model_run(folder, share, name, **model):
    """A POPE run of 400 questions, `share` of them right."""
    right = [number % 100 < 100 * share for number in range(400)]
    record = record_of(name)
    record["model"] |= model
    metrics = [metric_row("precision", "mean", share)]
    for subset in ("random", "popular", "adversarial", "mean"):
        metrics.insert(0, metric_row("accuracy", subset, share))
    return pope_run(folder, right, record, metrics)


@pytest.fixture
def runs(tmp_path):
    return [
        model_run(tmp_path / "a" / "pope", 0.86, "llava"),
        model_run(tmp_path / "b" / "pope", 0.97, "llava", adapter_sha256="f" * 64),
    ]


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    reports = []
    for name in ("one", "two"):
        files, remarks = write_report(runs, tmp_path / name, True, False, lambda run: None)
        assert remarks == []
        reports.append({file.relative_to(tmp_path / name): file.read_bytes() for file in files})
    assert reports[0] == reports[1]
    names = {path.as_posix() for path in reports[0]}
    assert {
        "report.md",
        "report.tex",
        "metrics.csv",
        "tables/pope.csv",
        "tables/paper-table-3.tex",
    } <= names
    assert {"figures/forest.svg", "figures/forest.png", "figures/pope-by-subset.svg"} <= names


def test_a_column_has_one_form_of_interval_and_a_title(tmp_path):
    runs = []
    for name, accuracy in (("middle", (0.5, 0.48, 0.52)), ("near the end", (0.99, 0.95, 0.998))):
        metrics = [metric_row("precision", "mean", 0.7)]
        value, low, high = accuracy
        metrics.insert(0, metric_row("accuracy", "mean", value) | {"low": low, "high": high})
        runs.append(pope_run(tmp_path / name / "pope", [True] * 8, record_of(name), metrics))
    (table,) = benchmark_tables(list(map(Run, runs)), {"pope": {}})
    assert table.caption == "POPE (COCO): 2 models on 8 samples"
    assert table.headings == ["model", "POPE accuracy ↑", "POPE precision ↑"]
    _, accuracies, precisions = zip(*table.rows, strict=True)
    texts = [cell.text for cell in accuracies]
    assert texts == ["50.00 [48.00, 52.00]", "99.00 [95.00, 99.80]"]
    assert [cell.text for cell in precisions] == ["70.00 ±1.00", "70.00 ±1.00"]
    assert as_csv(table).startswith("model,accuracy,accuracy low,accuracy high,accuracy n,")


def test_pope_and_repope_stand_side_by_side_with_ranks(tmp_path):
    runs = []
    f1 = {"one": (0.90, 0.86), "two": (0.88, 0.91), "three": (0.80, 0.79), "pope alone": (0.99,)}
    for name, values in f1.items():
        for benchmark, value in zip(("pope", "repope"), values, strict=False):
            record = record_of(name, benchmark={"name": benchmark, "version": "1"})
            metrics = [metric_row("f1", "mean", value)]
            runs.append(pope_run(tmp_path / name / benchmark, [True] * 40, record, metrics))
    files, _ = write_report(runs, tmp_path / "out", False, False, lambda run: None)
    assert tmp_path / "out" / "tables" / "pope-and-repope.md" in files
    with (tmp_path / "out" / "tables" / "pope-and-repope.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    ranks = {name: (row["rank"], row["rank under RePOPE"]) for name, row in rows.items()}
    assert ranks == {"one": ("1", "2 (↓1)"), "two": ("2", "1 (↑1)"), "three": ("3", "3")}
    assert float(rows["one"]["change"]) == pytest.approx(-4)
    page = (tmp_path / "out" / "index.html").read_text()
    assert '"caption":"POPE and RePOPE"' in page
    assert "↑" not in (tmp_path / "out" / "report.tex").read_text(), "LaTeX has its own arrows"


def test_the_best_is_bold_only_where_it_is_more_than_noise(runs, tmp_path):
    files, _ = write_report(runs, tmp_path / "out", False, False, lambda run: None)
    text = next(file for file in files if file.name == "pope.md").read_text()
    assert "**97.00 ±1.00**" in text
    files, _ = write_report([runs[0], runs[0]], tmp_path / "same", False, False, lambda run: None)
    assert "**" not in next(file for file in files if file.name == "pope.md").read_text()


def test_differences_stand_with_interval_p_and_power(runs, tmp_path):
    write_report(runs, tmp_path / "out", False, False, lambda run: None)
    with (tmp_path / "out" / "tables" / "differences.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["figure"] == "POPE accuracy")
    assert (row["first"], row["then"], row["samples"]) == ("86.0", "97.0", "400")
    assert float(row["difference"]) == pytest.approx(11.0)
    assert float(row["p"]) < 0.05
    low, high = float(row["difference low"]), float(row["difference high"])
    assert (
        low < 11 < high and (high - low) / 2 < float(row["detectable"]) < high - low
    )  # 2.8 against 1.96 errors


def test_verdicts_hold_measured_against_published(runs):
    tables = paper_tables(read_runs(runs)[0])
    first = {row[0].text: [cell.text for cell in row[1:]] for row in tables[0].rows}
    column = list(tables[0].header).index("pope.accuracy") - 1
    assert first["LLaVA-1.5-7B"][column] == "86.1†"
    assert (
        "LLaVA-1.5-7B + POVID pope.accuracy 86.9, 84.77" in tables[0].notes[1]
    )  # two tables of one paper
    assert first["… against LLaVA-1.5-7B"][column : column + 2] == [
        "within",
        "worse",
    ]  # published: 86.1 and 89.1
    assert first["… against LLaVA-1.5-7B + PDS-DPO"][column : column + 2] == [
        "better",
        "within",
    ]  # 87.6 and 97.8
    assert first["… against LLaVA-1.5-7B"][0] == "not measured"
    assert [table.name for table in tables] == ["paper-table-1", "paper-table-2", "paper-table-3"]


def test_the_numbers_behind_the_table_are_in_the_csv(runs, tmp_path):
    write_report(runs, tmp_path / "out", False, False, lambda run: None)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["metric"], row["subset"]) for row in rows} >= {
        ("accuracy", "mean"),
        ("precision", "mean"),
    }
    assert float(rows[0]["value"]) == 0.86
    frame = pd.read_parquet(tmp_path / "out" / "metrics.parquet")
    assert len(frame) == len(rows)
    accuracy = frame.query("metric == 'accuracy' and subset == 'mean'")
    assert list(accuracy["value"]) == [0.86, 0.97]
    assert list(accuracy["low"]) == pytest.approx([0.85, 0.96])


def test_the_overview_has_a_row_a_model_and_the_boards_figures(runs, tmp_path):
    chair = record_of("llava", benchmark={"name": "chair", "version": "1"})
    rows = [metric_row("chair_s", "all", 0.5), metric_row("length", "all", 0.2)]
    write_run(tmp_path / "a" / "chair", chair, [], rows)
    usable, _ = read_runs([tmp_path / "a", tmp_path / "b"])
    table = overview_table(usable, best_runs(usable), ["chair", "pope"])
    assert table.header[:2] == ["model", "CHAIRs"]
    assert table.header[4] == "POPE accuracy"
    assert "CHAIR words" not in table.header, "the board leaves it out"
    assert table.headings[1] == "CHAIRs ↓"
    # The aligned model was not asked for captions.
    assert {row[0].text: row[1].text for row in table.rows} == {
        "llava": "50.00 ±1.00",
        "llava ffffffff": "–",
    }
    numbers = next(iter(csv.DictReader(as_csv(table).splitlines())))
    ends = [float(numbers[f"POPE accuracy{end}"]) for end in ("", " low", " high")]
    assert ends == pytest.approx([86, 85, 87])
    with pytest.raises(BenchError, match="no run of 'mmhal'"):
        overview_table(usable, best_runs(usable), ["mmhal"])


def test_a_damaged_run_is_told_and_the_others_are_reported(runs, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "run.json").write_text("{")
    done = bench("report", *runs, bad, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "bad was left out" in done.stderr
    assert (tmp_path / "out" / "report.md").exists()
    with pytest.raises(ReportError, match="no run to report"):
        write_report([bad], tmp_path / "none", False, False, lambda run: None)


def test_a_run_without_metrics_is_left_out(runs, tmp_path):
    (runs[1] / "metrics.json").unlink()
    _, remarks = write_report(runs, tmp_path / "out", False, False, lambda run: None)
    assert [str(runs[1]) in remark for remark in remarks] == [True]
    assert not (tmp_path / "out" / "tables" / "differences.md").exists()


def test_each_file_of_a_run_is_read_once(runs, tmp_path):
    """Counted by the interpreter's own audit of opened files."""
    opened = []
    active = True

    def audit(event, arguments):
        if active and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(audit)  # it cannot be removed again
    write_report(runs, tmp_path / "out", True, False, lambda run: None)
    active = False
    for run in runs:
        for name in ("run.json", "scores.jsonl", "metrics.json"):
            assert opened.count(str(run / name)) == 1, name


def test_p_values_are_corrected_over_the_whole_table(runs, tmp_path):
    p = []
    for others in (runs[1:], [*runs[1:], model_run(tmp_path / "c" / "pope", 0.87, "other")]):
        write_report(
            [runs[0], *others], tmp_path / str(len(others)), False, False, lambda run: None
        )
        with (tmp_path / str(len(others)) / "tables" / "differences.csv").open() as file:
            p.append(
                next(
                    float(row["p"])
                    for row in csv.DictReader(file)
                    if row["figure"] == "POPE accuracy"
                )
            )
    assert 1.5 * p[0] < p[1] <= 3 * p[0] and p[0] > 0, "twice as many figures"


def test_a_model_card_carries_results_intervals_and_the_command(runs, tmp_path):
    from huggingface_hub import ModelCard

    assert bench("report", runs[1], "--out", tmp_path / "out", "--model-card").returncode == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["accuracy, 95 % interval 96.00 to 98.00"] == 97.0
    assert card.data.base_model == "llava"
    assert "$ bench run --model llava --suite pope --data hub" in card.text
    two = bench("report", *runs, "--out", tmp_path / "two", "--model-card")
    assert two.returncode == 2
    assert "A card is of one model" in two.stderr


def test_a_card_repeats_what_was_run_from_python(runs, tmp_path):
    """Such a run has no words of a command; its adapter and its limit are in the record."""
    file = runs[1] / "run.json"
    record = json.loads(file.read_text())
    source = {**record["source"], "model": None, "adapter": "/checkpoints/mine"}
    record |= {"command": [], "limit": 30, "source": source}
    file.write_text(json.dumps(record))
    sealed(runs[1])
    assert bench("report", runs[1], "--out", tmp_path / "out", "--model-card").returncode == 0
    text = (tmp_path / "out" / "README.md").read_text()
    asked = (
        f"--model {record['model']['name']}+/checkpoints/mine --suite pope --data hub --limit 30"
    )
    assert f"$ bench run {asked}" in text


NASTY = r"50% & <b>x_y</b> ${a}$ #1 ~ \end{table} ± →"


def test_names_of_models_are_escaped_in_every_form():
    table = Table("t", "A | B", ["model", "x"], [[Cell(NASTY), Cell("1.0", 1.0, bold=True)]])
    assert r"\end{table}" in latex(table).replace(r"\textbackslash{}end\{table\}", "")
    assert latex(table).count(r"\end{table}") == 1
    assert r"**1.0**" in markdown(table)
    assert list(csv.reader(as_csv(table).splitlines()))[1] == [NASTY, "1.0"]


def test_numbers_intervals_and_names_in_latex_have_columns_of_their_own():
    table = Table(
        "t",
        "A table",
        ["model", "accuracy", "as", "rating"],
        [
            [
                Cell("a"),
                Cell("90.00 [86.92, 92.42]‡", 0.9),
                Cell("7b-model"),
                Cell("-3.10", bold=True),
            ],
            [Cell("b"), Cell("5.00 ±1.95", 0.05), Cell("13B"), Cell("–")],
        ],
    )
    lines = latex(table).splitlines()
    (columns,) = [line for line in lines if line.startswith(r"\begin{tabular}")]
    assert re.sub(r"\[[^]]*\]", "", columns) == r"\begin{tabular}{lS@{\,}lrS}"
    assert "table-format=2.2" in columns and "table-format=-1.2" in columns
    assert r"{model} & \multicolumn{2}{c}{accuracy} & {as} & {rating} \\" in lines
    assert r"a & 90.00 & \scriptsize [86.92, 92.42]‡ & 7b-model & \bfseries -3.10 \\" in lines
    assert r"b & 5.00 & \scriptsize $\pm$1.95 & 13B & {--} \\" in lines


@pytest.mark.slow
def test_pdflatex_takes_the_tables(runs, tmp_path):
    import shutil

    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here")
    usable, _ = read_runs(runs)
    rows = [
        [Cell(NASTY), Cell("1.0", 1.0, bold=True), Cell("-12.25"), Cell("90.00 ±1.00")],
        [Cell("x"), Cell("–"), Cell("+3.5"), Cell("99.00 [97.10, 99.60]", bold=True)],
    ]
    table = Table(
        "t", "Names", ["model", "x", "y", "z"], rows, (), (), [*["neither"] * 3, "higher"]
    )
    tables = [
        table,
        overview_table(usable, best_runs(usable)),
        *benchmark_tables(usable, best_runs(usable)),
        *paper_tables(usable),
    ]
    names = {run.folder: run.label for run in usable}
    tables.append(difference_table(compare_runs([usable[0]], [[usable[1]]]), names))
    (tmp_path / "t.tex").write_text(document(tables))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 10_000


def test_every_column_of_the_papers_tables_is_measured_by_the_suite(tmp_path):
    """A run of each member, with the metrics that its benchmark or lmms-eval's task records."""
    columns = []
    for figure in read_published():
        if figure.source.startswith("Synth-Align"):
            columns.append(figure.column)
    metrics_of = {}
    for column in dict.fromkeys(columns):
        benchmark, name = measured_by(column)
        assert benchmark in registry.SUITES["paper"], column
        metrics_of.setdefault(benchmark, []).append(name)
    for benchmark, names in metrics_of.items():
        subset_of = {}
        if not benchmark.startswith("lmms:"):
            for figure in registry.benchmark(benchmark).figures:
                subset_of[figure.metric] = figure.subset
            assert set(names) <= subset_of.keys(), benchmark
        rows = [metric_row(name, subset_of.get(name, "all"), 0.5) for name in names]
        record = record_of("m", benchmark={"name": benchmark, "version": "1"})
        write_run(tmp_path / benchmark.replace(":", "-"), record, [], rows)
    tables = paper_tables(read_runs([tmp_path])[0])
    for table in tables:
        measured = [row for row in table.rows if row[0].text == "m, measured"]
        verdicts = [row for row in table.rows if row[0].text.startswith("… against")]
        assert measured and len(measured[0]) == len(table.header)
        assert all(cell.text not in ("", "–") for cell in measured[0])
        assert all("not measured" not in cell.text for cell in verdicts[0])


def test_nothing_is_bold_that_the_differences_call_noise(tmp_path):
    """A figure that is clear alone, but not among those of two benchmarks."""
    right = [1, 0] * 60
    better = [1 if number % 16 == 1 else ok for number, ok in enumerate(right)]
    runs = []
    for name, answers in (("a", right), ("b", better)):
        for benchmark in ("pope", "repope"):
            record = record_of(name, benchmark={"name": benchmark, "version": "1"})
            own = answers if benchmark == "pope" else right
            rows = [metric_row("accuracy", "mean", sum(own) / len(own))]
            runs.append(pope_run(tmp_path / name / benchmark, own, record, rows))
    done = bench("report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "tables" / "differences.csv").open() as file:
        p = [float(row["p"]) for row in csv.DictReader(file) if row["figure"] == "POPE accuracy"]
    bold = "**" in (tmp_path / "out" / "tables" / "pope.md").read_text()
    assert bold == (p[0] < 0.05)


@pytest.mark.parametrize(
    "name", ["figures/mine.png", "tables/mine.tex", "README.md", "images/0.jpg"]
)
def test_a_report_takes_no_folder_with_somebodys_files(runs, tmp_path, name):
    out = tmp_path / "paper"
    mine = out / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("months of work")
    with pytest.raises(ReportError, match="is not empty"):
        write_report(runs, out, False, False, lambda run: None)
    assert [file for file in out.rglob("*") if file.is_file()] == [mine]
    assert mine.read_text() == "months of work"


def test_a_report_in_the_folder_of_another_leaves_none_of_its_tables(runs, tmp_path):
    out = tmp_path / "out"
    assert bench("report", *runs, "--out", out).returncode == 0
    assert (out / "tables" / "differences.csv").is_file()
    done = bench("report", runs[0], "--out", out)
    assert done.returncode == 0 and f"to look: open {out / 'index.html'}" in done.stderr
    assert not (out / "tables" / "differences.csv").exists()
    assert not list((out / "figures").glob("forest.*"))
