"""CONTRIBUTING's examples, taken from the file itself, as a real outside package."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.errors import BenchError
from tests.conftest import ROOT, bench, draw

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, re.DOTALL))
ENTRY_POINTS = "\n".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
COLOURS = ("red", "blue", "green", "red", "red")


def install(folder: Path) -> Path:
    """The examples really installed by pip; returns the folder on which they are found."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    for name, code in MODULES.items():
        (source / f"{name}.py").write_text(code)
    project = {
        "build-system": 'requires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"',
        "project": 'name = "outside-plugin"\nversion = "1"',
        "tool.setuptools": f"py-modules = {list(MODULES)!r}",
    }
    parts = [f"[{table}]\n{content}\n" for table, content in project.items()]
    (source / "pyproject.toml").write_text("\n".join([*parts, ENTRY_POINTS]))
    options = ["-q", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Runs the command with the outside package installed."""
    path = install(tmp_path_factory.mktemp("outside"))

    def run(*arguments, code=0):
        done = bench(*arguments)
        assert done.returncode == code, done.stderr
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        yield run
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def runs(outside, tmp_path_factory) -> Path:
    """Two runs of the outside benchmark by the outside model: 60 % and 20 % right."""
    folder = tmp_path_factory.mktemp("colours")
    data = folder / "data"
    (data / "images" / "colours").mkdir(parents=True)
    (data / "colours").mkdir()
    rows = []
    for number, colour in enumerate(COLOURS * 10):
        draw(data / "images" / "colours" / f"{number}.png", number)
        row = {"id": str(number), "image": f"{number}.png", "question": "?", "colour": colour}
        rows.append(json.dumps(row) + "\n")
    (data / "colours" / "questions.jsonl").write_text("".join(rows))
    for answer in ("red", "blue"):
        outside(
            "run",
            "--model",
            f"always:{answer}",
            "--suite",
            "colours",
            "--data",
            data,
            "--out",
            folder / answer,
        )
    return folder


def test_every_section_has_its_example():
    assert MODULES.keys() == {"colours", "always", "length_judge", "brevity"}
    assert ENTRY_POINTS.count("[project.entry-points.") == 4


def test_the_examples_are_listed(outside):
    for what, name in {
        "suites": "colours",
        "models": "always",
        "judges": "length",
        "rewards": "brevity",
    }.items():
        assert re.search(rf"^{name}\b", outside("list", what).stdout, re.MULTILINE)


def test_the_benchmark_is_compared_by_its_own_figure(outside, runs):
    outcome = json.loads(outside("compare", runs / "red", runs / "blue", "--json").stdout)
    (row,) = outcome["comparisons"][0]["rows"]
    assert row["figure"] == "Colours accuracy"
    assert (row["first"][0], row["second"][0]) == (0.6, 0.2)


def test_the_benchmark_is_gated_by_its_own_margin(outside, runs, tmp_path):
    outside("check", runs / "red", "--save", tmp_path / "ref.json")
    done = outside("check", runs / "blue", "--against", tmp_path / "ref.json", code=1)
    assert "FAIL  Colours accuracy: 60.00 → 20.00" in done.stdout
    margins = tmp_path / "margins.yaml"
    margins.write_text("margins: {Colours accuracy: 0.7}")
    outside("check", runs / "blue", "--against", tmp_path / "ref.json", "--margins", margins)


def test_the_benchmark_has_its_column_on_the_board(outside, runs):
    header, _, *lines = outside("board", runs / "red", "--columns", "colours").stdout.splitlines()
    assert header.split() == ["colours", "Colours"]
    assert any(line.startswith("always-red") and "60.00" in line for line in lines)


def test_the_benchmark_stands_in_the_report_and_on_the_page(outside, runs, tmp_path):
    outside("report", runs / "red", runs / "blue", "--out", tmp_path, "--model-card", code=2)
    outside("report", runs / "red", runs / "blue", "--out", tmp_path)
    with (tmp_path / "tables" / "differences.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["figure"] == "Colours accuracy" and float(row["difference"]) == pytest.approx(-40)
    assert "**60.00 [" in (tmp_path / "tables" / "colours.md").read_text()
    page = (tmp_path / "index.html").read_text()
    assert '"heading":"Colours"' in page and '"benchmark":"colours"' in page


def test_the_judge_judges(outside, tmp_path):
    run = ("run", "--suite", "mmhal", "--data", "scenes", "--limit", "16", "--judge", "length:3")
    for answer, score in (("one two three", 5.0), ("one", 0.0)):
        out = tmp_path / str(score)
        outcome = json.loads(
            outside(*run, "--model", f"always:{answer}", "--out", out, "--json").stdout
        )
        assert outcome["runs"][0]["metrics"][0]["value"] == score


def test_the_reward_makes_pairs_in_an_alignment(outside, tmp_path):
    recipe = yaml.safe_load((ROOT / "alignment" / "recipes" / "scenes-tiny.yaml").read_text())
    recipe["prompts"] |= {"count": 6, "per_prompt": 2}
    recipe["rewards"] = {"kind": "brevity", "words": 10}
    recipe["responses"]["samples"] = 3
    recipe["dpo"]["batch"] = 4
    del recipe["evaluate"], recipe["variants"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    outside("align", tmp_path / "r.yaml", "--out", tmp_path / "out")
    pairs = next((tmp_path / "out").glob("preferences-*/pairs.jsonl")).read_text().splitlines()
    assert pairs
    for pair in map(json.loads, pairs):
        distance = [abs(len(pair[side].split()) - 10) for side in ("chosen", "rejected")]
        assert distance[0] < distance[1]
        assert pair["chosen_reward"] == -distance[0]


def test_faults_in_the_rewards_settings_are_told_with_their_line(outside, tmp_path):
    text = (ROOT / "alignment" / "recipes" / "scenes-tiny.yaml").read_text()
    start, end = text.index("rewards:"), text.index("preferences:")
    for rewards, fault in (
        ("rewards:\n  kind: brevity\n  words: 0\n\n", "line {}: rewards.words"),
        ("rewards:\n  kind: brevitty\n\n", "Did you mean 'brevity'?"),
    ):
        recipe = text[:start] + rewards + text[end:]
        (tmp_path / "r.yaml").write_text(recipe)
        done = outside("align", tmp_path / "r.yaml", "--out", tmp_path / "out", code=2)
        line = recipe.splitlines().index(rewards.splitlines()[-2]) + 1
        assert fault.format(line) in done.stderr


def test_a_plugin_that_is_incomplete_or_cannot_be_loaded_is_named(monkeypatch):
    from bench import registry

    monkeypatch.setitem(registry.BENCHMARKS, "old", "fractions:Fraction")
    monkeypatch.setitem(registry.REWARDS, "gone", "no_such_module:Reward")
    with pytest.raises(BenchError, match="It lacks name, title, version"):
        registry.benchmark("old:1")
    with pytest.raises(BenchError, match="reward 'gone' cannot be loaded from no_such_module"):
        registry.load("rewards", "gone")
