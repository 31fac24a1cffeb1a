"""`--decoding`: sampling, several seeds, beams and contrast are what their definitions say."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from bench.data.images import read_image
from bench.errors import ModelError
from bench.metrics.seeds import question_of
from bench.models.contrast import add_noise
from bench.models.decoding import Decoding, read_decoding
from bench.models.generate import draw
from bench.models.hf import SERVED, HFModel
from bench.models.openai_api import OpenAIModel
from bench.stats import clustered_mean, estimates_of_sums, ratio
from bench.types import Request
from leaderboards.compare import compare
from tests.conftest import bench, metrics
from tests.loopback_chat import chat_server, completion
from tests.unit.test_shared_image import answers_of, by_generate, requests_for


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("greedy", {"greedy": True}),
        ("sample", {"temperature": 1.0}),
        ("sample:temperature=0.7,top_k=50", {"temperature": 0.7, "top_k": 50}),
        ("beam:5", {"beams": 5}),
        (
            "vcd",
            {"temperature": 1.0, "contrast": {"alpha": 1.0, "beta": 0.1, "noise_step": 500}},
        ),
        (
            "vcd:temperature=0,alpha=0.5",
            {"greedy": True, "contrast": {"alpha": 0.5, "beta": 0.1, "noise_step": 500}},
        ),
    ],
)
def test_what_is_asked_is_recorded(text, described):
    assert read_decoding(text).describe() == described


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nucleus", "no decoding 'nucleus'"),
        ("sample:top=0.9", "top: Extra inputs"),
        ("sample:seeds=0", "seeds: Input should be greater than or equal to 1"),
        ("sample:temperature=0", "is greedy"),
        ("sample:temperature=-1", "temperature"),
        ("sample:temperature=nan", "temperature"),
        ("sample:top_p", "top_p"),
        ("sample:beams=4", "is greedy"),
        ("a/b:x={", "cannot be read"),
        ("a/b:x=[1]", "code.arguments"),
        ("vcd:temperature=0,seeds=3", "is greedy"),
        ("vcd:noise_step=1000", "noise_step"),
        ("vcd:beta=0", "beta"),
        ("beam:1", "is greedy"),
        ("beam", "beams"),
        ("greedy:seeds=2", "no decoding"),
    ],
)
def test_what_cannot_be_is_told(text, words):
    with pytest.raises(ModelError, match=words):
        read_decoding(text)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 6), ({"top_k": 3}, 3), ({"top_p": 0.8}, 3), ({"top_p": 0.75, "top_k": 2}, 2)],
)
def test_tokens_are_drawn_in_proportion_to_what_is_left(options, kept):
    probabilities = torch.tensor([0.4, 0.25, 0.16, 0.1, 0.06, 0.03])
    decoding = Decoding(temperature=1.0, **options)
    rngs = [random.Random(f"seed {number}") for number in range(20_000)]
    logits = probabilities.log().expand(len(rngs), -1)
    counts = Counter(draw(logits, decoding, rngs).tolist())
    assert sorted(counts) == list(range(kept))
    shares = probabilities[:kept] / probabilities[:kept].sum()
    for token, share in enumerate(shares.tolist()):
        error = math.sqrt(share * (1 - share) / len(rngs))
        drawn = counts[token] / len(rngs)
        assert abs(drawn - share) < 4 * error


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_beams_are_those_of_generate(tiny, tmp_path, kind):
    model = HFModel(str(tiny(kind)), {"protocol": "native", "decoding": "beam:3"})
    assert model.describe()["engine"] == "generate (beam search)"
    greedy = HFModel(str(tiny(kind)), {"protocol": "native"})
    requests = requests_for(tmp_path, images=2)
    answers, usual = answers_of(model, requests), answers_of(greedy, requests)
    for request in requests:
        text, _, _ = by_generate(model, request, num_beams=3)
        answer = answers[request.key]
        assert answer.text == text
        assert math.isclose(answer.p_yes, usual[request.key].p_yes, abs_tol=1e-5)
    assert any(answers[r.key].text != usual[r.key].text for r in requests), "an empty check"


def test_each_seed_is_drawn_alike_in_any_company(tiny, tmp_path):
    model = HFModel(str(tiny("llava")), {"decoding": "sample:top_p=0.95,seeds=3"})
    assert model.seeds == 3
    requests = []
    for request in requests_for(tmp_path, images=2):
        for seed in range(3):
            key = f"{request.key} {seed}"
            requests.append(
                Request(
                    key, request.image, request.path, request.question, request.prompt, 14, True, ()
                )
            )
    together = answers_of(model, requests)
    for request in requests[::5]:
        assert answers_of(model, [request])[request.key].text == together[request.key].text
    texts = {together[request.key].text for request in requests[:3]}
    assert len(texts) > 1, "the seeds must differ"


def contrasted_by_hand(model, request, seed, alpha, beta, noise_step) -> list[int]:
    """Two whole passes for every token, the likeliest of the contrast that is plausible."""
    inputs = model.prompter.whole(model.prompter.prepare(read_image(request.path)), request.prompt)
    inputs.pop("labels", None)
    generator = torch.Generator().manual_seed(seed)
    noised = add_noise(inputs["pixel_values"], noise_step, generator)
    tokens: list[int] = []
    for _ in range(request.max_tokens):
        logits = []
        for pixels in (inputs["pixel_values"], noised):
            answer = torch.tensor([tokens], dtype=torch.long)
            whole = {**inputs, "pixel_values": pixels}
            whole["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
            whole["attention_mask"] = torch.ones_like(whole["input_ids"])
            for name in ("token_type_ids", "mm_token_type_ids"):
                if name in inputs:
                    more = torch.zeros((1, len(tokens)), dtype=inputs[name].dtype)
                    whole[name] = torch.cat([inputs[name], more], dim=1)
            with torch.inference_mode():
                logits.append(model.model(**whole).logits[0, -1])
        original, distorted = logits
        plausible = original.softmax(-1) >= beta * original.softmax(-1).max()
        scores = (1 + alpha) * original - alpha * distorted
        tokens.append(int(scores.masked_fill(~plausible, -torch.inf).argmax()))
        if tokens[-1] in model.settings.eos:
            break
    return tokens


@pytest.mark.parametrize("kind", sorted(SERVED))
def test_contrast_equals_two_plain_passes_token_for_token(tiny, tmp_path, kind):
    import zlib

    options = {"protocol": "native", "decoding": "vcd:temperature=0,alpha=1,beta=0.1"}
    model = HFModel(str(tiny(kind)), options)
    # An image's placeholder in an answer would want pixels of its own in a pass over everything.
    with torch.no_grad():
        model.model.get_output_embeddings().weight[model.config.image_token_id] = 0
    requests = requests_for(tmp_path, images=2, max_tokens=6)
    answers = answers_of(model, requests)
    usual = answers_of(HFModel(str(tiny(kind)), {"protocol": "native"}), requests)
    for request in requests:
        seed = zlib.crc32(f"0 {request.image}".encode())
        tokens = contrasted_by_hand(model, request, seed, 1.0, 0.1, 500)
        decode = model.processor.tokenizer.decode
        assert answers[request.key].text == decode(tokens, skip_special_tokens=True).strip()
    changed = [r for r in requests if answers[r.key].text != usual[r.key].text]
    assert changed, "the contrast must have moved an answer"


def test_noise_is_that_of_the_diffusion():
    """At step 0 next to nothing, at the last next to nothing but noise."""
    pixels = torch.full((3, 40, 40), 2.0)
    for step, mean in ((0, 2.0), (999, 2.0 * math.exp(-1.25))):
        noised = add_noise(pixels, step, torch.Generator().manual_seed(0))
        assert noised.mean() == pytest.approx(mean, abs=0.1)
    # The betas sum to about 2.5, so that exp(-2.5) of the signal's power is left.
    assert noised.var() == pytest.approx(1 - math.exp(-2.5), abs=0.05)


def test_who_cannot_decode_so_says_it_before_the_first_question(tiny):
    with pytest.raises(ModelError, match="does not serve this model: paligemma"):
        HFModel(str(tiny("paligemma")), {"decoding": "vcd"})
    for decoding in ("vcd", "beam:3", "sample:top_k=5"):
        with pytest.raises(ModelError, match="cannot decode so"):
            OpenAIModel("m@http://127.0.0.1:9/v1", {"decoding": decoding})
    done = bench("run", "--model", "replay:x.json", "--suite", "pope", "--decoding", "vcd")
    assert done.returncode == 2


def test_a_server_is_asked_by_each_seed(pictures, tmp_path):
    with chat_server(lambda number, body: completion("Yes.")) as (url, seen):
        done = bench(
            "run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures,
            "--limit", 4, "--decoding", "sample:temperature=0.8,top_p=0.9,seeds=3",
            "--out", tmp_path / "run",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = [request for request in seen if "seed" in request]
    assert {(request["temperature"], request["top_p"]) for request in asked} == {(0.8, 0.9)}
    assert len({request["seed"] for request in asked}) == len(asked) == 6, (
        "two distinct questions, three seeds"
    )


@pytest.fixture(scope="module")
def scene_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("decoding")
    for name, decoding in (("greedy", "greedy"), ("five", "sample:seeds=5"), ("beam", "beam:2")):
        done = bench(
            "run", "--model", "llava-tiny", "--suite", "chair,mme-hallucination", "--data",
            "scenes", "--limit", 24, "--decoding", decoding, "--out", root / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return root


def test_a_methods_run_ends_with_its_own_baseline(scene_runs):
    """Not greedy decoding for a sampled method, nor another model, list or seed count."""
    arguments = (
        "run", "--model", "llava-tiny", "--suite", "chair", "--data", "scenes", "--limit", 24,
    )  # fmt: skip
    done = bench(*arguments, "--decoding", "vcd:seeds=2", "--out", scene_runs / "drawn")
    assert done.returncode == 0, done.stderr
    assert "--decoding sample:temperature=1,seeds=2 makes one" in done.stderr
    assert "→" not in done.stdout
    done = bench(*arguments, "--decoding", "vcd:temperature=0", "--out", scene_runs / "vcd")
    assert (
        f"chair: {scene_runs / 'greedy' / 'chair'} → {scene_runs / 'vcd' / 'chair'}" in done.stdout
    )
    assert "seconds an answer" in done.stdout
    other = (*arguments[:2], "llava-tiny-b", *arguments[3:])
    done = bench(*other, "--decoding", "vcd:temperature=0", "--out", scene_runs / "other")
    assert "→" not in done.stdout and "--decoding greedy makes one" in done.stderr


def test_every_seeds_answers_are_kept_and_summed_up(scene_runs):
    run = scene_runs / "five" / "chair"
    record = json.loads((run / "run.json").read_text())
    assert record["seeds"] == 5 and record["model"]["decoding"]["seeds"] == 5
    rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 5 * 24 and len({question_of(row["sample"]) for row in rows}) == 24
    assert len((run / "answers.jsonl").read_text().splitlines()) == 5 * 24
    row = metrics(run)["chair_s", "all"]
    rates = []
    for seed in range(5):
        own = [
            r["values"]["any_hallucination"] for r in rows if r["sample"].endswith(f"#seed{seed}")
        ]
        rates.append(np.mean(own))
    assert row["by_seed"] == pytest.approx(rates) and row["value"] == pytest.approx(np.mean(rates))
    assert "5 seeds; σ is the standard deviation between them" in row["caveats"]
    assert "sampled at temperature 1" in row["caveats"]
    shown = bench("score", scene_runs / "five").stdout
    assert f"(σ {100 * np.std(rates, ddof=1):.2f})" in shown
    assert metrics(run)["chair_s", "all"] == row, "scored again, the same"


def test_groups_are_those_of_one_seed(scene_runs):
    """Both questions about an image must be right in the same seed, not in all five."""
    run = scene_runs / "five" / "mme-hallucination"
    rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    pairs: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        key = (row["values"]["image"], row["sample"].rpartition("#seed")[2])
        pairs.setdefault(key, []).append(row["values"]["correct"])
    expected = np.mean([all(right) for right in pairs.values()])
    assert metrics(run)["accuracy_plus", "all"]["value"] == pytest.approx(expected)


def test_seeds_stand_against_a_single_answer(scene_runs):
    (chair,) = [
        comparison
        for comparison in compare(scene_runs / "greedy", [scene_runs / "five"])
        if comparison.benchmark == "chair"
    ]
    assert (chair.matched, chair.only_first, chair.only_second) == (120, 0, 0)
    row = next(row for row in chair.rows if row.paired.figure.title == "CHAIRs")
    greedy = metrics(scene_runs / "greedy" / "chair")["chair_s", "all"]["value"]
    five = metrics(scene_runs / "five" / "chair")["chair_s", "all"]["value"]
    assert row.paired.difference.value == pytest.approx(five - greedy)
    same = compare(scene_runs / "five", [scene_runs / "five"])
    assert all(row.paired.difference.value == 0 for item in same for row in item.rows)


def test_a_sampled_run_goes_on_where_it_stopped(scene_runs, tmp_path):
    """Half of the answers are cut off; the same command makes the same ones again."""
    import shutil

    run = tmp_path / "again"
    shutil.copytree(scene_runs / "five", run)
    file = run / "chair" / "answers.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:60]))
    (run / "chair" / "metrics.json").unlink()
    done = bench(
        "run", "--model", "llava-tiny", "--suite", "chair", "--data", "scenes", "--limit", 24,
        "--decoding", "sample:seeds=5", "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = [json.loads(line) for line in file.read_text().splitlines()]
    assert {r["key"]: r["text"] for r in again} == {r["key"]: r["text"] for r in rows}
    other = bench(
        "run", "--model", "llava-tiny", "--suite", "chair", "--data", "scenes", "--limit", 24,
        "--decoding", "sample:seeds=4", "--out", run,
    )  # fmt: skip
    assert other.returncode == 2 and "decoding.seeds (5 → 4)" in other.stderr


def test_intervals_cover_what_images_and_seeds_would_give():
    """Images drawn from a population, five answers to each: 93-97 % cover the population's rate.

    Mentions are as in CHAIR: as many as the answer happens to make, a share of them wrong.
    """
    rng = np.random.default_rng(0)
    images, seeds, sets = 100, 5, 1500
    covered = Counter()
    clusters = np.repeat(np.arange(images), seeds)
    truth_i = 0.0
    for _ in range(200):
        rate = rng.beta(1.2, 4.8, 4000)
        mentions = 2 + rng.poisson(6 * rate)
        truth_i += (mentions * rate).sum() / mentions.sum() / 200
    for _ in range(sets):
        rate = rng.beta(1.2, 4.8, images)  # mean 0.2, widely different images
        mentions = np.repeat(2 + rng.poisson(6 * rate), seeds)
        wrong = rng.binomial(mentions, np.repeat(rate, seeds))
        any_wrong = (rng.random(len(clusters)) < np.repeat(rate, seeds)).astype(float)
        _, low, high = clustered_mean(any_wrong, clusters, (0, 1))
        covered["rate"] += low <= 0.2 <= high
        terms = np.stack([wrong, mentions], axis=1).astype(float)
        ((_, low, high),) = estimates_of_sums(
            terms, clusters, lambda sums: ratio(sums[:, 0], sums[:, 1])[:, None]
        )
        covered["ratio"] += low <= truth_i <= high
    for name in ("rate", "ratio"):
        assert 0.93 <= covered[name] / sets <= 0.97, (name, covered[name] / sets)


CODE = '''
import torch


def generate(model, input_ids, generation_config=None, rank=1, **kwargs):
    """The likeliest tokens, but the first one, which is the one of that rank."""
    kwargs.pop("tokenizer"), kwargs.pop("logits_processor")
    others = {k: v for k, v in kwargs.items() if isinstance(v, torch.Tensor)}
    first = model(input_ids=input_ids, **others).logits[:, -1].topk(rank).indices[:, -1:]
    ids = torch.cat([input_ids, first], dim=1)
    others["attention_mask"] = torch.ones_like(ids)
    generation_config.max_new_tokens -= 1
    generation_config.return_dict_in_generate = False
    return model.generate(input_ids=ids, generation_config=generation_config, **others)
'''


def decoder(folder, code):
    (folder / "custom_generate").mkdir(parents=True)
    (folder / "custom_generate" / "generate.py").write_text(code)
    return folder


def test_somebodys_own_decoding_runs_by_flag_alone(tiny, tmp_path):
    source = f"{decoder(tmp_path / 'ranked', CODE)}"
    with pytest.raises(ModelError, match=r"is code, and would run on this machine"):
        HFModel(str(tiny("llava")), {"decoding": source})
    options = {"protocol": "native", "trust_remote_code": True}
    requests = requests_for(tmp_path, images=2)
    usual = answers_of(HFModel(str(tiny("llava")), {"protocol": "native"}), requests)
    first = HFModel(str(tiny("llava")), {**options, "decoding": source})
    described = first.describe()["decoding"]
    assert described["code"] == {"source": source, "arguments": {}} and described["code_sha256"]
    assert first.describe()["engine"] == f"generate (decoding by {source})"
    answers = answers_of(first, requests)
    assert all(answers[r.key].text == usual[r.key].text for r in requests)
    assert all(answers[r.key].p_yes is None for r in requests), "its distribution is not known"
    second = answers_of(
        HFModel(str(tiny("llava")), {**options, "decoding": f"{source}:rank=2"}), requests
    )
    assert all(second[r.key].text != usual[r.key].text for r in requests)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def generate(model, **kwargs):\n    return {}['x']\n", "failed.*KeyError.*line 2"),
        ("def generate(model, **kwargs):\n    return 'Yes'\n", "gives no tokens"),
        (
            "def generate(model, input_ids, **kwargs):\n    return input_ids * 0\n",
            "gives no tokens",
        ),
        ("this is no code", "failed.*SyntaxError"),
    ],
)
def test_a_decoding_that_fails_is_one_clear_error(tiny, tmp_path, code, words):
    import re

    source = str(decoder(tmp_path / "broken", code))
    options = {"protocol": "native", "trust_remote_code": True, "decoding": source}
    model = HFModel(str(tiny("llava")), options)
    with pytest.raises(ModelError) as error:
        answers_of(model, requests_for(tmp_path, images=1))
    text = " ".join(f"{error.value.fact} {error.value.reason}".split())
    assert re.search(words, text), text


def test_a_folder_without_a_decoding_is_told(tiny, tmp_path):
    options = {"trust_remote_code": True, "decoding": str(tmp_path)}
    with pytest.raises(ModelError, match="is no decoding"):
        HFModel(str(tiny("llava")), options)
