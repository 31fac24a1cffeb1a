"""A reasoning model on this machine: thoughts have a budget, the answer its own bound and P(yes).

Tiny checkpoints that were trained to think before every answer.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.benchmarks.pope import COCO
from bench.data.folder import Folder
from bench.data.images import read_image
from bench.models.hf import HFModel
from bench.models.thinking import answer_start
from bench.runs.runner import prepare
from bench.types import Request
from tests.conftest import bench
from tests.unit.test_shared_image import answers_of

THOUGHT = "is there a dog in the image, or no dog"
SAID = f"<think>{THOUGHT}</think> Yes, there is a dog."


def first_request(pictures: Path) -> Request:
    """The first of POPE's questions about the drawn pictures, as a run asks it."""
    data = Folder(pictures)
    questions = prepare(COCO, data, COCO.samples(data), COCO.suffix, COCO.max_tokens, limit=1)
    return questions.requests[0]


@pytest.fixture(scope="module", params=["llava", "paligemma"])
def thinker(request, tiny, pictures, tmp_path_factory) -> Path:
    """A checkpoint that says SAID to the first question: on the engine, and by `generate`."""
    model = HFModel(str(tiny(request.param)), {"protocol": "native"})
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = model.processor.tokenizer
    answer = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    answer = torch.tensor([[*answer, tokenizer.eos_token_id]])
    asked = first_request(pictures)
    inputs = model.prompter.whole(model.prompter.prepare(read_image(asked.path)), asked.prompt)
    inputs.pop("labels", None)
    length = inputs["input_ids"].shape[1]
    whole = {}
    for name, value in inputs.items():
        if value.shape == (1, length):
            beside = answer if name == "input_ids" else torch.ones_like(answer)
            value = torch.cat([value, beside], dim=1)
        whole[name] = value
    labels = whole["input_ids"].clone()
    labels[:, :length] = -100
    network = model.model.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(200):
        loss = network(**whole, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            break
    assert loss < 0.05, "it has not learned to think"
    network.eval().save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


def with_bounds(pictures: Path, max_tokens: int, thinking_tokens: int) -> Request:
    asked = first_request(pictures)
    return replace(asked, key="key", max_tokens=max_tokens, thinking_tokens=thinking_tokens)


def test_the_answer_has_its_own_bound_and_probability(thinker, pictures):
    model = HFModel(str(thinker), {"protocol": "native"})
    tokenizer = model.processor.tokenizer
    answer = answers_of(model, [with_bounds(pictures, 40, 200)])["key"]
    assert (answer.text, answer.thoughts, answer.finish) == (
        "Yes, there is a dog.",
        THOUGHT,
        "stop",
    )
    behind = tokenizer(SAID.split("</think>")[1], add_special_tokens=False)["input_ids"]
    assert abs(answer.tokens - len(behind)) <= 1, "the thoughts do not count"
    assert answer.p_yes > 0.5 > answer.p_no, "of Yes, not of the mark"
    short = answers_of(model, [with_bounds(pictures, 2, 200)])["key"]
    assert short.tokens == 2 and short.finish == "length" and short.thoughts == THOUGHT
    assert "Yes, there is a dog.".startswith(short.text)
    # Without a budget of its own the thought takes from the bound, and the answer is cut off.
    thought = tokenizer(SAID.split(" Yes")[0], add_special_tokens=False)["input_ids"]
    whole = answers_of(model, [with_bounds(pictures, len(thought) + 3, 0)])["key"]
    assert whole.finish == "length" and whole.thoughts == THOUGHT and whole.text


def test_the_probability_is_that_of_a_pass_over_prompt_and_thoughts(thinker, pictures):
    model = HFModel(str(thinker), {"protocol": "native"})
    asked = with_bounds(pictures, 40, 200)
    answer = answers_of(model, [asked])["key"]
    image = model.prompter.prepare(read_image(asked.path))
    inputs = model.prompter.whole(image, asked.prompt)
    inputs.pop("labels", None)
    length = inputs["input_ids"].shape[1]
    output = model.model.generate(
        **inputs, max_new_tokens=200, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    tokens = output.sequences[0, length:].tolist()
    start = answer_start(tokens, lambda ids: model.processor.tokenizer.decode(ids))
    p_yes = output.logits[start][0].softmax(-1)[list(model.settings.yes)].sum().item()
    assert math.isclose(answer.p_yes, p_yes, abs_tol=1e-4)


def test_an_unfinished_thought_is_no_answer_and_is_counted(thinker, pictures, tmp_path):
    arguments = (
        "run", "--model", thinker, "--protocol", "native", "--suite", "pope", "--data", pictures,
        "--limit", 1, "--max-tokens", 12,
    )  # fmt: skip
    done = bench(*arguments, "--out", tmp_path / "short")
    assert done.returncode == 3 and "1 unscored: it only thought" in done.stderr
    assert "1 answer cut off at the token limit" in done.stdout
    done = bench(*arguments, "--thinking-tokens", 200, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "whole" / "pope" / "answers.jsonl").read_text())
    assert row["text"].startswith("Yes") and row["thoughts"] == THOUGHT
    record = json.loads((tmp_path / "whole" / "pope" / "run.json").read_text())
    assert record["prompt"]["thinking_tokens"] == 200 and record["prompt"]["max_tokens"] == [12]
    score = json.loads((tmp_path / "whole" / "pope" / "scores.jsonl").read_text())
    assert score["values"]["answer"] == "yes" and score["values"]["p_yes"] > 0.5


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("<think>a b</think>Yes", "Yes"),
        ("<think>a b</think>\n\n<answer>Yes</answer> bye", "Yes</answer> bye"),
        ("a b</think> Yes", "Yes"),
        ("Yes", None),
        ("<think>a b", None),
    ],
)
def test_an_answer_begins_behind_all_marks(said, answer):
    """One character a token."""
    start = answer_start(list(map(ord, said)), lambda ids: "".join(map(chr, ids)))
    assert (None if start is None else said[start:]) == answer
