"""Visual contrastive decoding (Leng et al. 2023, arXiv 2311.16922).

What the model finds likely about an image is set against what it finds likely about a distorted
one: logits are (1 + alpha) * original - alpha * distorted, over the tokens whose probability under
the original is at least beta times that of its likeliest. The distortion is the diffusion noise of
the paper's code (DAMO-NLP-SG/VCD vcd_add_noise.py) on the prepared pixels.

As in the paper, the distorted pass sees its own image at every token. In the released code
(vcd_sample.py at 039af55) it takes the original's cache from the second token on, because its own
is made anew in every round of the loop.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bench.models.conversations import Encoded

STEPS = 1000  # of the diffusion
PIXELS = "pixel_values"


def distorted(image: Encoded, noise_step: int, seed: int) -> Encoded:
    """The image's prompts about its pixels with noise.

    Args:
        image: An image with its prompts.
        noise_step: How far the diffusion went, 0 to 999.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    noised = add_noise(image.pixels[PIXELS], noise_step, generator)
    return replace(image, pixels=image.pixels | {PIXELS: noised})


def add_noise(pixels: torch.Tensor, noise_step: int, generator: torch.Generator) -> torch.Tensor:
    """Pixels of any shape after so many steps of the diffusion."""
    betas = torch.sigmoid(torch.linspace(-6, 6, STEPS)) * (0.5e-2 - 1e-5) + 1e-5
    signal = torch.cumprod(1 - betas, dim=0)[noise_step]  # the share of its power that is left
    noise = torch.randn(pixels.shape, generator=generator)
    noised: torch.Tensor = signal.sqrt() * pixels.float() + (1 - signal).sqrt() * noise
    return noised.to(pixels.dtype)


def contrasted(logits: torch.Tensor, distorted_logits: torch.Tensor, alpha: float) -> torch.Tensor:
    """What the image makes likelier, both of shape (questions, vocabulary)."""
    return (1 + alpha) * logits - alpha * distorted_logits


def implausible(logits: torch.Tensor, beta: float) -> torch.Tensor:
    """Where the original's probability is below beta times its highest, (questions, vocabulary)."""
    least = math.log(beta) + logits.max(dim=-1, keepdim=True).values
    return logits < least
