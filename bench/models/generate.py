"""The plain way: transformers' `generate` in batches, for models that the shared-image engine does not serve."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from bench.types import Request

Spoken = tuple[str, int, bool, float | None, float | None]
ROWS = 8


@torch.inference_mode()
def speak(model: Any, images: Sequence[Image.Image], requests: Sequence[Request]) -> list[Spoken]:
    """Answers, one image per request, in batches of 8; `model` is an HFModel.

    LLaVA's own prompt form is tokenised piece by piece, which no processor does for a batch: it goes one by one.
    """
    rows = 1 if model.protocol.conversation == "vicuna_v1" else ROWS
    spoken: list[Spoken] = []
    for start in range(0, len(requests), rows):
        part = slice(start, start + rows)
        spoken += _batch(model, images[part], requests[part])
    return spoken


def _batch(model: Any, images: Sequence[Image.Image], requests: Sequence[Request]) -> list[Spoken]:
    inputs = _inputs(model, images, requests)
    yes_no = requests[0].yes_no
    config = copy.deepcopy(model.decoding)
    config.update(
        **(
            {"do_sample": True, "temperature": model.temperature, "top_k": 0}
            if model.temperature
            else {"do_sample": False}
        ),
        max_new_tokens=requests[0].max_tokens,
        return_dict_in_generate=True,
        output_logits=yes_no,
    )
    if model.temperature:
        torch.manual_seed(zlib.crc32(f"{model.seed} {requests[0].key}".encode()))
    output = model.model.generate(**inputs, generation_config=config)
    generated = output.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    settings = model.settings
    p: list[tuple[float | None, float | None]] = [(None, None)] * len(requests)
    if yes_no and settings.yes and settings.no:
        first = output.logits[0].float().softmax(-1)
        sums = [first[:, list(ids)].sum(-1).tolist() for ids in (settings.yes, settings.no)]
        p = list(zip(*sums, strict=True))
    return [model.spoken(_until_end(row, settings.eos), *pair) for row, pair in zip(generated, p, strict=True)]


def _inputs(model: Any, images: Sequence[Image.Image], requests: Sequence[Request]) -> dict[str, torch.Tensor]:
    """What `generate` takes, padded on the left."""
    prompter, network = model.prompter, model.model
    if model.protocol.conversation == "vicuna_v1":
        encoded = prompter.encode(images[0], [requests[0].prompt])
        inputs = {"input_ids": torch.tensor(encoded.ids), **encoded.pixels}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    else:
        texts = [prompter.text(request.prompt) for request in requests]
        inputs = dict(
            model.processor(
                images=[[prompter.prepare(image)] for image in images],
                text=texts,
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=prompter.adds_special(texts[0]),
            )
        )
        inputs.pop("labels", None)  # PaliGemma's processor adds them
    return {name: to_device(value, network) for name, value in inputs.items()}


def to_device(value: torch.Tensor, network: Any) -> torch.Tensor:
    """The tensor on the model's device, in its dtype if it is floating point."""
    return value.to(network.device, network.dtype) if value.is_floating_point() else value.to(network.device)


def _until_end(tokens: list[int], eos: frozenset[int]) -> list[int]:
    """The tokens up to and with the first that ends the answer; what follows is padding."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in eos), tokens)
