"""From an image and prompts to token ids and pixels, as the protocol says.

The LLaVA prompt is written here (`Prompter.text` with a protocol of conversation "vicuna_v1").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from bench.errors import BenchError, DataError, ModelError, one_line
from bench.models.protocol import Protocol
from bench.models.templates import by_template

# Outputs of a processor that have one entry a token; all others belong to the image.
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
PER_TOKEN = ("input_ids", "attention_mask", "labels", *TOKEN_TYPES)  # PaliGemma's adds labels
# Whose language model may be a Vicuna, and who was never taught a conversation.
VICUNA_ARCHITECTURES = ("llava", "llava_next")
WITHOUT_TEMPLATE = ("paligemma",)
MAX_PADDED_PIXELS = 100_000_000  # of which a processor makes two gigabytes
PROBE = "Is there a dog in the image?"


class UnpreparedError(DataError):
    """An image, or a prompt about it, that a processor does not take."""


@dataclass(frozen=True)
class Encoded:
    """One image with its prompts.

    Args:
        ids: Each prompt's token ids, the image's placeholders written out.
        pixels: The image's tensors under the names that the model's forward takes.
        token_types: Types of the first prompt's tokens, by name, each of shape (1, tokens).
    """

    ids: list[list[int]]
    pixels: dict[str, torch.Tensor]
    token_types: dict[str, torch.Tensor]


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image centred on a square of the mean colour, as LLaVA's expand2square does.

    Raises DataError if the square would be too large: a strip of 60,000 × 10 pixels is one of 40
    gigabytes.
    """
    side = max(image.size)
    if side * side > MAX_PADDED_PIXELS:
        raise DataError(
            f"an image of {image.width} × {image.height} pixels cannot be padded to a square",
            f"(it would have {side} × {side} pixels)",
            "Cut or scale it, or use --protocol native.",
        )
    colour = tuple(int(channel * 255) for channel in mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


class Prompter:
    """Encodes prompts for one processor under one protocol."""

    def __init__(self, processor: Any, protocol: Protocol) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.protocol = protocol
        # Whether prompts may be tokenised without the image; None until it was tried.
        self.substitutes: bool | None = None

    @property
    def has_template(self) -> bool:
        """Whether the checkpoint says how it is asked; old ones say it in the tokenizer."""
        return bool(
            getattr(self.processor, "chat_template", None)
            or getattr(self.tokenizer, "chat_template", None)
        )

    def encode(self, image: Image.Image, prompts: Sequence[str]) -> Encoded:
        """Token ids of every prompt and the image's tensors, the image being processed once.

        Raises UnpreparedError if the processor does not take them.
        """
        with _prepared():
            image = self.prepare(image)
            # LLaVA tokenises piece by piece, which no processor of transformers does.
            if self.protocol.conversation == "vicuna_v1":
                return self._encode_vicuna(image, prompts)
            first = self._processed(image, prompts[0])
            pixels = _of_image(first)
            token_types = {name: first[name] for name in TOKEN_TYPES if name in first}
            ids = self._all_ids(image, prompts, first["input_ids"][0].tolist())
            return Encoded(ids, pixels, token_types)

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image as the protocol wants it before the processor sees it."""
        if self.protocol.image == "pad":
            return pad_to_square(image, self.processor.image_processor.image_mean)
        return image

    def special_token_in(self, text: str) -> str | None:
        """A special token that stands in a text and would be more than text, None without one."""
        return next((token for token in self._special if token in text), None)

    @cached_property
    def _special(self) -> list[str]:
        """Special tokens, and the placeholders that the processor writes out."""
        tokens = {getattr(self.processor, "image_token", None) or "<image>"}
        for token in self.tokenizer.added_tokens_decoder.values():
            if token.special and token.content.strip():
                tokens.add(token.content)
        return sorted(tokens)

    def text(self, prompt: str) -> str:
        """The prompt in the conversation's form, the image as one placeholder."""
        if self.protocol.conversation == "vicuna_v1":
            placeholder = self.processor.image_token
            return f"{self.protocol.system} USER: {placeholder}\n{prompt} ASSISTANT:"
        if self.has_template:
            return self._by_template(*self._renderer, prompt)
        return f"{self.processor.image_token}{prompt}"

    def short_ids(self, prompt: str) -> list[int]:
        """The prompt's token ids with the image as one placeholder."""
        text = self.text(prompt)
        if self.protocol.conversation == "vicuna_v1":
            before, after = text.split(self.processor.image_token, 1)
            image = self.processor.image_token_id
            return [self.tokenizer.bos_token_id, *self._piece(before), image, *self._piece(after)]
        return list(self.tokenizer(text, add_special_tokens=self.adds_special(text))["input_ids"])

    def after_answer(self) -> str:
        """What the conversation's form writes behind an answer."""
        if self.protocol.conversation == "vicuna_v1" or not self.has_template:
            return ""
        answer = "It is red."
        text = self._by_template(*self._renderer, PROBE, answer)
        return text.rpartition(answer)[2]

    def check(self, architecture: str) -> None:
        """Raises ModelError if this protocol cannot ask this architecture.

        Args:
            architecture: The model's type.
        """
        protocol = self.protocol
        if protocol.conversation == "vicuna_v1":
            is_vicuna = architecture in VICUNA_ARCHITECTURES and self.tokenizer.bos_token_id
            # LLaVA-1.6 cuts an image into tiles, where 1.5 pads it.
            is_padded_tiles = protocol.image == "pad" and architecture != "llava"
            if not is_vicuna or is_padded_tiles:
                raise ModelError(
                    f"The protocol '{protocol.name}' is LLaVA-1.5's, and this is a {architecture}.",
                    "The model would be asked in a form that it has never seen.",
                    "Use --protocol native, the checkpoint's own form.",
                )
            return
        if not self.has_template and architecture not in WITHOUT_TEMPLATE:
            raise ModelError(
                f"This {architecture} has no chat template.",
                "Without it nobody knows in which form it was taught to be asked.",
                "Put chat_template.jinja of the base model into its folder"
                + (", or use --protocol llava." if architecture == "llava" else "."),
            )
        text = self.text(PROBE)
        marker = getattr(self.processor, "image_token", None)
        if PROBE not in text or (marker and text.count(marker) != 1):
            raise ModelError(
                f"The chat template of this {architecture} cannot ask about an image.",
                f"It makes {text[:160]!r} of a question with one image.",
                "Put chat_template.jinja of the base model into its folder.",
            )

    @property
    def _renderer(self) -> tuple[Any, bool]:
        """What has the chat template, and whether its messages are lists of parts."""
        if getattr(self.processor, "chat_template", None):
            return self.processor, True
        return self.tokenizer, self._tokenizer_takes_parts

    def _by_template(
        self, renderer: Any, in_parts: bool, prompt: str, answer: str | None = None
    ) -> str:
        """The prompt by the chat template of the processor or of the tokenizer.

        With an answer behind it, if one is given.
        """

        def text_part(text: str) -> Any:
            return [{"type": "text", "text": text}] if in_parts else text

        # The image comes first, so that all prompts about it begin alike.
        content: Any = [{"type": "image"}, {"type": "text", "text": prompt}]
        if not in_parts:
            content = f"{self.processor.image_token}\n{prompt}"
        messages = [{"role": "user", "content": content}]
        if self.protocol.system:
            messages.insert(0, {"role": "system", "content": text_part(self.protocol.system)})
        if answer is not None:
            messages.append({"role": "assistant", "content": text_part(answer)})
        remedy = "Put chat_template.jinja of the base model into its folder"
        remedy += ", or leave out the protocol's system prompt." if self.protocol.system else "."
        text = by_template(
            renderer,
            messages,
            ModelError,
            remedy,
            add_generation_prompt=answer is None,
            tokenize=False,
        )
        return str(text)

    @cached_property
    def _tokenizer_takes_parts(self) -> bool:
        """Whether a tokenizer's template knows images; one of a text model takes a plain text."""
        try:
            text = self._by_template(self.tokenizer, True, PROBE)
        except ModelError:
            return False
        return self.processor.image_token in text and "'type'" not in text

    def whole(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """The processor's own output for an image and one prompt.

        Raises UnpreparedError if the processor does not take them.
        """
        with _prepared():
            return self._processed(self.prepare(image), prompt)

    def _processed(self, image: Image.Image, prompt: str) -> dict[str, torch.Tensor]:
        """The processor's own output for a prepared image."""
        text = self.text(prompt)
        output = self.processor(
            images=[image],
            text=[text],
            return_tensors="pt",
            add_special_tokens=self.adds_special(text),
        )
        return dict(output)

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer adds its special tokens.

        Not if the template has written BOS already: it would stand there twice.
        """
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _all_ids(
        self, image: Image.Image, prompts: Sequence[str], first: list[int]
    ) -> list[list[int]]:
        """Ids of all prompts from those of the first, whose placeholder is written out.

        To put every prompt through the processor would process the image again for each. The first
        time, a second prompt goes through it all the same. If the result is not the same, every
        prompt goes through it.
        """
        if len(prompts) == 1:
            return [first]
        if self.substitutes is None:
            second = self._processed(image, prompts[1])["input_ids"][0].tolist()
            self.substitutes = self._substitute(prompts[:2], first)[1] == second
        if self.substitutes:
            return self._substitute(prompts, first)
        ids = [first]
        for prompt in prompts[1:]:
            ids.append(self._processed(image, prompt)["input_ids"][0].tolist())
        return ids

    def _substitute(self, prompts: Sequence[str], first: list[int]) -> list[list[int]]:
        """Ids of all prompts, the image's part taken from `first`."""
        texts = [self.text(prompt) for prompt in prompts]
        plain = self.tokenizer(texts, add_special_tokens=self.adds_special(texts[0]))["input_ids"]
        # The first prompt without and with the placeholder written out agree up to the placeholder
        # and again behind it.
        before = common_prefix([plain[0], first])
        longest_tail = len(plain[0]) - before
        after = min(longest_tail, common_prefix([plain[0][::-1], first[::-1]]))
        head = first[: len(first) - after]
        replaced = len(plain[0]) - after  # plain ids that `head` stands for
        ids = [first]
        for prompt_ids in plain[1:]:
            ids.append(head + prompt_ids[replaced:])
        return ids

    def _encode_vicuna(self, image: Image.Image, prompts: Sequence[str]) -> Encoded:
        """LLaVA's tokenizer_image_token.

        The text before the image, the image and the text after it are tokenised apart, behind one
        BOS. Tokenised together, the space before the image would become another token.
        """
        marker = self.processor.image_token
        inputs = dict(self.processor(images=[image], text=[marker], return_tensors="pt"))
        image_id = self.processor.image_token_id
        # The processor knows how many placeholders an image has; the text around them is ours.
        image_ids = []
        for token in inputs["input_ids"][0].tolist():
            if token == image_id:
                image_ids.append(token)
        ids = []
        for prompt in prompts:
            short = self.short_ids(prompt)
            index = short.index(image_id)
            ids.append([*short[:index], *image_ids, *short[index + 1 :]])
        return Encoded(ids, _of_image(inputs), {})

    def _piece(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@contextmanager
def _prepared() -> Iterator[None]:
    """Processors have limits on size and shape that they do not document, and raise anything."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        raise UnpreparedError(
            "An image cannot be prepared.",
            f"{type(error).__name__}: {one_line(error, 120)}",
            "Check the image's size, and the checkpoint's processor_config.json.",
        ) from error


def _of_image(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of a processor's outputs that belong to the image."""
    return {name: value for name, value in inputs.items() if name not in PER_TOKEN}


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading items all sequences share."""
    first = sequences[0]
    shortest = min(map(len, sequences))
    for index in range(shortest):
        if any(sequence[index] != first[index] for sequence in sequences[1:]):
            return index
    return shortest
