"""Names, answers and errors of others are shown on every surface and obeyed on none."""

from __future__ import annotations

import csv
import json
import re
import shutil
import threading
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from bench.cli.outgoing import reopen
from bench.escaping import UNSEEN, csv_text, markdown_text, visible
from bench.integrations.trackers import track
from bench.runs.run import Run
from reports.live import LiveView, server_of
from tests.conftest import bench

HOSTILE = (
    "=cmd|'/c calc'!A1 <img src=x onerror=alert(1)> | **b** [x](javascript:1) \x1b[31mred\x9b2J "
    "\u202egnp\u2028 $\\frac{$ `` \n# heading\r\n-rf"
)

FORMATS = ("csv", "parquet", "lmms-eval", "every-eval-ever")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run of a model with a hostile name and hostile answers, and one of the same without."""
    folder = tmp_path_factory.mktemp("hostile")
    words = ("--suite", "pope", "--data", "scenes", "--limit", 12, "--out", folder / "plain")
    assert bench("run", "--model", "llava-tiny", *words).returncode == 0
    shutil.copytree(folder / "plain", folder / "hostile")
    run = folder / "hostile" / "pope"
    record = json.loads((run / "run.json").read_text())
    record["name"], record["command"] = HOSTILE, ["run", "--model", f"m\n```\n{HOSTILE}"]
    (run / "run.json").write_text(json.dumps(record))
    answers = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    for row in answers:
        row["text"] = HOSTILE
    (run / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    (run / "metrics.json").unlink()
    assert bench("score", folder / "hostile").returncode == 0
    return folder


def only_shown(text: str) -> bool:
    """Whether a text holds nothing that a terminal obeys."""
    return not UNSEEN.search(text)


def test_the_terminal_and_json(runs, tmp_path):
    reference = tmp_path / "ref.json"
    assert bench("check", runs / "plain", "--save", reference).returncode == 0
    junit = tmp_path / "junit.xml"
    for words in (
        ("score", runs / "hostile"),
        ("board", runs),
        ("compare", runs / "plain", runs / "hostile"),
        ("check", runs / "hostile", "--against", reference, "--junit", junit),
        ("run", "--model", HOSTILE, "--suite", HOSTILE),
        ("score", f"no\x1b[31m{HOSTILE}"),
    ):
        done = bench(*words)
        assert only_shown(done.stdout) and only_shown(done.stderr), words
        assert "Traceback" not in done.stderr
    ElementTree.parse(junit)
    shown = bench("board", runs, "--json").stdout
    assert only_shown(shown)
    names = {row["model"] for row in json.loads(shown)["board"]}
    assert any("\x1b[31mred" in name and "\u202e" in name for name in names), "the same to programs"


def test_every_file_of_a_report(runs, tmp_path):
    done = bench("report", runs / "plain", runs / "hostile", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    card = bench("report", runs / "hostile", "--out", tmp_path / "card", "--model-card")
    assert card.returncode == 0, card.stderr
    files = [file for file in tmp_path.rglob("*") if file.suffix in (".md", ".csv", ".tex")]
    assert len(files) > 8
    for file in files:
        text = file.read_text()
        assert "onerror" in text or "tables" in str(file), file
        assert only_shown(text), file
        if file.suffix == ".md":
            body = text.split("\n---\n", 1)[-1].split("\n```")[0]
            assert not re.search(r"<img|\]\(javascript", body), file
            assert not re.search(r"^# heading|^-rf", body, re.MULTILINE), file
            assert text.count("\n```") in (0, 2), file
        if file.suffix == ".csv":
            for row in csv.reader(file.open(newline="")):
                assert not any(re.match(r"[=@]|[+-](?![\d.])", cell) for cell in row), row
    assert (tmp_path / "figures" / "p-yes.svg").is_file()
    page = (tmp_path / "index.html").read_text()
    assert only_shown(page) and "\\\\u202egnp" in page, "no line of the page is reversed"
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert only_shown(json.dumps(data, ensure_ascii=False).replace("\\n", "")), "nor by its script"


@pytest.mark.parametrize(
    "text",
    ["1.5", "-2", "+5.3 to -2.1", "-1e-09", "llava", "[1, 2]", "a < b, p < 0.001", "x_y", "–"],
)
def test_what_is_harmless_stays_as_it_is(text):
    assert csv_text(text) == markdown_text(text) == visible(text) == text


def test_bytes_in_file_names_that_are_no_text(tmp_path):
    """Linux takes any byte; JSON, Parquet, SVG and XML take characters."""
    data, runs = tmp_path / "data", [tmp_path / "a\udcff", tmp_path / "b\udcfe"]
    assert bench("data", "scenes", "--n", "3", "--out", data).returncode == 0
    for out in runs:
        words = ("--suite", "chair", "--data", data, "--out", out)
        assert bench("run", "--model", "llava-tiny", *words).returncode == 0
    reference, junit = tmp_path / "ref\udcff.json", tmp_path / "junit\udcff.xml"
    for words in (
        ("report", *runs, "--out", tmp_path / "report\udcff"),
        ("report", runs[0], "--model-card", "--out", tmp_path / "card\udcff"),
        *(("export", runs[0], "--format", form, "--out", tmp_path / "e\udcff") for form in FORMATS),
        ("compare", *runs, "--json"),
        ("board", *runs, "--json"),
        ("check", runs[0], "--save", reference),
        ("check", runs[1], "--against", reference, "--junit", junit),
    ):
        done = bench(*words)
        assert done.returncode in (0, 3), done.stderr
    ElementTree.parse(junit)
    names = {row["model"] for row in json.loads(bench("board", *runs, "--json").stdout)["board"]}
    assert len({name for name in names if "udcf" in name}) == 2, "they are told apart"


def test_exports_hold_it_as_data(runs, tmp_path):
    for form in FORMATS:
        words = ("export", runs / "hostile", "--format", form, "--out", tmp_path)
        done = bench(*words)
        assert done.returncode == 0 and only_shown(done.stdout + done.stderr), done.stderr
    answers = pd.read_parquet(tmp_path / "pope.parquet")["answer"]
    assert set(answers) == {HOSTILE}, "to programs it is what the model said"
    samples = [json.loads(line) for line in (tmp_path / "pope_samples_pope.jsonl").open()]
    assert {row["filtered_resps"] for row in samples} == {HOSTILE}
    assert json.loads((tmp_path / "pope.json").read_text())
    with (tmp_path / "pope.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any("cmd|" in cell for cell in cells)
    assert not any(re.match(r"[=@]|[+-](?![\d.])", cell) for cell in cells), "nothing computes"
    assert all(map(only_shown, cells))


def test_inspect_ai_reads_it_as_data(runs, tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    done = bench("export", runs / "hostile", "--format", "inspect", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    samples = log.read_eval_log(str(tmp_path / "pope.eval")).samples
    assert {sample.output.completion for sample in samples} == {HOSTILE}


def test_trackers_get_it_as_text(runs, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shutil.copytree(runs / "hostile" / "pope", tmp_path / "pope")
    assert track(Run(tmp_path / "pope"), ["tensorboard"]) == []
    events = accumulator.EventAccumulator(str(tmp_path / "pope" / "tensorboard")).Reload()
    (text,) = [
        event.tensor_proto.string_val[0] for event in events.Tensors("run.json/text_summary")
    ]
    # An indented line is code in Markdown, in which nothing is markup.
    assert text.startswith(b"    ") and b"\n" not in text and b"onerror" in text


def test_the_live_view_shows_the_same_page(runs):
    server, address = server_of(LiveView([runs / "hostile"], reopen), 0)
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(address) as answer:
            page = answer.read().decode()
        server.shutdown()
    assert only_shown(page) and "<img src=x" not in page


@pytest.mark.parametrize("ending", ["xlsx", "csv", "tsv", "jsonl"])
def test_recorded_answers_of_others(tmp_path, ending):
    """A spreadsheet's formulas are texts, and nothing that a cell says is obeyed."""
    data = tmp_path / "data"
    assert bench("data", "scenes", "--n", "3", "--out", data).returncode == 0
    images = sorted(file.name for file in (data / "images").rglob("*.png"))
    text = HOSTILE
    if ending == "xlsx":  # in which what begins like a formula is one, and XML takes no controls
        text = HOSTILE.replace("\x1b", "").replace("\x9b", "").removeprefix("=")
    rows = pd.DataFrame({"image": images, "answer": text, "x=1+1": "@SUM(1)"})
    file = tmp_path / f"answers.{ending}"
    if ending == "xlsx":
        rows.to_excel(file, index=False)
    elif ending == "jsonl":
        rows.to_json(file, orient="records", lines=True)
    else:
        rows.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
    words = ("--suite", "chair", "--data", data, "--out", tmp_path / "run")
    done = bench("run", "--model", f"replay:{file}", *words)
    assert done.returncode == 0, done.stderr
    assert only_shown(done.stdout + done.stderr)
    recorded = Run(tmp_path / "run" / "chair").answers.values()
    assert {" ".join(item.answer.text.split()) for item in recorded} == {" ".join(text.split())}
