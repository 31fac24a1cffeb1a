"""`clip`: how well a response fits the image by an image-text model, as CLIP-DPO ranks responses.

Ouali et al. 2024, arXiv 2408.10433. Such a model reads 77 tokens at most, so a response is rated
sentence by sentence, and its reward is the mean.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignment.rewards.image import load_clip
from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from bench.data.images import read_image
from bench.models import checkpoints

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
TOGETHER = 32  # responses rated between two writes


class ClipReward(Reward):
    """The mean logit of image and sentence.

    `model` is a CLIP-like checkpoint, `processor` another processor if it brings none.
    """

    kind: Literal["clip"]
    model: str
    processor: str | None = None

    def identity(self) -> Any:
        """Digests of the weights and of another processor, or their hub commits."""
        return [checkpoints.contents(name) for name in (self.model, self.processor) if name]

    def weights(self) -> Sequence[str]:
        """The image-text model's."""
        return [self.model]

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """Mean logits in batches. An empty response has no sentence, and is rated as one."""
        score = load_clip(self.model, self.processor)
        batch: list[Rewarded] = []
        for row in responses:
            image = read_image(images[row["image"]].path)
            sentences = SENTENCE_END.split(row["text"].strip())
            logits = [score(sentence, [image])[0] for sentence in sentences]
            batch.append(Rewarded(row, statistics.fmean(logits), []))
            if len(batch) == TOGETHER:
                yield batch
                batch = []
        yield batch
