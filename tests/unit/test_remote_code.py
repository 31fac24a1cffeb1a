"""Code that a checkpoint brings runs by flag alone: nobody is asked on the terminal, whatever loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from alignment.plan import _config
from alignment.rewards.classifier import ClassifierReward
from alignment.rewards.image import load_clip
from alignment.rewards.imagereward import ImageRewardScorer
from alignment.settings import RecipeError
from bench import registry
from bench.errors import BenchError, JudgeError, ModelError
from bench.models.hf import HFModel
from bench.models.instruct import InstructModel

TINY = Path(registry.MODEL_ALIASES["llava-tiny"])
CODE = """
from pathlib import Path
Path(__file__).with_name("it-ran").touch()
Path({mark!r}).touch()
from transformers import PretrainedConfig as Config, PreTrainedTokenizerFast as Tokenizer
Model = Processor = ImageProcessor = Config
"""
AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForCausalLM": "evil.Model",
    "AutoModelForImageTextToText": "evil.Model",
    "AutoModelForSequenceClassification": "evil.Model",
    "AutoTokenizer": [None, "evil.Tokenizer"],
    "AutoProcessor": "evil.Processor",
    "AutoImageProcessor": "evil.ImageProcessor",
}
LOADERS = {
    "model": lambda folder: HFModel(str(folder), {}).model,
    "judge": lambda folder: InstructModel(str(folder), "judge", JudgeError).model,
    "classifier": lambda folder: ClassifierReward(kind="classifier", model=str(folder))._load(
        "cpu"
    ),
    "clip": lambda folder: load_clip(str(folder), None),
    "clip's processor": lambda folder: load_clip(str(TINY), str(folder)),
    "plan": lambda folder: _config(str(folder)),
}


@pytest.fixture(params=["unknown type", "known type"])
def hostile(request, tmp_path, monkeypatch):
    """A checkpoint that names its own code in every file; whoever is asked says yes."""
    folder = shutil.copytree(TINY, tmp_path / "hostile")
    (folder / "evil.py").write_text(CODE.format(mark=str(tmp_path / "it-ran")))
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = AUTO_MAP
        if name == "config.json" and request.param == "unknown type":
            content["model_type"] = "evil"
            content["architectures"] = ["Evil"]
        (folder / name).write_text(json.dumps(content))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    yield folder
    assert not asked and not list(tmp_path.rglob("it-ran"))


@pytest.mark.parametrize("loader", LOADERS)
def test_nobody_is_asked_and_nothing_runs(hostile, loader):
    try:
        LOADERS[loader](hostile)
    except BenchError as error:
        assert isinstance(error, ModelError | JudgeError | RecipeError)


def test_the_tokenizer_of_an_image_reward_neither(hostile, tmp_path):
    torch.save({}, tmp_path / "ImageReward.pt")
    with pytest.raises(RecipeError):
        ImageRewardScorer(tmp_path, str(hostile), torch.device("cpu"))
