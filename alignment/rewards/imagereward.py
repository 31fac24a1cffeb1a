"""ImageReward: how well an image fits a prompt, as people would rate it.

Xu et al. 2023, arXiv 2304.05977. The authors' package needs versions of libraries that transformers
5 does not work with. This is their network on transformers' own BLIP, its tensors read from the
published ImageReward.pt under other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPImageProcessorPil,
)

from alignment.settings import RecipeError
from bench.errors import first_line
from bench.models.checkpoints import read_settings

WEIGHTS, TEXT_CONFIG = "ImageReward.pt", "med_config.json"
TOKENIZER = "google-bert/bert-base-uncased"  # the authors'
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the scores of their data, in their code
MAX_TOKENS = 35
HEAD_WIDTH = 64  # of a vision transformer
# Parts of timm's names that transformers calls otherwise.
RENAMED = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")


class ImageRewardModel(nn.Module):
    """BLIP's encoders and the network that makes a score of the text's first state."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], text_config: Mapping[str, Any]) -> None:
        """Builds the network in the sizes of the published tensors and takes them over.

        Raises KeyError or RuntimeError if a tensor is missing, unknown or of another shape.
        """
        super().__init__()
        vision, text, head = _renamed(tensors)
        width, _, patch, _ = vision["embeddings.patch_embedding.weight"].shape
        patches = vision["embeddings.position_embedding"].shape[1] - 1
        layers = {name.split(".")[2] for name in vision if name.startswith("encoder.layers.")}
        self.side = patch * round(patches**0.5)
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=width,
                intermediate_size=vision["encoder.layers.0.mlp.fc1.weight"].shape[0],
                num_hidden_layers=len(layers),
                num_attention_heads=max(1, width // HEAD_WIDTH),
                image_size=self.side,
                patch_size=patch,
                layer_norm_eps=1e-6,  # timm's
            )
        )
        known = BlipTextConfig().to_dict().keys() - {"model_type", "architectures"}
        fields = {name: value for name, value in text_config.items() if name in known}
        # `is_decoder` gives it cross-attention; it is called as an encoder.
        self.text = BlipTextModel(
            BlipTextConfig(**fields | {"encoder_hidden_size": width, "is_decoder": True}),
            add_pooling_layer=False,
        )
        # Linear layers without anything between them; dropout is for training.
        numbers = sorted({int(name.split(".")[0]) for name in head})
        linear = {}
        inputs = self.text.config.hidden_size
        for number in numbers:
            outputs = len(head[f"{number}.weight"])
            linear[str(number)] = nn.Linear(inputs, outputs)
            inputs = outputs
        self.head = nn.ModuleDict(linear)
        self.vision.load_state_dict(vision)
        self.text.load_state_dict(text)
        self.head.load_state_dict(head)

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Scores (images,) of images (images, 3, side, side) for a prompt (1, tokens)."""
        images = self.vision(pixel_values=pixels).last_hidden_state
        count = len(images)
        states = self.text(
            input_ids=ids.expand(count, -1),
            attention_mask=attention_mask.expand(count, -1),
            encoder_hidden_states=images,
        ).last_hidden_state[:, 0]
        for layer in self.head.values():
            states = layer(states)
        scores: torch.Tensor = (states[:, 0] - MEAN) / STD
        return scores


def _renamed(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], ...]:
    """The published tensors of vision, text and head under transformers' names."""
    vision, text, head = {}, {}, {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED):
            continue
        if name.startswith("blip.visual_encoder."):
            inner = name.removeprefix("blip.visual_encoder.")
            for pattern, replacement in RENAMED:
                inner = re.sub(pattern, replacement, inner)
            vision[inner] = tensor
        elif name.startswith("blip.text_encoder."):
            text[name.removeprefix("blip.text_encoder.")] = tensor
        elif name.startswith("mlp.layers."):
            head[name.removeprefix("mlp.layers.")] = tensor
        else:
            raise KeyError(name)
    return vision, text, head


class ImageRewardScorer:
    """Scores of images for a prompt, higher is better."""

    def __init__(self, folder: Path, tokenizer: str, device: torch.device) -> None:
        """Raises RecipeError if the folder does not hold what the authors published."""
        try:
            tensors = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
            model = ImageRewardModel(tensors, read_settings(folder / TEXT_CONFIG))
            self.tokenizer = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        except Exception as error:  # a pickle that is none raises anything
            raise RecipeError(
                f"ImageReward cannot be loaded from {folder}.",
                f"{type(error).__name__}: {first_line(error)}",
                f"It needs the published {WEIGHTS} and {TEXT_CONFIG}, and BERT's tokenizer "
                f"(`processor:`, by default {TOKENIZER}).",
            ) from error
        self.device = device
        self.model = model.to(device).eval()
        # As CLIP's: the shorter side to `side`, its middle cut out.
        self.images = CLIPImageProcessorPil(
            size={"shortest_edge": model.side},
            crop_size={"height": model.side, "width": model.side},
        )

    @torch.inference_mode()
    def __call__(self, prompt: str, images: Sequence[Image.Image]) -> list[float]:
        """A score for each image."""
        text = self.tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        pixels = self.images(images=list(images), return_tensors="pt")["pixel_values"]
        scores = self.model(
            pixels.to(self.device),
            text["input_ids"].to(self.device),
            text["attention_mask"].to(self.device),
        )
        return [float(score) for score in scores]
