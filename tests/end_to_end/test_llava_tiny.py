"""The shipped checkpoints: what they are, and that the first command of the README shows what it
promises."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bench import registry
from bench.models.hf import HFModel
from bench.scenes.data import choose
from bench.scenes.llava_tiny.card import ROWS
from bench.scenes.render import render
from bench.types import Request
from tests.conftest import bench, metrics

NAMES = ("llava-tiny", "llava-tiny-b")
BANDS = {
    ("pope", "accuracy", "random"): (0.85, 1.0),
    ("pope", "yes_ratio", "all"): (0.5, 0.7),
    ("chair", "chair_s", "all"): (0.30, 0.60),
    ("chair", "recall", "all"): (0.70, 1.0),
    ("mmhal", "hallucination_rate", "all"): (0.35, 0.65),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_checkpoint_is_a_small_llava_in_bfloat16(name):
    model = HFModel(name, {})
    weights = load_file(model.folder / "model.safetensors")
    assert type(model.model).__name__ == "LlavaForConditionalGeneration"
    assert sum(weight.numel() for weight in weights.values()) < 10e6
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert sum(file.stat().st_size for file in model.folder.iterdir()) < 20e6
    assert model.describe()["engine"] == "shared-image"
    assert model.protocol.name == "native"


def test_the_two_are_not_the_same():
    first, second = (
        load_file(f"{registry.MODEL_ALIASES[name]}/model.safetensors") for name in NAMES
    )
    assert first.keys() == second.keys()
    assert all(
        not torch.equal(first[name], second[name])
        for name in first
        if name.endswith("q_proj.weight")
    )


def test_its_engine_answers_are_those_of_generate(tmp_path):
    model = HFModel("llava-tiny", {})
    requests = []
    for item in choose("validation", 0, 6):
        render(item).save(tmp_path / item.name)
        for text in (
            "Describe the image in detail.",
            "Is there a dog in the image?",
            "How many cars are there?",
        ):
            requests.append(
                Request(
                    f"{item.name} {text}",
                    item.name,
                    tmp_path / item.name,
                    text,
                    text,
                    64,
                    False,
                    (),
                )
            )
    answers = {
        request.key: answer.text
        for batch in model.answer(requests, frozenset())
        for request, answer in batch
    }
    for request in requests:
        with Image.open(request.path) as image:
            inputs = model.prompter.whole(image.convert("RGB"), request.prompt)
        tokens = model.model.generate(**inputs, max_new_tokens=64, do_sample=False)[
            0, inputs["input_ids"].shape[1] :
        ]
        assert (
            answers[request.key]
            == model.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        )


def test_the_cards_show_the_figures_that_a_reader_needs():
    for name in NAMES:
        card = (HFModel(name, {}).folder / "README.md").read_text()
        for benchmark, metric, subset in ROWS:
            assert f"| {benchmark} | {metric} | {subset} |" in card


def test_the_first_command_of_the_readme_in_small(tmp_path):
    done = bench(
        "run",
        "--model",
        "llava-tiny",
        "--suite",
        "pope,mmhal",
        "--data",
        "scenes",
        "--limit",
        96,
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "hallucination rate" in done.stdout  # judged without being told by which judge
    assert json.loads((tmp_path / "mmhal" / "run.json").read_text())["judge"]["kind"] == "scene"
    for name in ("pope", "mmhal"):
        file = tmp_path / name / "examples.png"
        assert str(file) in done.stderr
        with Image.open(file) as sheet:
            assert sheet.width > 600


@pytest.mark.slow
def test_it_hallucinates_as_llava_does(tmp_path):
    done = bench(
        "run",
        "--model",
        "llava-tiny",
        "--suite",
        "pope,mmhal,chair",
        "--data",
        "scenes",
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    measured = {
        (name, *key): row["value"]
        for name in ("pope", "mmhal", "chair")
        for key, row in metrics(tmp_path / name).items()
    }
    for key, (low, high) in BANDS.items():
        assert low <= measured[key] <= high, key
    accuracy = [
        measured["pope", "accuracy", subset] for subset in ("random", "popular", "adversarial")
    ]
    assert accuracy[0] > accuracy[1] > accuracy[2]
    assert accuracy[2] <= accuracy[0] - 0.08


def test_a_copy_in_another_place_answers_the_same(tmp_path):
    copy = shutil.copytree(registry.MODEL_ALIASES["llava-tiny"], tmp_path / "copy")
    item = choose("validation", 0, 1)[0]
    render(item).save(tmp_path / item.name)
    text = "Describe the image in detail."
    requests = [Request("a", item.name, tmp_path / item.name, text, text, 64, False, ())]
    first, second = (
        [
            answer.text
            for batch in HFModel(name, {}).answer(requests, frozenset())
            for _, answer in batch
        ]
        for name in ("llava-tiny", str(copy))
    )
    assert first == second
