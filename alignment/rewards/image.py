"""How well an image fits its prompt: CLIP-like models through transformers, or ImageReward.

It picks among the images that were made for a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from PIL import Image

from alignment.settings import RecipeError, Settings
from bench.errors import one_line

Scorer = Callable[[str, Sequence[Image.Image]], list[float]]


class ImageReward(Settings):
    """What picks among a prompt's candidate images."""

    kind: Literal["clip", "imagereward"]
    model: str
    processor: str | None = None


def scorer(settings: ImageReward) -> Scorer:
    """A function from a prompt and its candidates to scores, higher is better.

    Raises RecipeError if the model cannot be loaded.
    """
    return _clip(settings) if settings.kind == "clip" else _imagereward(settings)


def _clip(settings: ImageReward) -> Scorer:
    """Cosine of CLIP's text and image features times its logit scale; PickScore is of this kind."""
    from transformers import AutoModel, AutoProcessor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model: Any = AutoModel.from_pretrained(settings.model, use_safetensors=True)
        model = model.to(device).eval()
        processor = AutoProcessor.from_pretrained(
            settings.processor or settings.model, use_fast=False
        )
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(
            f"The image reward {settings.model} cannot be loaded.",
            one_line(error),
            "Give a CLIP-like checkpoint with safetensors, and `processor:` if it brings none.",
        ) from error

    @torch.inference_mode()
    def score(prompt: str, images: Sequence[Image.Image]) -> list[float]:
        inputs = processor(
            text=[prompt], images=list(images), return_tensors="pt", padding=True, truncation=True
        )
        logits = model(**inputs.to(device)).logits_per_image  # (images, 1)
        return [float(value) for value in logits[:, 0].float().cpu()]

    return score


def _imagereward(settings: ImageReward) -> Scorer:
    try:
        import ImageReward as image_reward  # type: ignore[import-not-found]  # noqa: N813
    except ImportError as error:
        raise RecipeError(
            "ImageReward is not installed.",
            f"{error}.",
            "pip install image-reward, or use `kind: clip`.",
        ) from error
    model = image_reward.load(settings.model)

    def score(prompt: str, images: Sequence[Image.Image]) -> list[float]:
        return [float(model.score(prompt, image)) for image in images]

    return score
