"""A number never loses its caveats: from the run into every table, page, file and verdict."""

from __future__ import annotations

import csv
import json
import shutil
from xml.etree import ElementTree

import pytest

from bench import registry
from bench.files import read_lines, replace_lines
from bench.runs.caveats import is_loop, run_caveats
from bench.runs.jobs import recorded_questions
from bench.runs.run import Run
from tests.conftest import bench, metrics
from tests.loopback_chat import chat_server, completion
from tests.recorded_runs import record_of


def limited(tmp_path, suite="pope,amber", model="llava-tiny", *more):
    done = bench(
        "run",
        "--model",
        model,
        "--suite",
        suite,
        "--data",
        "scenes",
        "--limit",
        24,
        "--out",
        tmp_path,
        *more,
    )
    assert done.returncode in (0, 3), done.stderr
    return done


LIMITED = "limited to 24 of 9,000 samples"
UNOFFICIAL = "AMBER's rule without word vectors and NLTK, not the official one"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limited")
    done = limited(folder / "runs")
    return folder, done


def test_the_terminal_and_json_show_them(runs):
    folder, done = runs
    assert f"‡ {LIMITED}" in done.stdout and f"‡ {UNOFFICIAL}" in done.stdout
    rows = metrics(folder / "runs" / "pope")
    assert all(LIMITED in row["caveats"] for row in rows.values())
    shown = json.loads(bench("score", folder / "runs", "--json").stdout)["runs"]
    assert (
        LIMITED in next(run for run in shown if run["benchmark"] == "pope")["metrics"][0]["caveats"]
    )


def test_only_the_descriptions_have_the_caveat_of_their_rule(runs):
    rows = metrics(runs[0] / "runs" / "amber")
    having = {name for (name, _), row in rows.items() if UNOFFICIAL in row["caveats"]}
    assert having == {"chair", "cover", "hal", "cog"}


def test_board_and_its_json_show_them(runs):
    folder = runs[0] / "runs"
    board = bench("board", folder).stdout
    line = next(line for line in board.splitlines() if line.startswith("llava-tiny on scenes"))
    assert "‡" in line
    assert f"POPE acc, prec, recall, F1, yes %: {LIMITED}" in board
    cells = json.loads(bench("board", folder, "--json").stdout)["board"][-1]["cells"]
    assert LIMITED in cells["pope.accuracy"]["caveats"]
    assert UNOFFICIAL in cells["amber.chair"]["caveats"]


