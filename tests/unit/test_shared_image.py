"""The engine's answers are `generate`'s, token for token, on every architecture that it serves."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.data.images import read_image
from bench.errors import DataError, ModelError
from bench.models.hf import SERVED, HFModel
from bench.types import Answer, Request
from tests.conftest import ROOT, bench, draw

QUESTIONS = [
    f"Is there a {item} in the image?" for item in ("dog", "cat", "car", "pizza", "wine glass")
]
QUESTIONS += ["What color is the bus?", "Describe this image in detail."]
FALLBACK = ("paligemma", "paligemma2", "mllama")
OTHERS = (
    "llava_next_mistral",
    "pixtral",
    "internvl3_5",
    "ministral3",
)  # of architectures that are served


def requests_for(folder: Path, images: int = 4, max_tokens: int = 14) -> list[Request]:
    requests = []
    for number in range(images):
        path = draw(
            folder / f"{number}.png", number, (90 + 40 * (number % 2), 60 + 35 * (number % 3))
        )
        for text in QUESTIONS[: 3 + number]:
            requests.append(
                Request(f"{number} {text}", path.name, path, text, text, max_tokens, True, ())
            )
    return requests


def by_generate(model: HFModel, request: Request, **more) -> tuple[str, list[int], float]:
    """One prompt through the checkpoint's own processor and `generate`; its first logits give
    P(yes)."""
    image = read_image(request.path)
    if model.protocol.conversation == "template":
        inputs = model.prompter.whole(model.prompter.prepare(image), request.prompt)
        inputs.pop("labels", None)
    else:
        encoded = model.prompter.encode(image, [request.prompt])
        inputs = {**encoded.pixels, "input_ids": torch.tensor(encoded.ids)}
    length = inputs["input_ids"].shape[1]
    more = {"do_sample": False, "max_new_tokens": request.max_tokens, "output_logits": True, **more}
    output = model.model.generate(**inputs, return_dict_in_generate=True, **more)
    tokens = output.sequences[0, length:].tolist()
    p_yes = output.logits[0].softmax(-1)[0, list(model.settings.yes)].sum().item()
    return model.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip(), tokens, p_yes


def answers_of(model: HFModel, requests: list[Request]) -> dict[str, Answer]:
    return {
        request.key: answer
        for batch in model.answer(requests, frozenset())
        for request, answer in batch
    }


@pytest.mark.parametrize("kind", sorted({*SERVED, *FALLBACK, *OTHERS}))
def test_answers_and_probabilities_equal_generate(tiny, tmp_path, kind):
    model = HFModel(str(tiny(kind)), {"protocol": "native"})
    assert model.describe()["engine"].startswith("generate" if kind in FALLBACK else "shared-image")
    requests = requests_for(tmp_path)
    answers = answers_of(model, requests)
    assert len({answer.text for answer in answers.values()}) > len(requests) // 3, (
        "the check would be empty"
    )
    for request in requests:
        text, tokens, p_yes = by_generate(model, request)
        answer = answers[request.key]
        ended = tokens[-1] in model.settings.eos
        assert (answer.text, answer.tokens) == (text, len(tokens) - ended)
        assert answer.finish == ("stop" if ended else "length")
        assert math.isclose(answer.p_yes, p_yes, abs_tol=1e-5)


def test_the_llava_protocol_is_exact_too(tiny, tmp_path):
    model = HFModel(str(tiny("llava")), {"protocol": "llava"})
    requests = requests_for(tmp_path)
    answers = answers_of(model, requests)
    assert all(answers[request.key].text == by_generate(model, request)[0] for request in requests)


def test_a_repetition_penalty_is_applied_as_generate_does(tiny, tmp_path):
    model = HFModel(str(tiny("qwen2_5_vl")), {})
    model.generation_config.repetition_penalty = 1.3
    requests = requests_for(tmp_path)
    answers = answers_of(model, requests)
    changed = 0
    for request in requests:
        text = by_generate(model, request, repetition_penalty=1.3)[0]
        changed += text != by_generate(model, request, repetition_penalty=1.0)[0]
        assert answers[request.key].text == text
    assert changed, "the penalty must have moved an answer"


def limit_memory(network, tokens: int) -> list[int]:
    """A GPU's memory, the only boundary that cannot exist here.

    A forward pass over more than `tokens` tokens fails as it does on a GPU. Returns the sizes of
    the passes that failed.
    """
    failed: list[int] = []

    def check(module, arguments, named):
        size = named["input_ids"].numel()
        if size > tokens:
            failed.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    network.register_forward_pre_hook(check, with_kwargs=True)
    return failed


def largest_pass(network) -> list[int]:
    """The sizes of all forward passes from now on, in tokens."""
    sizes: list[int] = []

    def record(module, arguments, named):
        sizes.append(named["input_ids"].numel())

    network.register_forward_pre_hook(record, with_kwargs=True)
    return sizes


@pytest.mark.parametrize("kind", ["llava", "paligemma", "paligemma2"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_out_of_memory_halves_the_batch_and_changes_no_answer(tiny, tmp_path, kind, share):
    """From room for one question only to room for nearly all."""
    requests = requests_for(tmp_path)
    roomy = HFModel(str(tiny(kind)), {})
    sizes = largest_pass(roomy.model)
    for request in requests:
        answers_of(roomy, [request])
    alone = max(sizes)
    sizes.clear()
    whole = answers_of(roomy, requests)
    model = HFModel(str(tiny(kind)), {})
    failed = limit_memory(model.model, int(alone + share * (max(sizes) - alone)))
    halved = answers_of(model, requests)
    assert {key: a.text for key, a in halved.items()} == {key: a.text for key, a in whole.items()}
    assert 0 < len(failed) < len(sizes), "it learns how much fits"


def test_one_question_that_does_not_fit_is_a_clear_error(tiny, tmp_path):
    model = HFModel(str(tiny("llava")), {})
    limit_memory(model.model, 0)
    with pytest.raises(ModelError, match="does not fit in the memory"):
        answers_of(model, requests_for(tmp_path, images=1))


def test_batches_do_not_depend_on_what_is_done(tiny, tmp_path):
    """A resumed run computes the very same batches, so its probabilities are the same to the last
    bit."""
    model = HFModel(str(tiny("llava")), {})
    model.max_prompts = 8
    requests = requests_for(tmp_path)
    batches = list(model.answer(requests, frozenset()))
    done = frozenset(request.key for request, _ in batches[0])
    again = list(model.answer(requests, done))
    assert [[request.key for request, _ in batch] for batch in again] == [
        [r.key for r, _ in b] for b in batches[1:]
    ]
    bits = [(a.p_yes, a.p_no, a.text) for batch in batches[1:] for _, a in batch]
    assert bits == [(a.p_yes, a.p_no, a.text) for batch in again for _, a in batch]


def test_a_broken_image_costs_its_own_questions_only(tiny, tmp_path):
    requests = requests_for(tmp_path)
    sound = answers_of(HFModel(str(tiny("llava")), {}), requests)
    broken = requests[0].path
    broken.write_bytes(broken.read_bytes()[:60])
    answers = answers_of(HFModel(str(tiny("llava")), {}), requests)
    for request in requests:
        if request.path == broken:
            assert "cannot be read" in answers[request.key].error
        else:
            assert answers[request.key].text == sound[request.key].text


def test_an_image_that_the_processor_refuses_costs_its_own_questions_only(tiny, tmp_path):
    """Qwen's processor takes no side ratio of 200 or more."""
    requests = requests_for(tmp_path, images=2)
    Image.new("RGB", (2400, 11)).save(requests[0].path)
    answers = answers_of(HFModel(str(tiny("qwen2_5_vl")), {}), requests)
    for request in requests:
        refused = request.path == requests[0].path
        assert ("cannot be prepared (ValueError" in (answers[request.key].error or "")) == refused


