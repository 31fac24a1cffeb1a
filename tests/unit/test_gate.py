"""The gate: a checkpoint against itself passes, a worse one fails with its samples named, damage is told."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.store import append_lines
from leaderboards import gate
from leaderboards.gate import GateError, Margins
from tests.conftest import bench
from tests.unit.test_compare import RECORD, run_folder


def run_of(folder, right, name="m"):
    run_folder(folder, right, RECORD | {"model": RECORD["model"] | {"name": name}})
    rows = [{"key": str(n), "image": f"{n}.png", "text": "Yes" if ok else "No"} for n, ok in enumerate(right)]
    append_lines(folder / "answers.jsonl", rows)
    return folder


@pytest.fixture
def good(tmp_path):
    return run_of(tmp_path / "good", [n % 10 != 0 for n in range(2000)])


def test_a_run_against_itself_passes(good):
    checks = gate.check(gate.recorded(good), gate.recorded(good), Margins())
    assert [item.name for item in checks] == ["POPE accuracy", "pope, drift"]
    assert all(item.passed for item in checks)


def test_a_worse_run_fails_and_its_samples_are_named(good, tmp_path):
    worse = run_of(tmp_path / "worse", [n % 10 != 0 and n not in range(41, 161) for n in range(2000)])
    accuracy, drift = gate.check(gate.recorded(worse), gate.recorded(good), Margins())
    assert not accuracy.passed
    assert "90.00 → 84.60" in accuracy.told
    assert len(accuracy.worst) == gate.WORST
    assert all(41 <= int(sample.split()[0].split("/")[1]) < 161 for sample in accuracy.worst)
    assert drift.passed and "108 of 2000 answers differ (5.4 %)" in drift.told


def test_drift_fails_where_the_metric_holds(good, tmp_path):
    right = [n % 10 != 0 for n in range(2000)]
    right[0], right[1] = right[1], right[0]
    other = run_of(tmp_path / "other", right)
    checks = gate.check(gate.recorded(other), gate.recorded(good), Margins(drift=0.0005))
    assert {item.name: item.passed for item in checks} == {"POPE accuracy": True, "pope, drift": False}


def test_few_samples_cannot_show_that_nothing_was_lost(tmp_path):
    chance = np.random.default_rng(0)
    runs = [run_of(tmp_path / name, list(chance.random(100) < 0.8)) for name in ("one", "two")]
    accuracy = gate.check(gate.recorded(runs[0]), gate.recorded(runs[1]), Margins(margins={"POPE accuracy": 0.06}))[0]
    assert not accuracy.passed
    assert "100 samples cannot show it" in accuracy.told


def test_floors_hold_whatever_the_reference_says(good):
    checks = gate.check(gate.recorded(good), gate.recorded(good), Margins(floors={"POPE accuracy": 0.95}))
    assert [item.name for item in checks if not item.passed] == ["POPE accuracy, floor"]


def test_false_alarms_are_as_rare_as_the_interval_says():
    """A checkpoint that is exactly the margin worse passes in 2.5 % of reruns, one that is equal nearly always."""
    from bench.figures import FIGURES, paired

    accuracy = next(figure for figure in FIGURES if figure.name == "POPE accuracy")
    chance = np.random.default_rng(5)
    margin, samples = 0.05, 300
    passed = {0.0: 0, margin: 0}
    for loss in passed:
        for _ in range(200):
            before = chance.random(samples) < 0.8
            flipped = chance.random(samples)
            after = np.where(before, flipped > 0.05 + loss / 0.8, flipped < 0.2)
            rows = [
                {str(n): {"cluster": str(n), "values": {"correct": bool(ok)}} for n, ok in enumerate(side)}
                for side in (before, after)
            ]
            low = paired(accuracy, *rows).difference.low
            passed[loss] += low >= -margin
    assert passed[margin] <= 12, "nominally 5 of 200; more than 12 has a chance below 0.3 %"
    assert passed[0.0] >= 100


def test_the_command_saves_checks_fails_and_reports(good, tmp_path):
    worse = run_of(tmp_path / "worse", [n % 5 != 0 for n in range(2000)])
    reference, junit = tmp_path / "ref.json", tmp_path / "junit.xml"
    assert bench("check", good, "--save", reference).returncode == 0
    assert bench("check", good, "--against", reference).returncode == 0
    done = bench("check", worse, "--against", reference, "--junit", junit)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  POPE accuracy")
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    told = json.loads(bench("check", worse, "--against", reference, "--json").stdout)
    assert told["passed"] is False


def test_a_reference_carries_its_environment_and_what_was_run(good, tmp_path):
    record = {**RECORD, "environment": {"python": "3.11"}, "model": {"weights_sha256": "w", **RECORD["model"]}}
    run = run_folder(tmp_path / "told", [1] * 8, record)
    gate.save(run, tmp_path / "ref.json")
    kept = gate.read_reference(tmp_path / "ref.json")["pope"].record
    assert kept["environment"] == {"python": "3.11"}
    assert kept["model"]["weights_sha256"] == "w"


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.pop("benchmarks"),
        lambda content: content.update(format=9),
        lambda content: content["benchmarks"]["pope"]["scores"][0].pop("cluster"),
        lambda content: content["benchmarks"]["pope"]["scores"][0].pop("sample"),
        lambda content: content["benchmarks"]["pope"]["scores"][0].update(values=3),
        lambda content: content["benchmarks"]["pope"]["scores"][1]["values"].pop("correct"),
    ],
)
def test_a_reference_edited_by_hand_is_told(good, tmp_path, edit):
    file = tmp_path / "ref.json"
    gate.save(good, file)
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(GateError, match=r"is no reference|is damaged"):
        gate.check(gate.recorded(good), gate.read_reference(file), Margins())


@pytest.mark.parametrize("text", ["[1]", "margins: 3", "floors: {POPE acuracy: 1}", "x: [", "drift: 2"])
def test_wrong_margins_are_told(tmp_path, text):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(GateError):
        gate.read_margins(tmp_path / "m.yaml")
