"""Checkpoints as people have them: read as their makers meant, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from bench.errors import ModelError
from bench.files import digest_of
from bench.models.checkpoints import fingerprint
from bench.models.convert import convert
from bench.models.hf import HFModel
from tests.original_format import write_original
from tests.tiny_models import LLAVA_TEMPLATE, MAKERS
from tests.unit.test_shared_image import answers_of, requests_for


def copy_of(checkpoint: Path, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint, folder))


def change_json(file: Path, *removed: str, **fields) -> None:
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps({k: v for k, v in content.items() if k not in removed} | fields, indent=2)
    )


def change_weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def adapter_for(base: Path, folder: Path, targets: str = r".*language_model.*\.(q|v)_proj") -> Path:
    """A LoRA with random weights, saved by peft."""
    torch.manual_seed(0)
    network = hf.AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(network, LoraConfig(r=4, lora_alpha=64, target_modules=targets))
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.3)
    adapted.save_pretrained(folder)
    return folder


def renamed(file: Path, old: str, new: str) -> None:
    tensors = {name.replace(old, new): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------ weights


def test_weights_that_are_no_numbers_are_named(tiny, tmp_path):
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    for value in (float("nan"), float("inf")):
        folder = copy_of(tiny("llava"), tmp_path / f"{value}")

        def broken(tensors, value=value):
            stored = next(key for key in tensors if key.endswith("layers.1.mlp.up_proj.weight"))
            tensors[stored][3, 5] = value
            return tensors

        change_weights(folder, broken)
        with pytest.raises(ModelError, match=f"{name} holds NaN or infinite"):
            _ = HFModel(str(folder), {}).model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: {k: v for k, v in t.items() if "layers.2.mlp" not in k},
            "3 tensors are missing",
        ),
        (lambda t: t | {"model.extra.weight": torch.ones(3)}, "1 tensors have no place"),
        (
            lambda t: t | {"language_model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2)},
            "an adapter that was not merged",
        ),
        (
            lambda t: {
                k.replace("q_proj.weight", "q_proj.base_layer.weight"): v for k, v in t.items()
            },
            "an adapter that was not merged",
        ),
    ],
    ids=["missing", "unexpected", "lora beside", "base layers"],
)
def test_tensors_without_a_place_and_places_without_a_tensor_are_errors(
    tiny, tmp_path, change, words
):
    folder = copy_of(tiny("llava"), tmp_path / "model")
    change_weights(folder, change)
    with pytest.raises(ModelError, match=words):
        _ = HFModel(str(folder), {}).model


def test_a_large_file_is_hashed_once_for_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "model.safetensors"
    with file.open("wb") as content:
        content.truncate(2**25)
    first = digest_of(file)
    status = file.stat()
    with file.open("r+b") as content:
        content.write(b"x")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest_of(file) == first, "the file must not have been read again"
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest_of(file) != first
    # Without a place for it everything works, a little slower.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest_of(file) != first and len(fingerprint(tmp_path)) == 64


# ----------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    ("kind", "now", "before"),
    [
        (
            "llava",
            "base_model.model.model.language_model.",
            "base_model.model.language_model.model.",
        ),
        (
            "llava_next",
            "base_model.model.model.language_model.",
            "base_model.model.language_model.model.",
        ),
        ("qwen2_vl", "base_model.model.model.language_model.", "base_model.model.model."),
    ],
)
def test_an_adapter_saved_before_layers_were_renamed_loads(tiny, tmp_path, kind, now, before):
    adapter = adapter_for(tiny(kind), tmp_path / "new")
    old = copy_of(adapter, tmp_path / "old")
    renamed(old / "adapter_model.safetensors", now, before)
    requests = requests_for(tmp_path, images=2)
    answers = []
    for spec in (f"{tiny(kind)}+{adapter}", f"{tiny(kind)}+{old}", str(tiny(kind))):
        found = answers_of(HFModel(spec, {}), requests)
        answers.append([found[request.key].text for request in requests])
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("kept", [r"layers.0.", r"lora_A"])
def test_an_adapter_that_lacks_layers_is_refused(tiny, tmp_path, kept):
    adapter = adapter_for(tiny("llava"), tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    some = {name: tensor for name, tensor in tensors.items() if kept in name}
    assert 0 < len(some) < len(tensors)
    save_file(some, file, metadata={"format": "pt"})
    lacking = f"{len(tensors) - len(some)} of {len(tensors)} tensors are missing"
    with pytest.raises(ModelError, match=f"(?s)incomplete.*{lacking}"):
        _ = HFModel(f"{tiny('llava')}+{adapter}", {}).model


def test_an_adapter_of_nan_is_refused(tiny, tmp_path):
    adapter = adapter_for(tiny("llava"), tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="holds NaN"):
        _ = HFModel(f"{tiny('llava')}+{adapter}", {}).model


def test_an_adapter_alone_is_told_to_want_its_base(tiny, tmp_path):
    adapter = adapter_for(tiny("llava"), tmp_path / "adapter")
    with pytest.raises(ModelError, match=rf"(?s)is an adapter.*{tiny('llava')}\+{adapter}"):
        HFModel(str(adapter), {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auto_mapping": ["a"]}, "auto_mapping"),
        ({"auto_mapping": {"base_model_class": {}}}, "base_model_class"),
        ({"base_model_name_or_path": 3.5}, "base_model_name_or_path"),
    ],
)
def test_a_config_of_an_adapter_that_is_none_is_told(tiny, tmp_path, change, words):
    adapter = adapter_for(tiny("llava"), tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=rf"(?s)not as peft writes it.*{words}"):
        _ = HFModel(f"{tiny('llava')}+{adapter}", {}).model


@pytest.mark.parametrize("kind", ["llava", "smolvlm"])
def test_an_adapter_is_merged_by_convert(tiny, tmp_path, kind):
    adapter = adapter_for(tiny(kind), tmp_path / "adapter", r".*(q|v)_proj")
    convert(f"{tiny(kind)}+{adapter}", tmp_path / "merged")
    requests = requests_for(tmp_path, images=2)
    merged = HFModel(str(tmp_path / "merged"), {})
    expected = answers_of(HFModel(f"{tiny(kind)}+{adapter}", {}), requests)
    answers = answers_of(merged, requests)
    assert [answers[key].text for key in expected] == [expected[key].text for key in expected]
    plain = answers_of(HFModel(str(tiny(kind)), {}), requests)
    assert any(plain[key].text != expected[key].text for key in expected)


# --------------------------------------------------------------------------------------- processors


@pytest.mark.parametrize("kind", ["llava", "llava_next", "llava_onevision"])
def test_processors_saved_by_old_libraries_are_completed_from_the_config(tiny, tmp_path, kind):
    folder = copy_of(tiny(kind), tmp_path / "model")
    lacking = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    if kind == "llava_onevision":
        lacking = ("num_image_tokens", "vision_feature_select_strategy")
    change_json(folder / "processor_config.json", *lacking)
    requests = requests_for(tmp_path, images=2)
    expected = answers_of(HFModel(str(tiny(kind)), {}), requests)
    answers = answers_of(HFModel(str(folder), {}), requests)
    assert not any(answer.error for answer in answers.values())
    assert [answers[key].text for key in expected] == [expected[key].text for key in expected]


# ---------------------------------------------------------------------------------------- templates


def without_template(checkpoint: Path, folder: Path) -> Path:
    copy = copy_of(checkpoint, folder)
    (copy / "chat_template.jinja").unlink()
    return copy


@pytest.mark.parametrize("kind", ["smolvlm", "qwen2_5_vl", "internvl", "llava_next", "gemma3"])
def test_a_family_that_was_taught_a_conversation_needs_its_template(tiny, tmp_path, kind):
    with pytest.raises(ModelError, match="has no chat template"):
        HFModel(str(without_template(tiny(kind), tmp_path / "model")), {})


def test_the_tokenizers_template_is_taken_if_the_processor_has_none(tiny, tmp_path):
    """Of images in parts, as llava-hf's first uploads, and of a plain text, as a text model's."""
    expected = HFModel(str(tiny("llava_next")), {}).prompter.text("Is it red?")
    in_parts = without_template(tiny("llava_next"), tmp_path / "parts")
    change_json(in_parts / "tokenizer_config.json", chat_template=LLAVA_TEMPLATE)
    assert HFModel(str(in_parts), {}).prompter.text("Is it red?") == expected
    plain = without_template(tiny("llava_next"), tmp_path / "plain")
    template = (
        "{% for message in messages %}{{ message['role'].upper() + ': ' + message['content'] + ' ' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    change_json(plain / "tokenizer_config.json", chat_template=template)
    text = HFModel(str(plain), {}).prompter.text("Is it red?")
    assert text == "USER: <image>\nIs it red? ASSISTANT:"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['content'][1]['text'] }}{% endfor %}", "cannot ask about an"),
        (
            "<image><image>{% for m in messages %}{{ m['content'][1]['text'] }}{% endfor %}",
            "cannot ask",
        ),
        ("<image> hello", "cannot ask about an image"),
        ("{{ messages[0]['content'] | no_such_filter }}", "cannot be rendered"),
        ("{% for", "cannot be rendered"),
        ("{% for a in range(10**9) %}{% endfor %}", "cannot be rendered"),
        ("{{ messages * 10**18 }}", "cannot be rendered"),
        ("{{ 'x' * (3 * 2**30) }}", "MemoryError: it asked for more than 1 GiB"),
        (
            "{% set n = namespace(s='x') %}{% for a in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
            "MemoryError",
        ),
    ],
)
def test_a_template_that_cannot_ask_is_refused(tiny, tmp_path, template, words):
    folder = copy_of(tiny("llava_next"), tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=words):
        HFModel(str(folder), {})


def test_a_template_that_does_not_end_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.models.templates.LONGEST", 0.5)
    folder = copy_of(tiny("llava_next"), tmp_path / "model")
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(loops)
    with pytest.raises(ModelError, match=r"TimeoutError: it did not end within 0\.5 seconds"):
        HFModel(str(folder), {})


@pytest.mark.parametrize("kind", sorted(MAKERS.keys() - {"llava", "pixtral"}))
def test_llavas_protocol_is_for_llava(tiny, kind):
    with pytest.raises(ModelError, match=r"is LLaVA-1.5's, and this is a"):
        HFModel(str(tiny(kind)), {"protocol": "llava"})


def test_what_needs_torchvision_says_so(tiny):
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        pytest.skip("torchvision is installed")
    folder = copy_of(tiny("llava"), tiny("llava").parent / "as-pixtral")
    change_json(folder / "processor_config.json", processor_class="PixtralProcessor")
    with pytest.raises(ModelError, match="pip install torchvision"):
        HFModel(str(folder), {})


# ------------------------------------------------------------------------------------------ own code


@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoConfig": "c.Config", "AutoModelForCausalLM": "modeling_x.XForCausalLM"},
        {"AutoConfig": "c.Config", "AutoModel": "modeling_x.XChatModel"},
    ],
)
@pytest.mark.parametrize("flag", [False, True])
def test_a_model_of_its_own_code_is_refused_with_its_way_out(tmp_path, auto_map, flag):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "x_chat", "auto_map": auto_map}))
    with pytest.raises(ModelError, match=r"(?s)of its own code.*modeling_x\.X.*NAME-hf"):
        HFModel(str(folder), {"trust_remote_code": flag})


# ---------------------------------------------------------------------------- LLaVA's original format


def test_a_lora_of_llavas_own_takes_its_bases_tokenizer(tmp_path):
    write_original(tmp_path, lora=True)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / "adapter" / name).unlink()
    model = HFModel(str(tmp_path / "adapter"), {})
    expected = HFModel(str(tmp_path / "llava"), {}).prompter.tokenizer
    text = "Is there a dog in the image?"
    assert model.prompter.tokenizer(text)["input_ids"] == expected(text)["input_ids"]
    assert answers_of(model, requests_for(tmp_path, images=1))


def test_a_base_that_lies_elsewhere_is_given_by_hand(tmp_path):
    write_original(tmp_path, lora=True)
    expected = answers_of(HFModel(str(tmp_path / "adapter"), {}), requests_for(tmp_path, images=1))
    file = tmp_path / "adapter" / "adapter_config.json"
    change_json(file, base_model_name_or_path="/data/ckpt/vicuna-7b-v1.5")
    with pytest.raises(
        ModelError, match=r"(?s)base_model_name_or_path in .*adapter_config.json.*--base"
    ):
        HFModel(str(tmp_path / "adapter"), {})
    model = HFModel(str(tmp_path / "adapter"), {"base": str(tmp_path / "llava")})
    answers = answers_of(model, requests_for(tmp_path, images=1))
    assert [answers[key].text for key in expected] == [expected[key].text for key in expected]
    with pytest.raises(ModelError, match=r"Give it alone: --model .*adapter, and --base BASE"):
        HFModel(f"{tmp_path / 'llava'}+{tmp_path / 'adapter'}", {})


def test_a_tower_of_another_machine_is_found_beside_or_named(tmp_path):
    write_original(tmp_path)
    file = tmp_path / "llava" / "config.json"
    change_json(file, mm_vision_tower="/mnt/models/tower")
    assert HFModel(str(tmp_path / "llava"), {}).checkpoint.tower == tmp_path.resolve() / "tower"
    change_json(file, mm_vision_tower="/mnt/models/clip-vit-large-patch14-336")
    with pytest.raises(
        ModelError, match=r"(?s)mm_vision_tower in .*config\.json is /mnt/models/clip"
    ):
        HFModel(str(tmp_path / "llava"), {})


def test_a_large_model_says_that_it_is_loading_and_a_small_one_nothing(tiny, monkeypatch, capsys):
    folder = tiny("llava")
    capsys.readouterr()
    assert HFModel(str(folder), {}).model is not None
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("bench.models.hf.LONG_TO_LOAD", 1000)
    model = HFModel(str(folder), {})
    assert capsys.readouterr().err == "", "nothing is loaded before it is asked"
    assert model.model is not None
    assert "llava: loading 0.0 GB of weights" in capsys.readouterr().err
