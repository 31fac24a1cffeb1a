"""Training batches: prompts tokenised as at inference, responses with their end."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from alignment.settings import RecipeError
from alignment.training.shared_prefix import TokenPair, pack
from bench.data.images import read_image
from bench.models.conversations import Encoded
from bench.models.shared_image import prefix_positions

if TYPE_CHECKING:
    from bench.models.hf import HFModel

LARGEST_IMAGE = 4  # how many times as many tokens as the first image another one may have
# trl's names, and that of the chosen response to a crop of the image.
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps", "ref_cropped_logps")
CROPS = "crops"  # of a batch: the chosen responses behind crops of their images
CROP_SHARES = (0.01, 0.2)  # of the image's area
# What a response's tokens are where types of tokens say more than text or image: PaliGemma's
# prompt is seen whole by each of its tokens, its answer is not.
RESPONSE_TYPES = {"paligemma": 1}
TOKENS_SEE = ("cross_attention_mask",)  # (1, tokens, images, tiles): what each token sees of them


class Collator:
    """Batches of pairs: the prompt, then a response and its end.

    Models that the shared-image engine serves get a pair as one packed row (`shared_prefix.py`),
    all others as two.

    Args:
        model: The model.
        with_crops: Whether batches hold the chosen responses behind crops of their images, too.
    """

    def __init__(self, model: HFModel, with_crops: bool = False) -> None:
        self.model, self.with_crops = model, with_crops
        self.prompter, self.tokenizer = model.prompter, model.processor.tokenizer
        self.is_upright = model.protocol.orientation == "exif"
        self.end = _end_of_answer(model)
        self.pad = self.tokenizer.pad_token_id
        if self.pad is None:
            self.pad = self.end
        text_config = model.config.get_text_config()
        self.image_token = getattr(model.processor, "image_token_id", None)
        self.limit = getattr(text_config, "max_position_embeddings", None)
        self.response_type = RESPONSE_TYPES.get(model.config.model_type, 0)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch.

        Args:
            examples: Rows of the data set that `make_trainer` builds.

        Returns:
            input_ids, attention_mask and completion_mask of shape (2 × pairs, tokens), all chosen
            rows first; the images' tensors; the reference's log-probabilities (pairs,) if they are
            known; of packed pairs what `shared_prefix.pack` adds, of others types of tokens if the
            model has them. With crops also `crops`, a batch of its own whose first rows are the
            chosen responses.
        """
        encoded, encoded_crops = [], []
        for example in examples:
            image = read_image(Path(example["images"][0]), self.is_upright)
            encoded.append(self.prompter.encode(image, [example["question"]]))
            if self.with_crops:
                crop = cropped(image, f"{example['images'][0]} {example['question']}")
                encoded_crops.append(self.prompter.encode(crop, [example["question"]]))
        chosen = [self._response(example["chosen_text"]) for example in examples]
        rejected = [self._response(example["rejected_text"]) for example in examples]
        for item, *responses in zip(encoded, chosen, rejected, strict=True):
            self._check(item.ids[0])
            self.model.check_ids([*item.ids[0], *responses[0], *responses[1]])
        batch: dict[str, Any] = {}
        if self.model.not_packed_in_training:
            batch |= self._padded(encoded, chosen + rejected)
        else:
            batch |= self._packed(encoded, chosen, rejected)
        if self.with_crops and self.model.not_packed_in_training:
            batch[CROPS] = self._padded(encoded_crops, chosen)
        elif self.with_crops:
            batch[CROPS] = self._packed(encoded_crops, chosen, [[] for _ in chosen])
        for name in REFERENCE:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch

    def _packed(
        self,
        encoded: Sequence[Encoded],
        chosen: Sequence[list[int]],
        rejected: Sequence[list[int]],
    ) -> dict[str, torch.Tensor]:
        """The pairs behind one another in one row, each image once."""
        pairs = []
        for item, *responses in zip(encoded, chosen, rejected, strict=True):
            prompt = torch.tensor(item.ids)  # (1, tokens)
            positions = prefix_positions(self.model.model, prompt, item.token_types, item.pixels)
            pairs.append(TokenPair(item.ids[0], positions, *responses))
        batch = pack(pairs)
        for name in encoded[0].pixels:
            batch[name] = stacked([item.pixels[name] for item in encoded])
        return batch

    def _padded(
        self, encoded: Sequence[Encoded], responses: Sequence[list[int]]
    ) -> dict[str, torch.Tensor]:
        """A row for every response: one to each prompt, then maybe another one to each."""
        num_each = len(responses) // len(encoded)
        rows = []  # prompt, response
        for item, response in zip([*encoded] * num_each, responses, strict=True):
            rows.append((item.ids[0], response))
        starts = torch.tensor([len(prompt) for prompt, _ in rows])[:, None]  # (rows, 1)
        lengths = torch.tensor([len(prompt) + len(completion) for prompt, completion in rows])[
            :, None
        ]
        width = int(lengths.max())
        padded = []
        for prompt, response in rows:
            # Behind, because positions are counted from the front in training.
            padding = [self.pad] * (width - len(prompt) - len(response))
            padded.append([*prompt, *response, *padding])
        columns = torch.arange(width)
        is_token = columns < lengths  # (rows, width)
        batch = {
            "input_ids": torch.tensor(padded),
            "attention_mask": is_token.long(),
            "completion_mask": (is_token & (columns >= starts)).long(),
        }
        for name in encoded[0].token_types:
            types = [item.token_types[name][0] for item in encoded] * num_each
            batch[name] = self._token_types(types, width)
        for name in encoded[0].pixels:
            pixels = [item.pixels[name] for item in encoded]
            if name in TOKENS_SEE:
                pixels = [_lengthened(value, width) for value in pixels]
            batch[name] = stacked(pixels * num_each)
        return batch

    def _token_types(self, of_prompts: Sequence[torch.Tensor], width: int) -> torch.Tensor:
        """Types (rows, width): the prompts' own, then those of a response."""
        rows = torch.full((len(of_prompts), width), self.response_type)
        for row, types in zip(rows, of_prompts, strict=True):
            row[: len(types)] = types
        return rows

    def without_too_long(self, pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those pairs that fit into the model's context.

        Args:
            pairs: Rows with image (a path), instruction, chosen and rejected.
        """
        if not self.limit or not pairs:
            return list(pairs)
        image_tokens = self._length(pairs[0]) - self._text_length(pairs[0])
        fitting = []
        for pair in pairs:
            # An image is read only where it could matter: its tokens depend on its shape.
            most = self._text_length(pair) + LARGEST_IMAGE * image_tokens
            if most <= self.limit or self._length(pair) <= self.limit:
                fitting.append(pair)
        return fitting

    def _text_length(self, pair: Mapping[str, Any]) -> int:
        """Tokens of the question and of the longer response."""
        question = self.tokenizer(pair["instruction"], add_special_tokens=False)["input_ids"]
        return len(question) + self._response_length(pair)

    def _length(self, pair: Mapping[str, Any]) -> int:
        """Tokens of the prompt, image included, and of the longer response."""
        image = read_image(Path(pair["image"]), self.is_upright)
        prompt = self.prompter.encode(image, [pair["instruction"]]).ids[0]
        return len(prompt) + self._response_length(pair)

    def _response_length(self, pair: Mapping[str, Any]) -> int:
        """Tokens of the longer response, its end included."""
        return max(len(self._response(pair[side])) for side in ("chosen", "rejected"))

    def _response(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]

    def _check(self, prompt: list[int]) -> None:
        """Raises RecipeError if a prompt does not begin as it must."""
        bos = self.tokenizer.bos_token_id
        # PaliGemma's images stand in front of it.
        in_front = set(prompt[: prompt.index(bos)]) if bos in prompt else set()
        if in_front - {self.image_token}:
            raise RecipeError(
                "A prompt does not begin with its start token.",
                "The chat template puts it somewhere else.",
                "Correct the checkpoint's chat template.",
            )
        if bos is not None and prompt[:2] == [bos, bos]:
            raise RecipeError(
                "A prompt has its start token twice.",
                "The chat template adds it once more.",
                "Correct the checkpoint's chat template.",
            )


def cropped(image: Image.Image, seed: str) -> Image.Image:
    """A small part of an image, in the image's size, which shows little of what it showed.

    As in mDPO (arXiv 2406.11839), where the chosen response is the worse one behind an image that
    lacks what it tells. A pair always has the same crop, so that the reference is computed once.

    Args:
        image: The image.
        seed: What decides the crop.
    """
    rng = random.Random(seed)
    area = image.width * image.height * rng.uniform(*CROP_SHARES)
    shape = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))  # width by height
    width = min(image.width, max(1, round(math.sqrt(area * shape))))
    height = min(image.height, max(1, round(math.sqrt(area / shape))))
    left = rng.randint(0, image.width - width)
    top = rng.randint(0, image.height - height)
    part = image.crop((left, top, left + width, top + height))
    return part.resize(image.size, Image.Resampling.BICUBIC)


def _end_of_answer(model: HFModel) -> int:
    """The token that ends an answer: the one of its end tokens that the conversation writes."""
    tokenizer = model.processor.tokenizer
    behind = tokenizer(model.prompter.after_answer(), add_special_tokens=False)["input_ids"]
    for token in behind:
        if token in model.settings.eos:
            return int(token)
    return int(tokenizer.eos_token_id)


def stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Images' tensors below each other, those of other shapes padded behind with zeros.

    That is how processors pad tiles (LLaVA-NeXT, Idefics) and pixels (Pixtral) in a batch.
    """
    shapes = torch.tensor([image.shape for image in images])  # (images, dimensions)
    largest = shapes.amax(0).tolist()
    padded = []
    for image in images:
        padding: list[int] = []
        # From the last dimension to the second, as `pad` counts them.
        for dimension in reversed(range(1, image.ndim)):
            padding += [0, largest[dimension] - image.shape[dimension]]
        padded.append(torch.nn.functional.pad(image, padding))
    return torch.cat(padded)


def _lengthened(mask: torch.Tensor, width: int) -> torch.Tensor:
    """A mask (1, tokens, …) whose last token's row stands for all behind it: (1, width, …)."""
    added = width - mask.shape[1]
    return torch.cat([mask, mask[:, -1:].expand(-1, added, *mask.shape[2:])], dim=1)