def test_a_processor_that_raises_whatever_it_likes_costs_answers_and_no_run(tiny, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny("llava"), folder)
    config = json.loads((folder / "processor_config.json").read_text())
    config["image_processor"]["size"] = 10**40
    (folder / "processor_config.json").write_text(json.dumps(config))
    requests = requests_for(tmp_path, images=2)
    answers = answers_of(HFModel(str(folder), {}), requests)
    for request in requests:
        assert "cannot be prepared (OverflowError" in answers[request.key].error
    # A training has no use for it: it ends, in words.
    prompter = HFModel(str(folder), {}).prompter
    with pytest.raises(DataError, match="OverflowError"):
        prompter.encode(Image.open(requests[0].path), [requests[0].prompt])


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llava", {}),
        ("llava", {"temperature": 1.0}),
        ("llava", {"decoding": "beam:2"}),
        (FALLBACK[0], {}),
    ],
)
def test_nan_is_no_answer(tiny, tmp_path, family, options):
    """As float16 gives where activations overflow: the likeliest token would be any."""
    requests = requests_for(tmp_path, images=2)
    model = HFModel(str(tiny(family)), {"protocol": "native", **options})
    model.processor.image_processor.image_mean = [math.nan, 0.5, 0.5]
    answers = answers_of(model, requests)
    for request in requests:
        assert "computes NaN" in answers[request.key].error
        assert answers[request.key].text == ""


