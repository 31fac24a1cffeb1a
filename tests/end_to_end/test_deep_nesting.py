"""Texts of a few bytes, or of many brackets, are one clear error wherever a text is read."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from bench.yaml_text import parse_yaml
from tests.conftest import bench

DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000
FLOWS = "{a: " * 5_000
# Nine levels of nine: 233 bytes for 387 million values.
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
SELF = "&a [*a]"


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nested")
    words = ("--suite", "pope", "--data", "scenes", "--limit", 6, "--out", folder)
    assert bench("run", "--model", "llava-tiny", *words).returncode == 0
    return folder / "pope"


def refused(*words, code=2):
    process = bench(*words)
    assert process.returncode == code and "Traceback" not in process.stderr, process.stderr[-2000:]
    assert "remedy: " in process.stderr or code != 2
    return process


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT, f'{{"image": "a.png", "text": {DEEP}'])
def test_answers(pictures, tmp_path, text):
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(text)
        words = ("--suite", "pope", "--data", pictures, "--out", tmp_path / "out")
        refused("run", "--model", f"replay:{tmp_path / name}", *words)


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT])
def test_reviews(tmp_path, text):
    (tmp_path / "reviews.json").write_text(text)
    words = ("--suite", "mmhal", "--data", "scenes", "--limit", 6, "--out", tmp_path / "out")
    refused(
        "run", "--model", "llava-tiny", *words, "--judge", f"replay:{tmp_path / 'reviews.json'}"
    )


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT])
def test_question_files(pictures, tmp_path, text):
    data = shutil.copytree(pictures, tmp_path / "data")
    (file,) = data.rglob("coco_pope_random.json")
    file.write_text(text)
    refused("run", "--model", "llava-tiny", "--suite", "pope", "--data", data, "--out", tmp_path)
    (tmp_path / "objects.json").write_text(text)
    refused("data", "pope", "--objects", tmp_path / "objects.json", "--out", tmp_path / "made")


@pytest.mark.parametrize("name", ["run.json", "answers.jsonl", "scores.jsonl", "metrics.json"])
def test_runs(run, tmp_path, name):
    copy = shutil.copytree(run, tmp_path / "pope")
    (copy / name).write_text(DEEP_OBJECT + "\n")
    if name in ("run.json", "answers.jsonl"):  # the others are written anew
        refused("score", copy)
    if name in ("run.json", "metrics.json"):
        done = bench("board", tmp_path)
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr


@pytest.mark.parametrize("text", [FLOWS, LAUGHS, SELF, f"base: {FLOWS}"])
def test_yaml(run, tmp_path, text):
    file = tmp_path / "text.yaml"
    file.write_text(text)
    words = ("--suite", "pope", "--data", "scenes", "--limit", 6, "--out", tmp_path / "out")
    refused("run", "--model", "llava-tiny", "--protocol", file, *words)
    refused("align", file, "--dry-run")
    assert bench("check", run, "--save", tmp_path / "ref.json").returncode == 0
    refused("check", run, "--against", tmp_path / "ref.json", "--margins", file)
    refused("run", "--model", "openai:m@http://127.0.0.1:9/v1", "--api-option", f"a={text}", *words)
    (tmp_path / "ref.json").write_text(DEEP_OBJECT)
    refused("check", run, "--against", tmp_path / "ref.json")


def test_a_decodings_argument(tmp_path):
    words = ("--suite", "pope", "--data", "scenes", "--limit", 6, "--out", tmp_path)
    code = tmp_path / "code"
    (code / "custom_generate").mkdir(parents=True)
    (code / "custom_generate" / "generate.py").write_text("def generate(model, **_): ...\n")
    for value in ("[", FLOWS, SELF):
        decoding = f"{code}:a={value}"
        refused(
            "run", "--model", "llava-tiny", "--trust-remote-code", "--decoding", decoding, *words
        )


def test_prompts_and_pairs(tmp_path):
    recipe = {"name": "r", "dpo": {"model": "llava-tiny"}}
    (tmp_path / "pairs.json").write_text(DEEP)
    pairs = {"path": "pairs.json", "images": "."}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | {"pairs": pairs}))
    refused("align", tmp_path / "r.yaml", "--out", tmp_path / "out")
    (tmp_path / "prompts.jsonl").write_text(DEEP_OBJECT)
    recipe |= {
        "prompts": {"kind": "file", "path": "prompts.jsonl"},
        "images": {"kind": "scenes"},
        "responses": {"models": ["llava-tiny"]},
        "rewards": {"kind": "facts"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    refused("align", tmp_path / "r.yaml", "--out", tmp_path / "out")


def test_what_people_write_is_read():
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 5}\nc: [*a, *a]\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None
    assert json.loads(json.dumps(parse_yaml("[1, two, 3.5, null]"))) == [1, "two", 3.5, None]
