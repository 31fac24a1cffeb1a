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
from bench.models import checkpoints

PUBLISHED = "ImageReward-v1.0"  # the authors' name of their weights
PUBLISHED_HUB_ID = "THUDM/ImageReward"
Scorer = Callable[[str, Sequence[Image.Image]], list[float]]


class ImageReward(Settings):
    """What picks among a prompt's candidate images.

    `clip` takes any CLIP-like checkpoint, `imagereward` the authors' files (`ImageReward-v1.0`, or
    a folder with them). `processor` is another processor, of ImageReward another tokenizer.
    """

    kind: Literal["clip", "imagereward"]
    model: str
    processor: str | None = None

    def identity(self) -> Any:
        """Digests of the weights and of another processor, or their hub commits."""
        return [checkpoints.contents(name) for name in (self.source(), self.processor) if name]

    def source(self) -> str:
        """The folder or hub id of the weights."""
        is_published = self.kind == "imagereward" and self.model == PUBLISHED
        return PUBLISHED_HUB_ID if is_published else self.model


def scorer(settings: ImageReward) -> Scorer:
    """A function from a prompt and its candidates to scores, higher is better.

    Raises RecipeError if the model cannot be loaded.
    """
    if settings.kind == "clip":
        return load_clip(settings.model, settings.processor)
    from alignment.rewards import imagereward

    files = [imagereward.WEIGHTS, imagereward.TEXT_CONFIG]
    return imagereward.ImageRewardScorer(
        checkpoints.locate(settings.source(), None, patterns=files),
        settings.processor or imagereward.TOKENIZER,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


def load_clip(name: str, processor_name: str | None) -> Scorer:
    """Cosine of CLIP's text and image features times its logit scale; PickScore is of this kind.

    Args:
        name: A CLIP-like checkpoint.
        processor_name: Another processor, if it brings none.

    Raises:
        RecipeError: It cannot be loaded, or scores nothing.
    """
    from transformers import AutoModel, AutoProcessor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        code = {"trust_remote_code": False}  # left out, it would be asked for on the terminal
        model: Any = AutoModel.from_pretrained(name, use_safetensors=True, **code)
        model = model.to(device).eval()
        processor = AutoProcessor.from_pretrained(processor_name or name, use_fast=False, **code)
    except Exception as error:  # what is wrong in its files comes as dozens of types
        raise RecipeError(
            f"The image-text model {name} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Give a CLIP-like checkpoint with safetensors, and `processor:` if it brings none.",
        ) from error

    @torch.inference_mode()
    def score(prompt: str, images: Sequence[Image.Image]) -> list[float]:
        try:
            inputs = processor(
                text=[prompt],
                images=list(images),
                return_tensors="pt",
                padding=True,
                truncation=True,
            )
            logits = model(**inputs.to(device)).logits_per_image  # (images, 1)
        except Exception as error:  # its files say how large an image becomes, or how long a text
            raise RecipeError(
                f"The image-text model {name} cannot score an image.",
                f"{type(error).__name__}: {one_line(error)}",
                "Its files do not fit together: get its processor again from the model's source.",
            ) from error
        return [float(value) for value in logits[:, 0].float().cpu()]

    return score
