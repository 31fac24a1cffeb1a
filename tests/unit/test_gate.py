"""The gate: a checkpoint against itself passes, a worse one fails with its samples named, damage
is told."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.benchmarks.pope import COCO
from bench.files import read_lines, replace_lines
from bench.metrics.paired import paired
from bench.types import Score
from leaderboards import gate
from leaderboards.gate import GateError, Margins
from tests.conftest import bench
from tests.recorded_runs import RECORD, pope_run, record_of, score_row, sealed, write_run


@pytest.fixture
def good(tmp_path):
    return pope_run(tmp_path / "good", [n % 10 != 0 for n in range(2000)])


def test_a_run_against_itself_passes(good):
    checks = gate.check(gate.recorded(good), gate.recorded(good), Margins())
    names = ["POPE accuracy", "pope, coverage", "pope, drift"]
    assert [item.name for item in checks] == names
    assert {item.verdict for item in checks} == {"passed"}


def test_a_worse_run_fails_and_its_samples_are_named(good, tmp_path):
    worse = pope_run(
        tmp_path / "worse", [n % 10 != 0 and n not in range(41, 161) for n in range(2000)]
    )
    accuracy, _, drift = gate.check(gate.recorded(worse), gate.recorded(good), Margins())
    assert accuracy.verdict == "failed"
    assert "90.00 → 84.60" in accuracy.detail
    assert len(accuracy.worst) == gate.WORST
    assert all(41 <= int(sample.split()[0].split("/")[1]) < 161 for sample in accuracy.worst)
    assert drift.verdict == "passed" and "108 of 2000 answers differ (5.4 %)" in drift.detail


def test_drift_fails_where_the_metric_holds(good, tmp_path):
    right = [n % 10 != 0 for n in range(2000)]
    right[0], right[1] = right[1], right[0]
    other = pope_run(tmp_path / "other", right)
    checks = gate.check(gate.recorded(other), gate.recorded(good), Margins(drift=0.0005))
    assert {item.name: item.verdict for item in checks} == {
        "POPE accuracy": "passed",
        "pope, coverage": "passed",
        "pope, drift": "failed",
    }


def test_few_samples_cannot_show_that_nothing_was_lost(tmp_path):
    rng = np.random.default_rng(0)
    runs = [pope_run(tmp_path / name, list(rng.random(100) < 0.8)) for name in ("one", "two")]
    accuracy = gate.check(
        gate.recorded(runs[0]), gate.recorded(runs[1]), Margins(margins={"POPE accuracy": 0.06})
    )[0]
    assert accuracy.verdict == "inconclusive"
    assert "100 samples cannot show on which side" in accuracy.detail
    # As it stays: half the interval, over what is left to the margin, squared.
    item = paired(COCO.figures[0], *(gate.recorded(run)["pope"].scores for run in runs[::-1]))
    half = (item.difference.high - item.difference.low) / 2
    enough = 100 * (half / (0.06 + item.difference.value)) ** 2
    assert item.difference.value > -0.06 and f"about {math.ceil(enough):,} would" in accuracy.detail


def test_floors_hold_whatever_the_reference_says(good):
    checks = gate.check(
        gate.recorded(good), gate.recorded(good), Margins(floors={"POPE accuracy": 0.95})
    )
    failed = [item.name for item in checks if item.verdict != "passed"]
    assert failed == ["POPE accuracy, floor"]


def test_false_alarms_are_as_rare_as_the_interval_says():
    """A checkpoint that is exactly the margin worse passes in 2.5 % of reruns, one that is equal
    nearly always."""
    accuracy = next(figure for figure in COCO.figures if figure.metric == "accuracy")
    rng = np.random.default_rng(5)
    margin, samples = 0.05, 300
    passed = {0.0: 0, margin: 0}
    for loss in passed:
        for _ in range(200):
            before = rng.random(samples) < 0.8
            flipped = rng.random(samples)
            after = np.where(before, flipped > 0.05 + loss / 0.8, flipped < 0.2)
            sides = []
            for side in (before, after):
                scores = {}
                for n, ok in enumerate(side):
                    label, other = ("yes", "no") if n % 2 else ("no", "yes")
                    values = {"answer": label if ok else other, "label": label}
                    scores[str(n)] = Score(str(n), "random", str(n), values)
                sides.append(scores)
            low = paired(accuracy, *sides).difference.low
            passed[loss] += low >= -margin
    assert passed[margin] <= 12, "nominally 5 of 200; more than 12 has a chance below 0.3 %"
    assert passed[0.0] >= 100


@pytest.mark.slow
def test_churn_on_real_answers_fails_no_equal_checkpoint(tmp_path, shared):
    """LLaVA-1.5-13B's recorded answers, of which one in twenty turns: as many to wrong as to right
    on average. A tenth of them to wrong besides is seen."""
    answers = f"replay:{shared}/outputs/pope_llava-v1.5-13b/answers.jsonl"
    words = ("--suite", "pope-2910", "--data", shared, "--out", tmp_path)
    assert bench("run", "--model", answers, *words).returncode == 0
    reference = gate.recorded(tmp_path / "pope-2910")
    name = "pope-2910"
    scores = reference[name].scores
    right = {
        sample: item.values["answer"] == item.values["label"] for sample, item in scores.items()
    }
    share = sum(right.values()) / len(right)
    rng = np.random.default_rng(3)

    def verdict(loss: float) -> str:
        turned = {}
        for sample, item in scores.items():
            chance = 0.025 / share + loss if right[sample] else 0.025 / (1 - share)
            answer = item.values["answer"]
            if rng.random() < chance:
                answer = "no" if answer == "yes" else "yes"
            turned[sample] = replace(item, values={**item.values, "answer": answer})
        run = {name: replace(reference[name], scores=turned)}
        checks = gate.check(run, reference, Margins(margins={"POPE-2910 accuracy": 0.01}))
        return next(item.verdict for item in checks if item.name == "POPE-2910 accuracy")

    equal = [verdict(0.0) for _ in range(40)]
    assert equal.count("failed") <= 1, "each has a chance of a few in a thousand"
    assert equal.count("passed") >= 20
    assert [verdict(0.1) for _ in range(5)] == ["failed"] * 5


def test_the_command_saves_checks_fails_and_reports(good, tmp_path):
    worse = pope_run(tmp_path / "worse", [n % 5 != 0 for n in range(2000)])
    reference, junit = tmp_path / "ref.json", tmp_path / "junit.xml"
    saved = bench("check", good, "--save", reference)
    assert saved.returncode == 0
    # Two fifths of 500 images have one wrong answer of four: 2.8 errors of 0.55 points are 1.5.
    assert "POPE accuracy 1.5 instead of 1" in saved.stderr and "--plan" in saved.stderr
    checked = bench("check", good, "--against", reference)
    assert checked.returncode == 0 and "(what 2000 samples can show" in checked.stdout
    done = bench("check", worse, "--against", reference, "--junit", junit)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  POPE accuracy")
    (suite,) = ElementTree.parse(junit).getroot()
    assert suite.get("name") == "pope"
    properties = {item.get("name"): item.get("value") for item in suite.find("properties")}
    assert properties["model"] == "m"
    counts = (suite.get("tests"), suite.get("failures"), suite.get("errors"))
    assert counts == ("3", "1", "0")
    outcome = json.loads(bench("check", worse, "--against", reference, "--json").stdout)
    assert outcome["passed"] is False


def test_github_is_told_what_did_not_pass(good, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    worse = pope_run(tmp_path / "worse", [n % 5 != 0 for n in range(2000)])
    done = bench("check", worse, "--against", good, "--github")
    commands = [line for line in done.stdout.splitlines() if line.startswith("::")]
    (command,) = commands
    assert command.startswith("::error title=pope%3A POPE accuracy::")
    assert "→" in command and "%0A" in command, "samples stand on lines of their own"
    assert "| FAIL | POPE accuracy |" in (tmp_path / "summary.md").read_text()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "lost" / "summary.md"))
    again = bench("check", worse, "--against", good, "--github")
    assert again.returncode == 1, "the verdict is not lost"
    assert "takes no summary" in again.stderr


def test_a_plan_says_how_many_samples_a_margin_needs(tmp_path):
    """Of independent samples the error is sqrt(p (1 - p) / n): solved for n by hand."""
    right = list(np.random.default_rng(0).random(2000) < 0.8)
    run = pope_run(tmp_path / "independent", right)

    def needed(margin):
        done = bench("check", run, "--plan", "--margin", margin)
        row = next(line for line in done.stdout.splitlines() if line.startswith("POPE accuracy"))
        assert row.split()[2] == str(margin) and row.split()[4] == "2,000"
        return float(row.split()[3].replace(",", ""))

    share = np.mean(right)
    by_hand = share * (1 - share) * ((1.96 + 0.84) / 0.02) ** 2
    assert needed(2) == pytest.approx(by_hand, rel=0.1)
    assert needed(1) == pytest.approx(4 * needed(2), rel=0.01)


def test_a_reference_carries_its_environment_and_what_was_run(good, tmp_path):
    record = {
        **RECORD,
        "environment": {"python": "3.11"},
        "model": {"weights_sha256": "w", **RECORD["model"]},
    }
    run = pope_run(tmp_path / "told", [1] * 8, record)
    gate.save(run, tmp_path / "ref.json")
    kept = gate.read_reference(tmp_path / "ref.json")["pope"].record
    assert kept["environment"] == {"python": "3.11"}
    assert kept["model"]["weights_sha256"] == "w"


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.pop("benchmarks"),
        lambda content: content.update(format=9),
        lambda content: content["benchmarks"].clear(),
        lambda content: content["benchmarks"]["pope"].update(scores=[]),
        lambda content: content["benchmarks"]["pope"]["scores"][0].pop("cluster"),
        lambda content: content["benchmarks"]["pope"]["scores"][0].pop("sample"),
        lambda content: content["benchmarks"]["pope"]["scores"][0].update(values=3),
        lambda content: content["benchmarks"]["pope"]["scores"][1]["values"].pop("answer"),
    ],
)
def test_a_reference_edited_by_hand_is_told(good, tmp_path, edit):
    file = tmp_path / "ref.json"
    gate.save(good, file)
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    with pytest.raises(GateError, match=r"is not a reference|is damaged"):
        gate.check(gate.recorded(good), gate.read_reference(file), Margins())


@pytest.mark.parametrize(
    "text", ["[1]", "margins: 3", "floors: {POPE acuracy: 1}", "x: [", "drift: 2"]
)
def test_wrong_margins_are_told(tmp_path, text):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(GateError):
        gate.read_margins(tmp_path / "m.yaml", {})


def gated(candidate, reference, **margins):
    checks = gate.check(gate.recorded(candidate), gate.recorded(reference), Margins(**margins))
    return {item.name: item for item in checks}, gate.outcome(checks)


def test_a_run_that_scored_a_part_of_the_reference_does_not_pass(good, tmp_path):
    right = [n % 10 != 0 for n in range(2000)]
    part = pope_run(tmp_path / "part", right[:80])
    checks, verdict = gated(part, good)
    assert checks["pope, coverage"].verdict == verdict == "failed"
    assert "80 of the reference's 2000 samples" in checks["pope, coverage"].detail
    done = bench("check", part, "--against", good)
    assert done.returncode == 1 and "FAIL  pope, coverage" in done.stdout
    assert gated(part, good, missing=0.97)[0]["pope, coverage"].verdict == "passed"


def test_wrong_samples_that_became_unscored_are_missed(good, tmp_path):
    rows = read_lines(good / "scores.jsonl")
    for row in rows:
        if not row["values"]["correct"]:
            row |= {"values": {}, "unscored": "the server timed out"}
    better = shutil.copytree(good, tmp_path / "better")
    replace_lines(better / "scores.jsonl", rows)
    sealed(better)
    checks, verdict = gated(better, good)
    assert verdict == "failed" and checks["pope, coverage"].verdict == "failed"
    assert len(checks["pope, coverage"].worst) == gate.WORST


def test_two_samples_without_a_flip_show_nothing(tmp_path):
    two = pope_run(tmp_path / "two", [True, False])
    checks, verdict = gated(two, two)
    assert checks["POPE accuracy"].verdict == verdict == "inconclusive"
    assert bench("check", two, "--against", two).returncode == 3


def mmhal_run(folder, ratings):
    record = record_of(benchmark={"name": "mmhal", "version": "1"})
    rows = []
    for n, rating in enumerate(ratings):
        values = {"rating": int(rating), "hallucination": bool(rating < 3), "unrated": False}
        values |= {"informativeness": 0, "correct": bool(rating >= 3)}
        rows.append(score_row(str(n), str(n), "other", **values))
    return write_run(folder, record, rows, [])


def test_equally_good_models_pass_mmhal_and_clearly_worse_ones_do_not(tmp_path):
    """Two models of one distribution whose ratings correlate by a half: 96 items must not be a
    lottery, and a loss of two ratings must not get through."""
    rng = np.random.default_rng(6)
    passed = failed = 0
    for number in range(30):
        skill = rng.normal(0, 1, 96)
        first, second = (skill + rng.normal(0, 1, 96) for _ in range(2))
        ratings = [np.clip(np.round(3 + 1.2 * x), 0, 6) for x in (first, second)]
        runs = []
        for name, values in (("a", ratings[0]), ("b", ratings[1]), ("c", ratings[1] - 2)):
            runs.append(mmhal_run(tmp_path / f"{number}{name}", np.clip(values, 0, 6)))
        checks, _ = gated(runs[1], runs[0])
        passed += checks["MMHal score"].verdict == "passed"
        assert "what 96 samples can show" in checks["MMHal score"].detail
        failed += gated(runs[2], runs[0])[1] == "failed"
    assert passed >= 20 and failed == 30


def test_a_margin_that_somebody_wrote_is_taken_as_it_is(tmp_path):
    run = mmhal_run(tmp_path / "a", [3, 4] * 48)
    checks, _ = gated(run, run, margins={"MMHal score": 0.01})
    assert checks["MMHal score"].verdict == "inconclusive"
    assert "margin 0.01;" in checks["MMHal score"].detail


def test_a_fault_of_ours_never_looks_like_a_failed_gate(good, monkeypatch):
    def broken(*_):
        raise RuntimeError("a fault")

    monkeypatch.setattr(gate, "check", broken)
    done = bench("check", good, "--against", good)
    assert done.returncode == 70
    assert "RuntimeError: a fault" in done.stderr and "Please report it" in done.stderr


def with_p_yes(folder, right, known):
    """A POPE run that may know P(yes)."""
    run = pope_run(folder, right)
    rows = read_lines(run / "scores.jsonl")
    for row in rows:
        sure = 0.9 if row["values"]["answer"] == "yes" else 0.1
        row["values"]["p_yes"] = sure if known else None
    replace_lines(run / "scores.jsonl", rows)
    return sealed(run)


def test_a_figure_that_the_run_lacks_does_not_pass(tmp_path):
    right = [n % 10 != 0 for n in range(2000)]
    reference = with_p_yes(tmp_path / "ref", right, True)
    candidate = with_p_yes(tmp_path / "new", right, False)
    checks, verdict = gated(candidate, reference, margins={"POPE AUC": 0.05})
    assert verdict == checks["POPE AUC, coverage"].verdict == "failed"
    assert "of 0 samples" in checks["POPE AUC, coverage"].detail
    assert gated(reference, reference, margins={"POPE AUC": 0.05})[1] == "passed"


@pytest.mark.parametrize("margin", [1, 5, -0.01, float("nan")])
def test_a_margin_that_gates_nothing_is_refused(good, tmp_path, margin):
    file = tmp_path / "m.yaml"
    text = ".nan" if margin != margin else str(margin)
    file.write_text(f"margins: {{POPE accuracy: {text}}}")
    with pytest.raises(GateError, match="gates nothing"):
        gate.read_margins(file, gate.recorded(good))


def test_a_run_of_one_subset_is_compared_with_a_whole_one(tmp_path):
    right = [n % 10 != 0 for n in range(2000)]
    files = {"random.json": "1", "popular.json": "2"}
    whole = record_of(data={"samples": 2000, "sha256": "x", "files": files})
    part = record_of(data={"samples": 2000, "sha256": "y", "files": {"random.json": "1"}})
    other = record_of(data={"samples": 2000, "sha256": "z", "files": {"random.json": "9"}})
    runs = []
    for name, record in (("whole", whole), ("part", part), ("other", other)):
        runs.append(pope_run(tmp_path / name, right, record))
    assert bench("compare", runs[0], runs[1]).returncode == 0
    assert bench("compare", runs[0], runs[2]).returncode == 2


def test_drift_without_a_common_answer_tells_nothing(good, tmp_path):
    other = shutil.copytree(good, tmp_path / "other")
    rows = read_lines(other / "answers.jsonl")
    replace_lines(other / "answers.jsonl", [row | {"key": f"x{row['key']}"} for row in rows])
    sealed(other)
    checks, verdict = gated(other, good, drift=0.5)
    assert checks["pope, drift"].verdict == verdict == "inconclusive"


def test_a_floor_in_percent_is_refused_and_an_example_is_shown(good, tmp_path):
    assert bench("check", good, "--save", tmp_path / "reference.json").returncode == 0
    margins = tmp_path / "margins.yaml"
    words = ("check", good, "--against", tmp_path / "reference.json", "--margins", margins)
    margins.write_text("floors: {POPE accuracy: 80}\n")
    done = bench(*words)
    assert done.returncode == 2 and "lies between 0 and 1" in done.stderr
    margins.write_text("pope: {accuracy: 2}\n")
    done = bench(*words)
    assert done.returncode == 2 and "margins: {POPE accuracy: 0.01}" in done.stderr
    assert "errors.pydantic.dev" not in done.stderr


def test_saving_checks_nothing_and_says_so(good, tmp_path):
    done = bench("check", good, "--against", good, "--save", tmp_path / "x.json")
    assert done.returncode == 2 and "do not go together" in done.stderr
    assert not (tmp_path / "x.json").exists()
    missing = bench("check", good, "--against", tmp_path / "x.json")
    assert "bench check RUN --save" in missing.stderr


def test_a_sample_that_lost_by_two_figures_is_told_once():
    asked = "\n  Is there a dog? · a.png\n  before: No\n  now: Yes"
    checks = [
        gate.Check("MMHal score", "failed", "worse", [f"a (all): 6 → 0{asked}"], "mmhal"),
        gate.Check("MMHal rate", "failed", "worse", [f"a (all): 0 → 1{asked}", "b: gone"], "mmhal"),
    ]
    text = gate.as_text(checks)
    assert text.count("Is there a dog?") == text.count("before: No") == 1
    assert "a (all): 0 → 1, as above" in text and "        b: gone" in text