def test_drawn_answers_depend_on_their_seed_alone(tiny, tmp_path):
    requests = requests_for(tmp_path)
    model = HFModel(str(tiny("llava")), {"temperature": 1.0, "seed": 3})
    assert model.describe()["decoding"]["temperature"] == 1.0
    together = answers_of(model, requests)
    model.max_prompts = 2
    assert {key: answer.text for key, answer in answers_of(model, requests).items()} == {
        key: answer.text for key, answer in together.items()
    }
    other = HFModel(str(tiny("llava")), {"temperature": 1.0, "seed": 4})
    assert any(
        answer.text != together[key].text for key, answer in answers_of(other, requests).items()
    )


def test_tokens_are_drawn_as_often_as_the_model_says(tiny, tmp_path):
    from scipy.stats import chisquare

    path, temperature, draws = draw(tmp_path / "0.png", 0), 0.7, 500
    model = HFModel(str(tiny("llava")), {"temperature": temperature})
    requests_asked = [
        Request(str(n), path.name, path, "?", QUESTIONS[0], 1, True, ()) for n in range(draws)
    ]
    texts = [answer.text for answer in answers_of(model, requests_asked).values()]
    image = model.prompter.whole(model.prompter.prepare(read_image(path)), QUESTIONS[0])
    if model.protocol.conversation != "template":
        encoded = model.prompter.encode(read_image(path), [QUESTIONS[0]])
        image = {**encoded.pixels, "input_ids": torch.tensor(encoded.ids)}
    with torch.inference_mode():
        p = (model.model(**image).logits[0, -1].double() / temperature).softmax(-1)
    tokenizer = model.processor.tokenizer
    expected: dict[str, float] = {}
    for token, share in enumerate(p.tolist()):
        text = tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[text] = expected.get(text, 0.0) + share * draws
    common = [text for text, number in expected.items() if number >= 8]
    assert len(common) > 3, "the check would be empty"
    seen = [texts.count(text) for text in common]
    rest = draws - sum(seen), draws - sum(expected[text] for text in common)
    assert (
        chisquare([*seen, rest[0]], [*(expected[text] for text in common), rest[1]]).pvalue > 1e-4
    )


def beyond_the_weights(folder, word):
    """Gives a word of llava-tiny's tokenizer an id that its weights have no row for."""
    content = json.loads((folder / "tokenizer.json").read_text())
    assert word in content["model"]["vocab"]
    content["model"]["vocab"][word] = 99_999
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("packed", [True, False])
def test_a_tokenizer_of_another_checkpoint_is_told_where_a_question_needs_it(tmp_path, packed):
    folder = shutil.copytree(ROOT / "bench" / "scenes" / "llava-tiny", tmp_path / "mixed")
    beyond_the_weights(folder, "image")
    options = ("--suite", "pope", "--data", "scenes", "--limit", "2", "--out", tmp_path / "out")
    decoding = () if packed else ("--decoding", "beam:2")
    done = bench("run", "--model", folder, *options, *decoding)
    assert done.returncode == 2, done.stderr
    assert "'image' as 99999, and its weights have 159 tokens" in done.stderr


def test_a_word_that_the_model_cannot_say_has_no_probability(tmp_path):
    """Other forms of yes still count; without any there is no P(yes)."""
    folder = shutil.copytree(ROOT / "bench" / "scenes" / "llava-tiny", tmp_path / "mixed")
    beyond_the_weights(folder, "Yes")
    options = ("--suite", "pope", "--data", "scenes", "--limit", "2", "--out", tmp_path / "out")
    done = bench("run", "--model", folder, *options)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/pope/answers.jsonl").open()]
    assert rows and all(row["p_yes"] is None for row in rows)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", {"image_token_index": 5}, "do not fit together"),
        (
            "processor_config.json",
            {
                "image_processor": {
                    "image_processor_type": "CLIPImageProcessor",
                    "crop_size": {"height": 96, "width": 96},
                    "size": {"shortest_edge": 96},
                }
            },
            "refuses what its processor",
        ),
    ],
)
def test_files_of_two_checkpoints_are_told(tmp_path, file, change, words):
    """Each file is right, and together they are not."""
    folder = shutil.copytree(ROOT / "bench" / "scenes" / "llava-tiny", tmp_path / "mixed")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    options = ("--suite", "pope", "--data", "scenes", "--limit", "2", "--out", tmp_path / "out")
    done = bench("run", "--model", folder, *options)
    assert done.returncode == 2 and words in done.stderr, done.stderr
