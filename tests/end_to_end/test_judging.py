"""A judge on this machine, and several judges on one run, as a user types it."""

from __future__ import annotations

import json

import torch
import transformers as hf

from bench.judges.hf import HFJudge
from bench.judges.rubric import Rubric
from bench.types import Answer, Sample
from tests.conftest import bench, metrics
from tests.tiny_models import byte_level_tokenizer

TEMPLATE = "{% for message in messages %}<|user|>{{ message['content'] }}{% endfor %}<|assistant|>"


def tiny_judge(folder, template=TEMPLATE):
    """A Llama of random weights that repeats itself, with a chat template."""
    torch.manual_seed(1)
    tokenizer = byte_level_tokenizer(
        ["<pad>", "</s>", "<|user|>", "<|assistant|>"], eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.chat_template = template
    config = hf.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(tokenizer),
        eos_token_id=1,
        pad_token_id=0,
    )
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_judge_says_what_generate_says_for_each_answer_alone(tmp_path):
    judge = HFJudge(str(tiny_judge(tmp_path / "judge")), {"max_tokens": 12})
    assert judge.describe()["max_tokens"] == 12
    samples = [
        Sample(f"s{i}", "a.png", "Which?" * (i + 1), "Left.", "a", "other", {"index": i})
        for i in range(10)
    ]
    items = [(sample, Answer(f"answer {sample.id}")) for sample in samples]
    batches = list(judge.judge(items))
    assert [len(batch) for batch in batches] == [8, 2]
    said = {sample.id: verdict.text for batch in batches for sample, verdict in batch}
    for sample, answer in items:
        text = f"<|user|>{Rubric().fill(sample, answer)}<|assistant|>"
        ids = judge.model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        alone = judge.model.model.generate(**ids, do_sample=False, max_new_tokens=12)[
            0, ids["input_ids"].shape[1] :
        ]
        assert (
            judge.model.tokenizer.decode(alone, skip_special_tokens=True).strip() == said[sample.id]
        )
    assert len(judge.describe()["weights_sha256"]) == 64


def test_two_judges_on_one_run_and_how_far_they_agree(tmp_path):
    asked = bench(
        "run",
        "--model",
        "llava-tiny",
        "--suite",
        "mmhal",
        "--data",
        "scenes",
        "--limit",
        "48",
        "--out",
        tmp_path,
    )
    assert asked.returncode == 0
    run = tmp_path / "mmhal"
    by_scene = metrics(run)["score", "all"]["value"]
    rows = [json.loads(line) for line in (run / "verdicts.jsonl").read_text().splitlines()]
    kind = [
        {"sample": row["sample"], "text": row["text"].replace("Rating: 0", "Rating: 4")}
        for row in rows
    ]
    (tmp_path / "kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kind))

    words = ("judge", run, "--judge", "scene", "--judge", f"replay:{tmp_path / 'kind.jsonl'}")
    done = bench(*words)
    assert (
        done.returncode == 0
        and "weighted kappa" in done.stdout
        and "on 48 answers (0 not rated" in done.stdout
    )
    (pair,) = json.loads(bench(*words, "--json").stdout)["agreement"]
    assert (
        pair["judges"][0] == "scene"
        and pair["rates"][0] > pair["rates"][1]
        and pair["kappa"][0] < 1
    )
    assert {tuple(worst[1:]) for worst in pair["worst"]} == {(0, 4)}
    assert metrics(run)["score", "all"]["value"] == by_scene, "the first judge's ratings count"

    assert bench("judge", run, "--judge", f"hf:{tmp_path}").returncode == 2
    plain = tiny_judge(tmp_path / "plain", template=None)
    refused = bench("judge", run, "--judge", f"hf:{plain}")
    assert refused.returncode == 2 and "no chat template" in refused.stderr
