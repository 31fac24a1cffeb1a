"""Names, answers and errors of others are shown on every surface and obeyed on none."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.escaping import UNSEEN, csv_text, markdown_text, visible
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
