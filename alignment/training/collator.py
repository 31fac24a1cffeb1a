"""Training batches: prompts tokenised as at inference, responses with their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignment.settings import RecipeError
from bench.data.images import read_image

if TYPE_CHECKING:
    from bench.models.hf import HFModel

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")


class Collator:
    """Batches of [chosen …, rejected …] rows: the prompt, then the response and its end."""

    def __init__(self, model: HFModel) -> None:
        self.prompter, self.tokenizer = model.prompter, model.processor.tokenizer
        self.is_upright = model.protocol.orientation == "exif"
        self.end = self.tokenizer.eos_token_id
        self.pad = self.tokenizer.pad_token_id
        if self.pad is None:
            self.pad = self.end
        text_config = model.config.get_text_config()
        self.limit = getattr(text_config, "max_position_embeddings", None)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch.

        Args:
            examples: Rows of the data set that `make_trainer` builds.

        Returns:
            input_ids, attention_mask and completion_mask of shape (2 × pairs, tokens), the images'
            tensors, and the reference's log-probabilities (pairs,) if they are known.
        """
        encoded = []
        for example in examples:
            image = read_image(Path(example["images"][0]), self.is_upright)
            encoded.append(self.prompter.encode(image, [example["question"]]))
        rows: list[tuple[list[int], list[int]]] = []  # prompt, response
        # All chosen rows, then all rejected ones: trl splits a batch in the middle.
        for side in ("chosen_text", "rejected_text"):
            for item, example in zip(encoded, examples, strict=True):
                rows.append((item.ids[0], self._response(example[side])))
        self._check(rows)
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
        for name in encoded[0].pixels:
            pixels = [item.pixels[name] for item in encoded]
            batch[name] = torch.cat(pixels * 2)  # once for chosen, once for rejected
        for name in REFERENCE:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch

    def _response(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]

    def _check(self, rows: Sequence[tuple[list[int], list[int]]]) -> None:
        """Raises RecipeError if a row does not begin as it must, or is too long for the model."""
        bos = self.tokenizer.bos_token_id
        for prompt, response in rows:
            if bos is not None and bos in prompt and prompt[0] != bos:
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
            length = len(prompt) + len(response)
            if self.limit and length > self.limit:
                raise RecipeError(
                    f"A pair has {length} tokens, and the model takes {self.limit}.",
                    "Image and response together are longer than its context.",
                    "Lower `max_tokens` of the responses, or use smaller images.",
                )
