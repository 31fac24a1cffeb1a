"""`bench convert`: what transformers cannot load by itself, as a checkpoint that it can.

That is a checkpoint in LLaVA's original format, or a base with a PEFT adapter, which is merged.
"""

from __future__ import annotations

from pathlib import Path

import torch

from bench.errors import ModelError
from bench.files import folder_of_its_own
from bench.models import checkpoints
from bench.models.generation_config import GENERATION_CONFIG, without_search
from bench.models.hf import HFModel
from bench.models.llava_checkpoints import LlavaCheckpoint
from bench.terminal import note


def convert(source: str, target: Path, base: str | None = None) -> None:
    """Writes `source` as a checkpoint of transformers, in the precision that its config names.

    Args:
        source: A checkpoint in LLaVA's original format, or BASE+ADAPTER.
        target: A new folder.
        base: The base of a LoRA of LLaVA's own code, if not the one that it names.

    Raises:
        ModelError: `source` needs no conversion.
        StoreError: `target` is not empty.
    """
    model = HFModel(source, {"device": "cpu", "base": base})
    if not isinstance(model.checkpoint, LlavaCheckpoint) and model.adapter is None:
        raise ModelError(
            f"{source} is neither in LLaVA's original format nor a base with an adapter.",
            "Its config.json has no mm_vision_tower, and no +ADAPTER was given.",
            "Use it as it is.",
        )
    with folder_of_its_own(target, f"{source} {base}", note):
        _write(model, target)


def _write(model: HFModel, target: Path) -> None:
    # A conversion changes the layout and nothing else.
    settings = checkpoints.read_settings(model.folder / "config.json")
    dtype_name = settings.get("torch_dtype") or settings.get("dtype") or "float16"
    dtype = getattr(torch, str(dtype_name), None)
    if not isinstance(dtype, torch.dtype):
        raise ModelError(
            f"{model.folder / 'config.json'} names no number format.",
            f"Its torch_dtype is {dtype_name!a:.80}.",
            "Restore it from its source.",
        )
    network = model.checkpoint.read(dtype, torch.device("cpu"))
    if model.adapter is not None:
        network = checkpoints.add_adapter(network, model.adapter).merge_and_unload()
    network.generation_config = without_search(model.generation_config)
    network.save_pretrained(target)
    model.processor.save_pretrained(target)
    # As it is: transformers does not save what it reads, such as a temperature without sampling.
    generation_config = model.folder / GENERATION_CONFIG
    if generation_config.is_file():
        (target / GENERATION_CONFIG).write_bytes(generation_config.read_bytes())
