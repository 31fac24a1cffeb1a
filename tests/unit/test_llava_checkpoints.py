"""Checkpoints in LLaVA's original format, written as LLaVA's own code leaves them, against an
independent forward."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from bench.data.images import read_image
from bench.errors import ModelError
from bench.models.hf import HFModel
from bench.models.protocol import LLAVA
from tests.conftest import bench, draw
from tests.original_format import ROWS, write_json, write_original

QUESTION = "Is there a dog in the image?\nAnswer the question using a single word or phrase."


@torch.inference_mode()
def expected(parts: dict, ids: list[int], image: int, pixels: torch.Tensor) -> torch.Tensor:
    """LLaVA's forward from transformers' CLIP and Llama: features of layer -2 without CLS, spliced
    at the image."""
    features = parts["clip"](pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    before, after = ids[: ids.index(image)], ids[len(ids) - ids[::-1].index(image) :]
    embed = parts["llama"].get_input_embeddings()
    spliced = torch.cat(
        [embed(torch.tensor([before])), parts["projector"](features), embed(torch.tensor([after]))],
        1,
    )
    return parts["llama"](inputs_embeds=spliced).logits


@pytest.mark.parametrize(
    "kind",
    [{}, {"tower_inside": True}, {"safetensors": True}, {"lora": True}],
    ids=["bin", "tower-inside", "safetensors", "lora"],
)
def test_logits_are_those_of_llavas_own_forward(kind, tmp_path):
    parts = write_original(tmp_path, **kind)
    if kind.get("tower_inside"):
        for file in (tmp_path / "tower").glob("*.safetensors"):
            file.write_bytes(b"")  # the weights inside are taken
    folder = tmp_path / ("adapter" if kind.get("lora") else "llava")
    model = HFModel(str(folder), {})
    assert model.protocol == LLAVA and model.config.model_type == "llava" and not model.not_served
    encoded = model.prompter.encode(read_image(draw(tmp_path / "a.png", 3)), [QUESTION])
    (ids,), pixels = encoded.ids, encoded.pixels["pixel_values"]
    with torch.inference_mode():
        logits = model.model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits
    wanted = expected(parts, ids, model.processor.image_token_id, pixels)
    assert logits.shape == (1, len(ids), ROWS + 2) and wanted.abs().max() > 1
    assert (logits[..., :ROWS] - wanted).abs().max() < 1e-4
    assert torch.equal(logits[..., ROWS:], logits[..., :1].expand(-1, -1, 2)), (
        "added ids are never likelier than <unk>"
    )
    if not kind.get("tower_inside"):
        assert len(model.describe()["weights_sha256"]) == 64


def test_convert_writes_what_transformers_loads_and_answers_stay(pictures, tmp_path):
    write_original(tmp_path, lora=True)
    done = bench("convert", tmp_path / "adapter", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "new").glob("*.bin"))
    model, plain = HFModel(str(tmp_path / "new"), {}), HFModel(str(tmp_path / "adapter"), {})
    assert type(model.checkpoint) is not type(plain.checkpoint)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], value), name
    answers = []
    for folder in ("new", "adapter"):
        out = tmp_path / f"run-{folder}"
        done = bench(
            "run", "--model", tmp_path / folder, "--suite", "pope", "--data", pictures, "--out", out
        )
        assert done.returncode == 0, done.stderr
        rows = map(json.loads, (out / "pope" / "answers.jsonl").read_text().splitlines())
        answers.append([(row["key"], row["text"], row["p_yes"]) for row in rows])
    assert answers[0] == answers[1]
    for source, target, words in (
        (tmp_path / "new", tmp_path / "x", "neither in LLaVA's original format"),
        (tmp_path / "adapter", tmp_path / "new", "is not empty"),
    ):
        done = bench("convert", source, target)
        assert done.returncode == 2 and words in done.stderr


@pytest.mark.parametrize("dtype", ["cat", "half precision"])
def test_a_number_format_that_is_none_is_told(tmp_path, dtype):
    write_original(tmp_path)
    file = tmp_path / "llava" / "config.json"
    write_json(file, json.loads(file.read_text()) | {"torch_dtype": dtype})
    done = bench("convert", tmp_path / "llava", tmp_path / "new")
    assert done.returncode == 2 and "names no number format" in done.stderr, done.stderr


class Evil:
    def __reduce__(self):
        return (exec, ("open('ran', 'w')",))


def broken(root: Path, fault: str) -> str:
    """Damages what `write_original` wrote; returns what the error must say."""
    folder = root / "llava"
    shard = folder / "pytorch_model-00001-of-00002.bin"
    config = json.loads((folder / "config.json").read_text())
    if fault == "missing shard":
        shard.unlink()
        return "pytorch_model-00001-of-00002.bin, which is missing"
    if fault == "torn shard":
        shard.write_bytes(shard.read_bytes()[:1000])
        return "cannot be read"
    if fault == "code":
        with shard.open("wb") as file:
            pickle.dump({"x": Evil()}, file)
        return "such a pickle can run code"
    if fault in ("missing key", "unknown key"):
        state = torch.load(shard, weights_only=True)
        if fault == "missing key":
            del state["lm_head.weight"]
        else:
            state["model.mm_projector.4.weight"] = torch.ones(2)
        torch.save(state, shard)
        return (
            "1 tensors are missing, the first is lm_head.weight"
            if fault == "missing key"
            else "mm_projector.4.weight"
        )
    if fault == "index":
        index = folder / "pytorch_model.bin.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        write_json(index, {"weight_map": {**weight_map, "lm_head.weight": 1}})
        return "lm_head.weight of weight_map is 1"
    if fault == "another tower":
        write_json(root / "tower" / "config.json", {"model_type": "siglip_vision_model"})
        return "is no CLIP"
    changes = {
        "anyres": {"image_aspect_ratio": "anyres"},
        "linear": {"mm_projector_type": "linear"},
        "mistral": {"architectures": ["LlavaMistralForCausalLM"], "model_type": "llava_mistral"},
        "no tower": {"mm_vision_tower": "nobody/nothing"},
        "no layer": {"mm_vision_select_layer": [0, None]},
        "no projector": {"mm_projector_type": None},
    }
    changed = config | changes[fault]
    write_json(folder / "config.json", {k: v for k, v in changed.items() if v is not None})
    return {
        "anyres": "image_aspect_ratio is 'anyres'",
        "linear": "mm_projector_type is 'linear'",
        "mistral": "is no Llama",
        "no tower": "nobody/nothing",
        "no layer": "config or its tower's is damaged",
        "no projector": "mm_projector_type is None",
    }[fault]


FAULTS = (
    "missing shard|torn shard|code|missing key|unknown key|another tower|anyres|linear|mistral|"
    "no tower|no layer|no projector|index"
)


@pytest.mark.parametrize("fault", FAULTS.split("|"))
def test_what_is_not_whole_or_another_design_is_an_error_that_names_it(
    fault, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_original(tmp_path)
    words = broken(tmp_path, fault)
    with pytest.raises(ModelError) as caught:
        _ = HFModel(str(tmp_path / "llava"), {}).model
    assert words in str(caught.value) and not (tmp_path / "ran").exists()


def test_an_adapter_that_is_not_whole_or_no_lora_is_an_error(tmp_path):
    write_original(tmp_path, lora=True)
    adapter = tmp_path / "adapter"
    (adapter / "non_lora_trainables.bin").rename(tmp_path / "kept")
    with pytest.raises(ModelError, match="without non_lora_trainables"):
        _ = HFModel(str(adapter), {}).model
    shutil.copy(tmp_path / "kept", adapter / "non_lora_trainables.bin")
    config = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", config | {"use_dora": True})
    with pytest.raises(ModelError, match="no plain LoRA: use_dora"):
        _ = HFModel(str(adapter), {}).model
    write_json(adapter / "adapter_config.json", config)
    pairs = torch.load(adapter / "adapter_model.bin", weights_only=True)
    torch.save(
        pairs | {"base_model.model.model.layers.9.x.lora_A.weight": torch.ones(4, 4)},
        adapter / "adapter_model.bin",
    )
    with pytest.raises(ModelError, match="has no place"):
        _ = HFModel(str(adapter), {}).model
