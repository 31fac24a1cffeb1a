"""A flag that would do nothing for the chosen model or judge is refused, not ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.runs.jobs import judge_for, load_judge, load_judges, load_model
from tests.conftest import bench


@pytest.fixture
def answers(tmp_path) -> Path:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"image": "a.png", "question": "Is it?", "answer": "Yes"}) + "\n")
    return file


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "llava"},
        {"dtype": "bfloat16"},
        {"device": "cpu"},
        {"revision": "main"},
        {"trust_remote_code": True},
        {"base": "x"},
        {"workers": 2},
        {"ray": "auto"},
        {"api_key_env": "KEY"},
        {"temperature": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_recorded_answers_take_none_of_a_models_flags(answers, options):
    (name,) = options
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(BenchError, match=f"{flag} does nothing for --model replay"):
        load_model(f"replay:{answers}", options)
    load_model(f"replay:{answers}", dict.fromkeys(options, None) | {"protocol": "auto"})


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("llava-tiny", {"api_key_env": "KEY"}),
        ("llava-tiny", {"answer_field": "text"}),
        ("llava-tiny", {"revision": "main"}),
        ("llava-tiny", {"base": "llava-tiny-b"}),
        ("openai:m@http://127.0.0.1:9/v1", {"device": "cpu"}),
        ("openai:m@http://127.0.0.1:9/v1", {"dtype": "float32"}),
        ("openai:m@http://127.0.0.1:9/v1", {"questions": "q.jsonl"}),
    ],
)
def test_other_models_refuse_what_is_not_theirs(spec, options):
    with pytest.raises(BenchError, match="does nothing for"):
        load_model(spec, options)


def test_judges_refuse_what_is_not_theirs(tmp_path):
    template = tmp_path / "t.txt"
    template.write_text("{question} {reference} {answer} {objects}")
    with pytest.raises(BenchError, match="--judge-max-tokens does nothing for --judge scene"):
        load_judge("scene", max_tokens=5)
    with pytest.raises(BenchError, match="do nothing without one"):
        judge_for(None, "hub", api_key_env="KEY")
    server = "openai:m@http://127.0.0.1:9/v1"
    # Of several judges, those get an option that take it.
    scene, other = load_judges(["scene", server], max_tokens=77)
    assert other.describe()["max_tokens"] == 77 and "max_tokens" not in scene.describe()
    with pytest.raises(BenchError, match="does nothing for --judge scene"):
        load_judges(["scene"], api_key_env="KEY")


def test_the_command_says_so_before_it_asks(answers, tmp_path):
    done = bench(
        "run",
        "--model",
        f"replay:{answers}",
        "--suite",
        "pope",
        "--data",
        "scenes",
        "--dtype",
        "float16",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 2 and "--dtype does nothing for --model replay" in done.stderr
    done = bench(
        "run",
        "--model",
        "llava-tiny",
        "--suite",
        "pope",
        "--data",
        "scenes",
        "--price",
        "1,2",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 2 and "--price does nothing" in done.stderr
    assert not (tmp_path / "run").exists()
