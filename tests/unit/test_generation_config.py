"""What a checkpoint's own decoding asks for is done, by the engine or by `generate`, or told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers as hf

from bench.errors import ModelError
from bench.models.generation_config import ELSEWHERE, not_applied
from bench.models.hf import HFModel
from tests.tiny_models import llava, save
from tests.unit.test_shared_image import answers_of, by_generate, requests_for


def with_decoding(checkpoint: Path, folder: Path, **fields) -> Path:
    """A copy of a checkpoint whose generation config has these fields too."""
    shutil.copytree(checkpoint, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"no_repeat_ngram_size": 1},
        {"begin_suppress_tokens": list(range(30, 400))},
        {"exponential_decay_length_penalty": [2, 1.5]},
        {"forced_eos_token_id": 2},
        {"min_new_tokens": 12},
        {"sequence_bias": [[[300], 4.0]]},
    ],
)
def test_what_the_engine_does_not_apply_goes_through_generate(tiny, tmp_path, fields):
    model = HFModel(str(with_decoding(tiny("llava"), tmp_path / "model", **fields)), {})
    assert (
        model.describe()["engine"] == f"generate (its generation config sets {', '.join(fields)})"
    )
    requests = requests_for(tmp_path, images=2)
    answers = answers_of(model, requests)
    plain = HFModel(str(tiny("llava")), {})
    moved = 0
    for request in requests:
        text = by_generate(model, request, **fields)[0]
        moved += text != by_generate(plain, request)[0]
        assert answers[request.key].text == text
    assert moved, "the field must have changed an answer"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.2, "top_p": 0.9, "top_k": 50, "do_sample": True},
        {"guidance_scale": 1, "min_length": 0, "suppress_tokens": []},
        {"max_new_tokens": 3, "use_cache": True, "cache_implementation": "dynamic"},
    ],
)
def test_what_changes_no_greedy_answer_keeps_the_engine(tiny, tmp_path, fields):
    model = HFModel(str(with_decoding(tiny("llava"), tmp_path / "model", **fields)), {})
    assert model.describe()["engine"] == "shared-image"
    requests = requests_for(tmp_path, images=1)
    expected = answers_of(HFModel(str(tiny("llava")), {}), requests)
    answers = answers_of(model, requests)
    assert [answers[key].text for key in expected] == [expected[key].text for key in expected]


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_a_checkpoint_that_likes_beams_is_asked_greedily_and_says_so(tiny, tmp_path, kind):
    folder = with_decoding(tiny(kind), tmp_path / "model", num_beams=3, length_penalty=0.5)
    model = HFModel(str(folder), {})
    decoding = model.describe()["decoding"]
    assert decoding["greedy"] and decoding["not_followed"] == {
        "num_beams": 3,
        "length_penalty": 0.5,
    }
    requests = requests_for(tmp_path, images=2)
    expected = answers_of(HFModel(str(tiny(kind)), {}), requests)
    answers = answers_of(model, requests)
    assert [answers[key].text for key in expected] == [expected[key].text for key in expected]
    assert all(answer.p_yes is not None for answer in answers.values())


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_stop_strings_end_answers(tiny, tmp_path, kind):
    requests = requests_for(tmp_path, images=2)
    plain = answers_of(HFModel(str(tiny(kind)), {}), requests)
    letter = next(iter(plain.values())).text[3]
    folder = with_decoding(tiny(kind), tmp_path / "model", stop_strings=[letter])
    answers = answers_of(HFModel(str(folder), {}), requests)
    stopped = 0
    for key, answer in answers.items():
        where = plain[key].text.find(letter)
        if where >= 0:
            assert plain[key].text.startswith(answer.text[: where + 1])
            assert answer.finish == "stop"
            stopped += answer.tokens < plain[key].tokens
    assert stopped


@pytest.mark.parametrize(
    ("text_config", "more", "engine"),
    [
        (hf.MistralConfig, {"sliding_window": None}, "shared-image"),
        (hf.Qwen2Config, {}, "shared-image"),
        (hf.Qwen3Config, {"head_dim": 16}, "shared-image"),
        (hf.GemmaConfig, {"head_dim": 16}, "shared-image"),
        # Windows of eight tokens: a question reaches behind its own first words, not to the image.
        (hf.MistralConfig, {"sliding_window": 8}, "shared-image"),
        (
            hf.Qwen2Config,
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "shared-image",
        ),
        (
            hf.Qwen3Config,
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
            | {"head_dim": 16},
            "shared-image",
        ),
        (hf.Phi3Config, {}, "generate (its language model, phi3, is not among those checked)"),
    ],
)
def test_other_language_models_inside_llava(tmp_path, text_config, more, engine):
    folder = tmp_path / "model"
    folder.mkdir()
    save(*llava(folder, text_config, **more), folder)
    model = HFModel(str(folder), {})
    assert model.describe()["engine"] == engine
    requests = requests_for(tmp_path, images=2)
    answers = answers_of(model, requests)
    assert len({answer.text for answer in answers.values()}) > 2
    for request in requests:
        assert answers[request.key].text == by_generate(model, request)[0]


def test_every_field_of_transformers_has_its_place():
    """What is left are fields that `generate` alone applies; a new one must be looked at."""
    fields = {name for name in hf.GenerationConfig().__dict__ if not name.startswith("_")}
    assert fields - ELSEWHERE == {
        "bad_words_ids",
        "begin_suppress_tokens",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "guidance_scale",
        "max_time",
        "min_length",
        "min_new_tokens",
        "no_repeat_ngram_size",
        "remove_invalid_values",
        "sequence_bias",
        "stop_strings",
        "suppress_tokens",
        "token_healing",
        "watermarking_config",
    }
    config = hf.GenerationConfig(forced_bos_token_id=0, min_length=0, guidance_scale=1.5)
    assert not_applied(config) == ["forced_bos_token_id", "guidance_scale"]


def test_a_broken_generation_config_is_named(tiny, tmp_path):
    folder = shutil.copytree(tiny("llava"), tmp_path / "model")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json cannot be read"):
        HFModel(str(folder), {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eos_token_id", "a\x00b"),
        ("eos_token_id", [2, None]),
        ("eos_token_id", -1),
        ("repetition_penalty", "1.2"),
        ("repetition_penalty", True),
        ("repetition_penalty", 1e400),
    ],
)
def test_an_impossible_end_or_penalty_is_told(tiny, tmp_path, field, value):
    folder = with_decoding(tiny("llava"), tmp_path / "model", **{field: value})
    with pytest.raises(ModelError, match=rf"generation_config\.json holds no possible {field}"):
        HFModel(str(folder), {})


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_what_is_drawn_for_an_answer_does_not_depend_on_its_batch(tiny, tmp_path, kind):
    requests = requests_for(tmp_path)
    model = HFModel(str(tiny(kind)), {"temperature": 1.0, "seed": 3})
    together = answers_of(model, requests)
    alone = {}
    for request in requests:
        alone |= answers_of(model, [request])
    assert [alone[key].text for key in together] == [together[key].text for key in together]
    other = HFModel(str(tiny(kind)), {"temperature": 1.0, "seed": 4})
    assert any(answers_of(other, requests)[key].text != together[key].text for key in together)
