"""From an image and prompts to token ids and pixels, as the protocol says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from bench.models.protocol import Protocol

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class Encoded:
    """One image with its prompts.

    `ids` are the prompts' token ids with the image's placeholders written out; `pixels` the image's tensors under
    the names that the model's forward takes; `token_types` (1, n) the types of the first prompt's tokens, by name.
    """

    ids: list[list[int]]
    pixels: dict[str, torch.Tensor]
    token_types: dict[str, torch.Tensor]


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image centred on a square of the mean colour, as LLaVA's expand2square does."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class Prompter:
    """Encodes prompts for one processor under one protocol."""

    def __init__(self, processor: Any, protocol: Protocol) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.protocol = protocol
        self.substitutes: bool | None = None

    def encode(self, image: Image.Image, prompts: Sequence[str]) -> Encoded:
        """Token ids of every prompt and the image's tensors, the image being processed once."""
        image = self.prepare(image)
        if self.protocol.conversation == "vicuna_v1":
            return self._vicuna(image, prompts)
        first = self.whole(image, prompts[0])
        pixels = {name: value for name, value in first.items() if name not in PER_TOKEN}
        types = {name: first[name] for name in PER_TOKEN[2:] if name in first}
        ids = self._others(image, prompts, first["input_ids"][0].tolist())
        return Encoded(ids, pixels, types)

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image as the protocol wants it before the processor sees it."""
        if self.protocol.image == "pad":
            return pad_to_square(image, self.processor.image_processor.image_mean)
        return image

    def text(self, prompt: str) -> str:
        """The prompt in the conversation's form, the image as one placeholder."""
        if self.protocol.conversation == "vicuna_v1":
            return f"{self.protocol.system} USER: {self.processor.image_token}\n{prompt} ASSISTANT:"
        if not getattr(self.processor, "chat_template", None):
            return f"{self.processor.image_token}{prompt}"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        if self.protocol.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.protocol.system}]})
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def whole(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """The processor's own output for a prepared image and one prompt; a template's BOS is not doubled."""
        text = self.text(prompt)
        return dict(
            self.processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=self.adds_special(text))
        )

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer adds its special tokens; not where the template has written BOS already."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _others(self, image: Image.Image, prompts: Sequence[str], first: list[int]) -> list[list[int]]:
        """Ids of all prompts from those of the first, whose placeholder the processor has written out.

        The first time, a second prompt is put through the processor too: where the result is not the same,
        every prompt goes through it.
        """
        if len(prompts) == 1:
            return [first]
        if self.substitutes is None:
            second = self.whole(image, prompts[1])["input_ids"][0].tolist()
            self.substitutes = self._substitute(prompts[:2], first)[1] == second
        if not self.substitutes:
            return [first] + [self.whole(image, prompt)["input_ids"][0].tolist() for prompt in prompts[1:]]
        return self._substitute(prompts, first)

    def _substitute(self, prompts: Sequence[str], first: list[int]) -> list[list[int]]:
        texts = [self.text(prompt) for prompt in prompts]
        plain = self.tokenizer(texts, add_special_tokens=self.adds_special(texts[0]))["input_ids"]
        before = common_prefix([plain[0], first])
        longest = len(plain[0]) - before
        after = min(longest, common_prefix([plain[0][::-1], first[::-1]]))
        skipped = len(plain[0]) - after
        head = first[: len(first) - after]
        return [first, *(head + ids[skipped:] for ids in plain[1:])]

    def _vicuna(self, image: Image.Image, prompts: Sequence[str]) -> Encoded:
        """LLaVA's tokenizer_image_token: BOS, then the text before the image, the image, the text after it, apart."""
        marker = self.processor.image_token
        inputs = dict(self.processor(images=[image], text=[marker], return_tensors="pt"))
        image_ids = [token for token in inputs["input_ids"][0].tolist() if token == self.processor.image_token_id]
        ids = []
        for prompt in prompts:
            before, after = self.text(prompt).split(marker, 1)
            ids.append([self.tokenizer.bos_token_id, *self._chunk(before), *image_ids, *self._chunk(after)])
        return Encoded(ids, {name: value for name, value in inputs.items() if name not in PER_TOKEN}, {})

    def _chunk(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading items all sequences share."""
    shortest = min(map(len, sequences))
    first = sequences[0]
    return next((i for i in range(shortest) if any(s[i] != first[i] for s in sequences[1:])), shortest)
