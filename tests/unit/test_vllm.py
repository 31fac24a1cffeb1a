"""`vllm:…` answers as `hf` does: the real vLLM on a llava-tiny, where vLLM is installed.

It also runs without a GPU, in a build of vLLM for CPUs.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bench.models.hf import HFModel
from bench.models.vllm_engine import VLLMModel
from tests.conftest import bench
from tests.unit.test_checkpoints import adapter_for
from tests.unit.test_shared_image import answers_of, requests_for

SHIPPED = Path(__file__).parents[2] / "bench" / "scenes" / "llava-tiny"
HAS_VLLM = importlib.util.find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
ENGINE = ["enforce_eager=true", "max_model_len=512", "gpu_memory_utilization=0.3"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """vLLM in this process, with a small cache of keys and values on CPUs."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """llava-tiny with the names of LLaVA-1.5's published weights, the only ones vLLM knows."""
    folder = tmp_path_factory.mktemp("vllm") / "model"
    shutil.copytree(SHIPPED, folder)
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("vision_tower.", "vision_tower.vision_model.")
        tensors[name] = tensor.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def vllm_model(spec, **options) -> VLLMModel:
    return VLLMModel(str(spec), {"dtype": "float32", "api_option": ENGINE, **options})


@needs_vllm
@pytest.mark.parametrize("protocol", ["llava", "native"])
def test_answers_and_probabilities_are_those_of_transformers(checkpoint, tmp_path, protocol):
    requests = requests_for(tmp_path)
    expected = answers_of(HFModel(str(SHIPPED), {"protocol": protocol}), requests)
    model = vllm_model(checkpoint, protocol=protocol)
    answers = answers_of(model, requests)
    assert len({answer.text for answer in expected.values()}) > 4
    for key, answer in answers.items():
        same = expected[key]
        assert (answer.text, answer.tokens, answer.finish) == (same.text, same.tokens, same.finish)
        assert math.isclose(answer.p_yes, same.p_yes, abs_tol=1e-4)
        assert math.isclose(answer.p_no, same.p_no, abs_tol=1e-4)
    described = model.describe()
    assert described["kind"] == described["engine"] == "vllm"
    assert any(name.startswith("vllm") for name in described["software"])
    assert described["engine_arguments"]["enforce_eager"] is True


@needs_vllm
def test_draws_depend_on_the_seed_and_not_on_the_batch(checkpoint, tmp_path):
    requests = requests_for(tmp_path, images=2)
    model = vllm_model(checkpoint, decoding="sample:temperature=1")
    together = answers_of(model, requests)
    for request in requests[::3]:
        assert answers_of(model, [request])[request.key].text == together[request.key].text
    greedy = answers_of(vllm_model(checkpoint), requests)
    assert any(greedy[key].text != together[key].text for key in greedy)


@needs_vllm
def test_an_adapter_moves_answers_as_in_transformers(checkpoint, tmp_path):
    adapter = adapter_for(SHIPPED, tmp_path / "adapter", r".*language_model.*(q|v)_proj")
    requests = requests_for(tmp_path)
    plain = answers_of(HFModel(str(SHIPPED), {}), requests)
    expected = answers_of(HFModel(f"{SHIPPED}+{adapter}", {}), requests)
    answers = answers_of(vllm_model(f"{checkpoint}+{adapter}"), requests)
    # A random adapter makes all tokens about equally likely, so that later ones may part.
    moved = 0
    for key, answer in answers.items():
        assert math.isclose(answer.p_yes, expected[key].p_yes, abs_tol=1e-4)
        assert answer.text.split()[:3] == expected[key].text.split()[:3]
        moved += answer.text != plain[key].text
    assert moved > len(answers) // 2


@needs_vllm
def test_a_run_by_vllm(checkpoint, pictures, tmp_path):
    options = [word for option in ENGINE for word in ("--api-option", option)]
    done = bench(
        "run", "--model", f"vllm:{checkpoint}", "--suite", "pope", "--data", pictures, *options,
        "--out", tmp_path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{"), "nothing of vLLM's is on standard output"


@needs_vllm
def test_weights_that_vllm_does_not_know_are_a_clear_error(tmp_path):
    model = vllm_model(SHIPPED)
    with pytest.raises(Exception, match="vLLM cannot load"):
        answers_of(model, requests_for(tmp_path, images=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoding": "beam:3"}, "cannot be asked so by vLLM"),
        ({"decoding": "vcd"}, "cannot be asked by contrastive decoding"),
        ({"api_option": ["dtype=half"]}, "are said otherwise"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_loaded(options, words):
    with pytest.raises(Exception, match=words):
        VLLMModel(str(SHIPPED), options)


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed")
def test_without_the_package_the_remedy_is_named(pictures, tmp_path):
    done = bench(
        "run", "--model", "vllm:llava-tiny", "--suite", "pope", "--data", pictures,
        "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and "synth-align[vllm]" in done.stderr
