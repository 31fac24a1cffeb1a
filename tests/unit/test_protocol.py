"""The `llava` protocol against independent computations of what LLaVA's own evaluation feeds its
1.5 models."""

from __future__ import annotations

import numpy as np
import pytest
import sentencepiece
from PIL import Image

from bench.data.images import read_image
from bench.errors import ModelError
from bench.models.hf import HFModel
from bench.models.protocol import LLAVA, NATIVE, read_protocol
from bench.types import Request
from tests.conftest import draw

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
QUESTION = "Is there a snowboard in the image?\nAnswer the question using a single word or phrase."
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def expected_pixels(image: Image.Image, side: int) -> np.ndarray:
    """expand2square by array copying, Pillow's bicubic resize, CLIP's normalisation: (3, side,
    side)."""
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    size = max(height, width)
    square = np.empty((size, size, 3), np.uint8)
    square[:] = (122, 116, 104)  # CLIP's mean × 255, cut to integers
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = pixels
    small = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    return ((np.asarray(small) / 255.0 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("side", [56, 336])
def test_pixels_of_non_square_photographs(tiny, shared, side):
    model = HFModel(str(tiny("llava")), {"protocol": "llava"})
    images = model.processor.image_processor
    images.size, images.crop_size = {"shortest_edge": side}, {"height": side, "width": side}
    photographs = sorted((shared / "images" / "coco").glob("*.jpg"))
    shapes = {read_image(path).size for path in photographs}
    assert any(w > h for w, h in shapes) and any(w < h for w, h in shapes)
    for path in photographs:
        image = read_image(path)
        mine = model.prompter.encode(image, [QUESTION]).pixels["pixel_values"][0].numpy()
        assert np.abs(mine - expected_pixels(image, side)).max() < 1e-6


def test_tokens_are_those_of_llavas_own_tokenisation(tiny, tmp_path):
    """BOS, the text before the image, the image, the text after it, each encoded by itself with
    sentencepiece."""
    folder = tiny("llava")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    model = HFModel(str(folder), {"protocol": "llava"})
    image = read_image(draw(tmp_path / "a.png", 1))
    token = model.processor.image_token_id
    for question in (QUESTION, "Describe this image in detail.", "  Héllo “wörld”\n\nand 12 dogs?"):
        expected = [pieces.bos_id(), *pieces.encode(f"{SYSTEM} USER: "), *[token] * 16]
        expected += pieces.encode(f"\n{question} ASSISTANT:")
        assert model.prompter.encode(image, [question]).ids == [expected]


def test_llava_is_the_default_for_vicuna_checkpoints_only(tiny):
    assert HFModel(str(tiny("llava")), {}).protocol == LLAVA
    for kind in ("llava_next", "qwen2_5_vl", "paligemma"):
        assert HFModel(str(tiny(kind)), {}).protocol == NATIVE


def test_native_is_what_apply_chat_template_makes(tiny, tmp_path):
    """The checkpoint's own template and processor, BOS not doubled, also where prompts share one
    processed image."""
    image = read_image(draw(tmp_path / "a.png", 1, (120, 70)))
    for kind in ("llava", "llava_next", "llava_onevision", "qwen2_5_vl", "idefics3", "internvl"):
        model = HFModel(str(tiny(kind)), {"protocol": "native"})
        prompts = [QUESTION, "What color is the bus?", "Is there a dog?"]
        mine = model.prompter.encode(image, prompts)
        for ids, prompt in zip(mine.ids, prompts, strict=True):
            content = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
            official = model.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            assert ids == official["input_ids"][0].tolist(), kind
            assert (mine.pixels["pixel_values"] == official["pixel_values"]).all()


def test_a_file_changes_a_built_in_protocol(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: llava\nsuffix: {pope: Please answer yes or no.}\nmax_tokens: {pope: 16}\n"
    )
    protocol = read_protocol(str(file))
    assert (protocol.name, protocol.system, protocol.image) == ("mine", LLAVA.system, "pad")
    assert (protocol.suffix, protocol.max_tokens) == (
        {"pope": "Please answer yes or no."},
        {"pope": 16},
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image: squash\nsufix: {}\n", ["image", "sufix"]),
        ("base: lava\n", ["base"]),
        ("- a\n", ["base"]),
        ("a: [", ["YAML"]),
    ],
)
def test_a_bad_file_reports_all_its_faults_at_once(tmp_path, content, words):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ModelError) as error:
        read_protocol(str(file))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("kind", ["llava", "gemma3", "qwen2_5_vl"])
def test_a_special_token_in_a_question_is_refused_by_name(tiny, tmp_path, kind):
    """It would be a place for an image, or the end of the conversation, instead of text."""
    model = HFModel(str(tiny(kind)), {})
    path = draw(tmp_path / "a.png", 1)
    end = model.processor.tokenizer.eos_token
    texts = [
        QUESTION,
        f"What is {model.processor.image_token} here?",
        f"Say {end} twice.",
        "A dog?",
    ]
    requests = [Request(text, path.name, path, text, text, 4, True, ()) for text in texts]
    answers = {}
    for batch in model.answer(requests, frozenset()):
        answers |= {request.key: answer for request, answer in batch}
    assert answers[QUESTION].error is None and answers["A dog?"].error is None
    assert f"holds {model.processor.image_token!r}" in answers[texts[1]].error
    assert f"holds {end!r}" in answers[texts[2]].error
    plain = [one for one in requests if answers[one.key].error is None]
    for batch in model.answer(plain, frozenset()):
        for request, answer in batch:
            assert answer.text == answers[request.key].text