def test_the_report_shows_them_in_every_form(runs):
    folder, _ = runs
    out = folder / "report"
    done = bench("report", folder / "runs", "--paper", "--model-card", "--out", out)
    assert done.returncode == 0, done.stderr
    markdown = (out / "tables" / "pope.md").read_text()
    assert "‡ |" in markdown and f"‡ llava-tiny on scenes: {LIMITED}." in markdown
    assert LIMITED in (out / "tables" / "pope.tex").read_text()
    with (out / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == "pope"]
    assert all(LIMITED in row["caveats"] for row in rows)
    for name in ("pope", "paper-table-1"):
        with (out / "tables" / f"{name}.csv").open() as file:
            assert any(LIMITED in row["caveats"] for row in csv.DictReader(file)), name
    paper = (out / "tables" / "paper-table-1.md").read_text()
    verdicts = next(line for line in paper.splitlines() if line.startswith("| … against"))
    assert "‡" in verdicts and LIMITED in paper
    assert LIMITED in (out / "README.md").read_text()
    figure = (out / "figures" / "pope-by-subset.svg").read_text()
    assert "llava-tiny on scenes ‡" in figure
    page = (out / "index.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert LIMITED in next(r for r in data["runs"] if r["title"] == "POPE (COCO)")["caveats"]
    assert any(
        LIMITED in c["title"] for line in data["board"]["lines"] for c in line["cells"].values()
    )


def test_comparison_and_gate_show_those_of_both_sides(runs, tmp_path):
    folder = runs[0] / "runs"
    limited(tmp_path / "other", "pope", "llava-tiny-b")
    text = bench("compare", folder / "pope", tmp_path / "other").stdout
    assert f"‡ both: {LIMITED}" in text
    pairs = json.loads(bench("compare", folder / "pope", tmp_path / "other", "--json").stdout)
    assert [item["caveat"] for item in pairs["comparisons"][0]["caveats"]] == [LIMITED] * 2
    junit = tmp_path / "junit.xml"
    bench("check", tmp_path / "other", "--against", folder / "pope", "--junit", junit)
    properties = ElementTree.parse(junit).iter("property")
    noted = [item.get("value") for item in properties if item.get("name") == "caveat"]
    assert noted == [f"both: {LIMITED}"]
    checked = bench("check", tmp_path / "other", "--against", folder / "pope").stdout
    assert f"‡     pope: both: {LIMITED}" in checked
    out = tmp_path / "report"
    bench("report", folder / "pope", tmp_path / "other", "--out", out)
    assert f"pope: {LIMITED}." in (out / "tables" / "differences.md").read_text()


def test_cut_off_looping_and_thinking_answers_are_counted(pictures, tmp_path):
    def reply(number, body):
        text = str(body["messages"])
        if "dog" in text:
            return completion("Yes, and so on, and so on", finish="length")
        if "car" in text:
            return completion("There is a car in the image. " * 6)
        return completion("<think>Is it?</think>No")

    with chat_server(reply) as (url, _):
        command = ("run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures)
        bench(*command, "--out", tmp_path)
    rows = metrics(tmp_path / "pope")
    counted = {key[1]: row["caveats"] for key, row in rows.items() if key[0] == "accuracy"}
    for words in ("cut off at the token limit", "repeat", "thoughts of"):
        numbers = {}
        for subset, caveats in counted.items():
            for caveat in caveats:
                if words in caveat:
                    numbers[subset] = int(next(w for w in caveat.split() if w.isdigit()))
        parts = sum(numbers.get(name, 0) for name in ("random", "popular", "adversarial"))
        assert numbers["all"] == numbers["mean"] == parts > 0, words


def test_a_cut_off_answer_counts_where_its_sample_does(runs, tmp_path):
    """AMBER's types are made of kinds: answers about numbers count as attributes, not relations."""
    folder = shutil.copytree(runs[0] / "runs" / "amber", tmp_path / "amber")
    kind_of = {}
    for row in read_lines(folder / "scores.jsonl"):
        kind_of[row["sample"]] = row["subset"]
    numbers = [name for name, kind in kind_of.items() if kind == "number"]
    questions = recorded_questions(Run(folder), registry.benchmark("amber"))
    keys = {questions.key_of[name] for name in numbers}
    rows = read_lines(folder / "answers.jsonl")
    for row in rows:
        row["finish"] = "length" if row["key"] in keys else "stop"
    replace_lines(folder / "answers.jsonl", rows)
    (folder / "metrics.json").unlink()
    done = bench("score", folder)
    assert done.returncode == 0
    row = next(line for line in done.stdout.splitlines() if line.startswith("cut off"))
    assert row.split().count(str(len(numbers))) == 3, "the row beside unscored"
    having = set()
    for (_, subset), row in metrics(folder).items():
        if f"{len(numbers)} answers cut off at the token limit" in row["caveats"]:
            having.add(subset)
            assert row["cut_off"] == len(numbers)
        else:
            assert row["cut_off"] == 0
            assert not any("cut off" in caveat for caveat in row["caveats"])
    assert numbers and having == {"number", "attribute", "discriminative"}


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ({"kind": "openai", "model": "gpt-4", "prompt": "official"}, None),
        ({"kind": "openai", "model": "gpt-4", "prompt": "ours"}, "gpt-4 with our rubric"),
        ({"kind": "openai", "model": "qwen", "prompt": "official"}, "qwen with the official"),
        ({"kind": "hf", "model": "mine", "prompt": "user's"}, "mine with a user's prompt"),
        ({"kind": "scene", "version": 1}, "built-in world"),
        ({"kind": "replay", "file": "r", "reading": "official"}, None),
        ({"kind": "replay", "file": "r", "reading": "rubric"}, "our rubric"),
    ],
)
def test_ratings_by_another_judge_or_prompt_say_so(judge, words):
    caveats = run_caveats(record_of(judge=judge), judged=True)
    assert len(caveats) == (words is not None)
    assert words is None or words in caveats[0]
    assert run_caveats(record_of(judge=judge), judged=False) == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"subsets": ["random"]}, "only the subsets random"),
        ({"command": ["run", "--protocol", "native"]}, "protocol native"),
        ({"command": ["run", "--protocol=mine.yaml"]}, "protocol mine.yaml"),
        ({"recorded": {"rows": 9, "unmatched": {"count": 2}}}, "2 of 9 recorded answers"),
        ({"recorded": {"rows": 9, "duplicates": {"count": 3}}}, "3 recorded answers"),
        ({"model": {"name": "m", "decoding": {"temperature": 0.7}}}, "temperature 0.7"),
    ],
)
def test_how_a_run_was_made_is_a_caveat(parts, words):
    (caveat,) = run_caveats({**record_of(), **parts}, judged=False)
    assert words in caveat
    assert run_caveats(record_of(command=["run", "--protocol", "auto"]), judged=False) == []


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("The image shows a cat. " + "The cat is on the mat. " * 8, True),
        ("the the " * 30, True),
        ("A dog, a cat, a cow, a hen, a pig, a bird and a horse are in the picture.", False),
        ("Yes", False),
        ("very very very very nice, and there are many other things to see here", False),
    ],
)
def test_a_text_that_goes_round_in_circles_is_known(text, loops):
    assert is_loop(text) == loops
