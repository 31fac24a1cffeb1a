"""What a reasoning model thinks is no answer: it is cut off, recorded and counted."""

from __future__ import annotations

import json

import pytest

from bench import registry
from bench.language.thoughts import split_thoughts
from bench.models.thinking import answer_start
from bench.types import Score
from tests.conftest import bench, metrics

THOUGHT = "I am asked whether it is there, not where."


@pytest.mark.parametrize(
    "form",
    [
        "<think>{}</think>\n\n{}",
        "<think>\n{}\n</think>{}",
        "{}</think>\n{}",
        "<thinking>{}</thinking> {}",
        "<think>{}</think><answer>{}</answer>",
        "<think>{}</think>\n<answer>{}</answer>\nThanks",
        "<think>{}</think><|begin_of_box|>{}<|end_of_box|>",
        "<REASONING>{}</REASONING><CONCLUSION>{}</CONCLUSION>",
        "<Reasoning>{}</Reasoning>{}",
        "[THINK]{}[/THINK]{}",
        "\u25c1think\u25b7{}\u25c1/think\u25b7{}",
        "<|begin_of_thought|>{}<|end_of_thought|>\n<|begin_of_solution|>{}<|end_of_solution|>",
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    ],
)
def test_thoughts_are_told_from_the_answer(form):
    assert split_thoughts(form.format(THOUGHT, "Yes")) == (THOUGHT, "Yes")


def test_what_leads_to_llava_cots_conclusion_is_no_answer():
    text = "<SUMMARY>a</SUMMARY><CAPTION>b</CAPTION><REASONING>c</REASONING><CONCLUSION>No"
    assert split_thoughts(text)[1] == "No"


@pytest.mark.parametrize("text", ["Yes", "I think so.", "a < b > c", "It says <thought police>."])
def test_an_answer_without_thoughts_stays_as_it_is(text):
    assert split_thoughts(text) == ("", text)


@pytest.mark.parametrize("text", ["<think>Is it", "<|channel|>analysis<|message|>Is it", "[THINK]"])
def test_thoughts_without_an_end_leave_no_answer(text):
    assert split_thoughts(text)[1] == ""


@pytest.fixture
def replayed(tmp_path, pictures):
    """Runs POPE on answers that are made of each question's row."""

    def run(answer_of, *more):
        rows = []
        for file in sorted((pictures / "pope" / "coco").glob("*.json")):
            for line in file.read_text().splitlines():
                row = json.loads(line)
                subset = file.stem.rpartition("_")[2]
                recorded = {"image": row["image"], "question": row["text"], "category": subset}
                rows.append(recorded | {"response": answer_of(row["label"])})
        file = tmp_path / "answers.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        out = tmp_path / "out"
        command = ("run", "--model", f"replay:{file}", "--suite", "pope", "--data", pictures)
        return bench(*command, *more, "--out", out), out / "pope"

    return run


def test_an_answer_is_read_behind_its_thoughts_and_both_are_recorded(replayed):
    done, run = replayed(lambda label: f"<think>{THOUGHT}</think>\n{label}")
    assert done.returncode == 0, done.stderr
    assert metrics(run)["accuracy", "all"]["value"] == 1
    rows = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert {row["text"] for row in rows} == {"yes", "no"}
    assert {row["thoughts"] for row in rows} == {THOUGHT}


@pytest.mark.parametrize(
    ("form", "thoughts"),
    [
        ("[[mull]] {} [[/mull]] {}", THOUGHT),
        ("{} [[/mull]] {}", THOUGHT),
        ("[[mull]]a[[/mull]]<think>{}</think>{}", f"a\n{THOUGHT}"),
    ],
)
def test_marks_of_ones_own(form, thoughts):
    text = form.format(THOUGHT, "Yes")
    assert split_thoughts(text, ("[[mull]]", "[[/mull]]")) == (thoughts, "Yes")
    assert split_thoughts("[[mull]] Is it", ("[[mull]]", "[[/mull]]"))[1] == ""
    # An engine looks for the first token of the answer; here every character is one.
    start = answer_start([ord(char) for char in text], decoded, ("[[mull]]", "[[/mull]]"))
    assert text[start:] == "Yes"


def decoded(tokens):
    return "".join(map(chr, tokens))


def test_a_run_with_marks_of_ones_own_says_so(replayed):
    done, run = replayed(
        lambda label: f"[[mull]]{THOUGHT}[[/mull]] {label}",
        "--reasoning-tags",
        "[[mull]],[[/mull]]",
    )
    assert done.returncode == 0, done.stderr
    assert metrics(run)["accuracy", "all"]["value"] == 1
    record = json.loads((run / "run.json").read_text())
    assert record["prompt"]["reasoning_tags"] == ["[[mull]]", "[[/mull]]"]


@pytest.mark.parametrize("text", ["", "<a>", "<a>,", ",<b>", "<a>,<b>,<c>", "<a>,<a>"])
def test_tags_that_are_not_two_are_refused_before_a_model_is_read(text):
    done = bench(
        "run", "--model", "nowhere", "--suite", "pope", "--data", "scenes",
        "--reasoning-tags", text,
    )  # fmt: skip
    assert done.returncode == 2 and "names no two marks" in done.stderr


def test_a_model_that_only_thinks_is_unscored_and_the_run_ends_with_the_reason(replayed):
    done, run = replayed(lambda label: f"<think>{THOUGHT} It may be {label}")
    assert done.returncode == 3
    assert "it only thought and gave no answer" in done.stderr
    assert metrics(run)["accuracy", "all"]["n"] == 0
    assert bench("score", run).returncode == 3


def test_yes_and_no_in_one_answer_stand_beside_the_rule(replayed):
    """The rule reads no; a reader reads yes."""
    _, run = replayed(lambda label: "Yes, there is one, but there is no lamp.")
    found = metrics(run)
    total = found["accuracy", "all"]["n"]
    assert found["yes_ratio", "all"]["value"] == 0
    assert found["contrary", "all"]["value"] == found["unparsed", "all"]["value"] == total


@pytest.mark.parametrize("name", [name for name in registry.BENCHMARKS if name != "lmms"])
def test_every_benchmark_sums_up_a_run_without_a_scored_sample(name):
    benchmark = registry.benchmark(name)
    subset = "random" if name.startswith("pope") else "all"
    scores = [Score(str(n), subset, str(n), unscored="not answered") for n in range(5)]
    rows = benchmark.metrics(scores)
    assert all(row.n == 0 for row in rows)
