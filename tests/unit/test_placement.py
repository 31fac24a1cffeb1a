"""Models spread over devices, in fewer bits, with another attention: exact where that can be."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest

from bench.errors import ModelError
from bench.models.hf import HFModel
from bench.models.placement import given_placement
from tests.conftest import bench
from tests.unit.test_shared_image import answers_of, by_generate, requests_for

SPREAD = {  # of the tiny LLaVA: what lies on disk is read when it is needed
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "model.language_model.embed_tokens": "cpu",
    "model.language_model.layers.0": "disk",
    "model.language_model.layers.1": "cpu",
    "model.language_model.layers.2": "disk",
    "model.language_model.norm": "cpu",
    "model.language_model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.mark.parametrize("decoding", ["greedy", "vcd:temperature=0"])
def test_the_engine_is_exact_on_a_model_that_is_spread(tiny, tmp_path, decoding):
    file = tmp_path / "map.json"
    file.write_text(json.dumps(SPREAD))
    usual = HFModel(str(tiny("llava")), {"decoding": decoding})
    model = HFModel(str(tiny("llava")), {"device_map": str(file), "decoding": decoding})
    assert model.describe()["device_map"] == SPREAD
    assert model.describe()["engine"] == "shared-image"
    requests = requests_for(tmp_path)
    answers, expected = answers_of(model, requests), answers_of(usual, requests)
    assert any(parameter.is_meta for parameter in model.model.parameters()), "some lie on disk"
    for key, answer in expected.items():
        assert answers[key].text == answer.text
        assert answers[key].p_yes == pytest.approx(answer.p_yes, abs=1e-5)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_fewer_bits_answer_as_generate_does_with_them(tiny, tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    # bitsandbytes packs blocks of 64 numbers, which the tiniest checkpoints do not have.
    model = HFModel("llava-tiny", {"quantize": bits, "protocol": "native"})
    assert model.describe()["quantize"] == bits
    requests = requests_for(tmp_path, images=2)
    answers = answers_of(model, requests)
    kinds = {type(module).__name__ for module in model.model.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    for request in requests:
        text, _, p_yes = by_generate(model, request)
        # The scales of 8 bits depend on what is computed together.
        tolerance = 1e-5 if bits == "4bit" else 0.02
        assert answers[request.key].p_yes == pytest.approx(p_yes, abs=tolerance)
        if bits == "4bit":
            assert answers[request.key].text == text


def test_a_checkpoint_that_was_saved_in_four_bits_runs_as_it_is(tmp_path):
    """As llava-tiny that is quantised when it is loaded, in the dtype of the saved one's rest."""
    pytest.importorskip("bitsandbytes")
    usual = HFModel("llava-tiny", {"quantize": "4bit", "dtype": "bfloat16"})
    saved = shutil.copytree(usual.folder, tmp_path / "saved")
    (saved / "model.safetensors").unlink()
    usual.model.save_pretrained(saved)
    model = HFModel(str(saved), {})
    described = model.describe()
    assert (described["quantization"], described["dtype"]) == ("bitsandbytes", "bfloat16")
    requests = requests_for(tmp_path, images=2)
    answers, expected = answers_of(model, requests), answers_of(usual, requests)
    for key, answer in expected.items():
        assert (answers[key].text, answers[key].p_yes) == (answer.text, answer.p_yes)
    with pytest.raises(ModelError, match="cannot be run in float32"):
        HFModel(str(saved), {"dtype": "float32"})
    with pytest.raises(ModelError, match="--quantize 8bit does nothing for saved"):
        HFModel(str(saved), {"quantize": "8bit"})


@pytest.mark.parametrize(
    ("method", "package"),
    [("awq", "gptqmodel"), ("gptq", "optimum"), ("compressed-tensors", "compressed_tensors")],
)
def test_a_quantised_checkpoint_without_its_package_is_one_clear_error(tmp_path, method, package):
    from bench import registry

    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")

    checkpoint = shutil.copytree(registry.MODEL_ALIASES["llava-tiny"], tmp_path / "m")
    config = json.loads((checkpoint / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="need a package that is not installed") as error:
        _ = HFModel(str(checkpoint), {}).model
    assert "pip install" in error.value.reason


def test_eager_attention_is_as_exact(tiny, tmp_path):
    model = HFModel(str(tiny("qwen2_5_vl")), {"attention": "eager", "protocol": "native"})
    requests = requests_for(tmp_path, images=2)
    answers = answers_of(model, requests)
    assert model.model.config.get_text_config()._attn_implementation == "eager"
    assert all(answers[r.key].text == by_generate(model, r)[0] for r in requests)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quantize": "2bit"}, "--quantize cannot be '2bit'"),
        ({"attention": "flash"}, "--attention cannot be 'flash'"),
        ({"attention": "flash_attention_2"}, "needs flash_attn"),
        ({"device_map": "everywhere"}, "cannot be read"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_loaded(options, words):
    with pytest.raises(ModelError, match=words):
        given_placement(options)


def test_a_map_that_is_none_is_told(tmp_path, monkeypatch):
    file = tmp_path / "map.json"
    file.write_text('["cpu"]')
    with pytest.raises(ModelError, match="is no map"):
        given_placement({"device_map": str(file)})
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    with pytest.raises(ModelError, match="--quantize needs bitsandbytes"):
        given_placement({"quantize": "4bit"})


def test_a_run_records_it_and_servers_refuse_it(tiny, pictures, tmp_path):
    arguments = ("run", "--suite", "pope", "--data", pictures, "--limit", 6)
    done = bench(
        *arguments, "--model", tiny("llava"), "--attention", "eager", "--device-map", "auto",
        "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "pope" / "run.json").read_text())
    assert (record["model"]["attention"], record["model"]["device_map"]) == ("eager", "auto")
    done = bench(*arguments, "--model", "openai:m@http://127.0.0.1:9/v1", "--quantize", "4bit")
    assert done.returncode == 2 and "--quantize does nothing" in done.stderr
