"""A reasoning model's answer behind its thoughts: where it begins, and what it begins with.

The bound of tokens is the answer's; thoughts have a budget of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from bench.data.images import read_image
from bench.language.thoughts import Tags, split_thoughts
from bench.models.generate import YesNo, model_inputs, yes_no_probabilities
from bench.types import Request

if TYPE_CHECKING:
    from bench.models.hf import HFModel

PREFIX_TYPED = ("paligemma", "paligemma2")  # their token types tell prompt from answer
PROBE = "X"  # a word that would begin an answer


def answer_start(
    tokens: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    tags: Tags | None = None,
) -> int | None:
    """How many tokens stand before the answer; None if there are no thoughts, or they do not end.

    Args:
        tokens: All that was generated.
        decode: The text of some of them.
        tags: Marks of thoughts beside the known ones.
    """
    thoughts, answer = split_thoughts(decode(tokens), tags)
    if not thoughts or not answer:
        return None
    # The answer begins where a word would be the answer, behind all marks and spaces.
    for start in range(len(tokens), -1, -1):
        if split_thoughts(decode(tokens[:start]) + PROBE, tags)[1] == PROBE:
            return start
    return None


@torch.inference_mode()
def probabilities_behind(model: HFModel, request: Request, tokens: Sequence[int]) -> YesNo:
    """P(yes) and P(no) of the token behind the prompt and some tokens; None without such words."""
    rules = model.settings
    if not rules.yes or not rules.no or request.path is None:
        return None, None
    image = read_image(request.path, model.protocol.orientation == "exif")
    inputs = model_inputs(model, [image], [request])
    length = inputs["input_ids"].shape[1]
    more = torch.tensor([list(tokens)], device=inputs["input_ids"].device)  # (1, tokens)
    for name, value in inputs.items():
        # What goes along with the ids: a mask, and types of tokens, which are 0 for text, and for
        # PaliGemma 1 behind the prompt.
        if value.shape == (1, length):
            is_one = name == "attention_mask" or model.config.model_type in PREFIX_TYPED
            beside = torch.ones_like(more) if is_one else torch.zeros_like(more)
            added = more if name == "input_ids" else beside
            inputs[name] = torch.cat([value, added.to(value.dtype)], dim=1)
    logits = model.model(**inputs).logits[:, -1]  # (1, vocabulary)
    return yes_no_probabilities(logits, rules.yes, rules.no)[0]
