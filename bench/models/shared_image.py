"""The shared-image engine: an image and its common prompt prefix are encoded once, all its questions run against them.

The prefix's keys and values stay in a cache. The questions' own tokens are packed behind it in one row per image,
each question blind to the others by a 4-D mask and with its positions restarted, and decoded greedily together;
questions that are finished are fed no more, images that are finished leave the batch. This is exact: every token sees
what it would see in `generate`, in other sums of floating point.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from bench.models.generate import to_device
from bench.models.prompts import Encoded, common_prefix

PREFIX, NOBODY = 0, -1


@dataclass
class Question:
    """One prompt on its way: its row and number in it, the ids it was asked with, and what came out so far."""

    row: int
    owner: int
    ids: list[int]
    limit: int
    chance: random.Random
    position: int = 0
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    p_yes: float | None = None
    p_no: float | None = None


@dataclass(frozen=True)
class Settings:
    """How to decode: ids that end an answer, `generate`'s repetition penalty, ids that are forms of yes and of no.

    At temperature 0 the most likely token is taken, else one is drawn from softmax(logits / temperature).
    """

    eos: frozenset[int]
    repetition_penalty: float
    yes: tuple[int, ...]
    no: tuple[int, ...]
    temperature: float = 0.0


@torch.inference_mode()
def answer_images(
    model: Any,
    settings: Settings,
    images: Sequence[Encoded],
    limits: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[str]] | None = None,
) -> list[list[Question]]:
    """Answers to every prompt of every image.

    `limits` bounds each answer in tokens; `seeds` holds a text for each answer, which alone decides what is drawn for
    it at a temperature above 0. Returns the finished questions, in the order of the prompts.
    """
    cuts = [min(common_prefix(image.ids), min(map(len, image.ids)) - 1) for image in images]
    caches, starts = zip(
        *(encode_prefix(model, image, cut) for image, cut in zip(images, cuts, strict=True)), strict=True
    )
    drawn = seeds or [[""] * len(bound) for bound in limits]
    asked = [
        [
            Question(row, number, ids, limit, random.Random(seed))
            for number, (ids, limit, seed) in enumerate(zip(image.ids, bound, own, strict=True), 1)
        ]
        for row, (image, bound, own) in enumerate(zip(images, limits, drawn, strict=True))
    ]
    batch = _Batch(model, settings, merge(list(caches)), cuts)
    batch.ask(asked, cuts, starts)
    while batch.step():
        pass
    return asked


def encode_prefix(model: Any, image: Encoded, cut: int) -> tuple[DynamicCache, int]:
    """Keys and values of the first `cut` tokens, image included, and the position of the token after them."""
    ids = torch.tensor([image.ids[0][:cut]], device=model.device)
    inputs = {name: to_device(value, model) for name, value in image.pixels.items()}
    types = {name: value[:, :cut].to(model.device) for name, value in image.token_types.items()}
    start = cut
    rope = getattr(model.model, "get_rope_index", None)
    if rope is not None:
        grids = {name: value for name, value in inputs.items() if name.endswith("grid_thw")}
        inputs["position_ids"] = rope(ids, **types, **grids)[0]
        start = int(inputs["position_ids"].max()) + 1
    cache = DynamicCache()
    model(input_ids=ids, **inputs, **types, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, start


def merge(caches: list[DynamicCache]) -> DynamicCache:
    """One cache with a row per image, shorter ones padded behind with zeros that nothing may look at."""
    if len(caches) == 1:
        return caches[0]
    merged = DynamicCache()
    longest = max(cache.get_seq_length() for cache in caches)
    for layer in range(len(caches[0].layers)):
        parts = [(cache.layers[layer].keys, cache.layers[layer].values) for cache in caches]
        stacked = [torch.cat([_pad(part[side], longest) for part in parts]) for side in (0, 1)]
        merged.update(stacked[0], stacked[1], layer)
        for cache in caches:
            cache.layers[layer].keys = cache.layers[layer].values = None
    return merged


def _pad(states: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2]))


class _Batch:
    """Rows of packed questions behind their prefixes; `owners` (rows, kv) says whose each cached column is."""

    def __init__(self, model: Any, settings: Settings, cache: DynamicCache, cuts: Sequence[int]) -> None:
        self.model, self.settings, self.cache = model, settings, cache
        columns = torch.arange(max(cuts), device=model.device)
        lengths = torch.tensor(cuts, device=model.device)[:, None]
        self.owners = torch.where(columns < lengths, PREFIX, NOBODY)
        self.rows: list[list[Question]] = []

    def ask(self, asked: Sequence[Sequence[Question]], cuts: Sequence[int], starts: Sequence[int]) -> None:
        """Runs the questions' own tokens and picks each one's first answer token."""
        self.rows = [list(row) for row in asked]
        feed = []
        for row, cut, start in zip(self.rows, cuts, starts, strict=True):
            tokens: list[tuple[int, int, int]] = []
            for question in row:
                own = question.ids[cut:]
                tokens += [(token, start + i, question.owner) for i, token in enumerate(own)]
                question.position = start + len(own)
            feed.append(tokens)
        ends = []
        for row, cut in zip(self.rows, cuts, strict=True):
            at = -1
            ends.append([at := at + len(question.ids) - cut for question in row])
        kept = sorted({end for row_ends in ends for end in row_ends})
        logits = self._forward(feed, torch.tensor(kept, device=self.model.device))
        place = {end: i for i, end in enumerate(kept)}
        index = [(r, place[end]) for r, row_ends in enumerate(ends) for end in row_ends]
        self._choose([question for row in self.rows for question in row], self._pick(logits, index), first=True)

    def step(self) -> bool:
        """Feeds every unfinished question its last token; False where none is left."""
        alive = [r for r, row in enumerate(self.rows) if any(not question.finished for question in row)]
        if not alive:
            return False
        if len(alive) < len(self.rows):
            keep = torch.tensor(alive, device=self.model.device)
            self.cache.batch_select_indices(keep)
            self.owners = self.owners[keep]
        self.rows = [[question for question in self.rows[r] if not question.finished] for r in alive]
        feed = [[(question.tokens[-1], question.position, question.owner) for question in row] for row in self.rows]
        for row in self.rows:
            for question in row:
                question.position += 1
        logits = self._forward(feed, 0)
        index = [(r, t) for r, row in enumerate(self.rows) for t in range(len(row))]
        self._choose([question for row in self.rows for question in row], self._pick(logits, index), first=False)
        return True

    def _forward(self, feed: Sequence[Sequence[tuple[int, int, int]]], kept: Any) -> torch.Tensor:
        """Logits for (token, position, owner) rows, padded behind; a token sees its prefix and its own question."""
        device = self.model.device
        width = max(map(len, feed))
        padded = [[*row, *[(0, 0, NOBODY)] * (width - len(row))] for row in feed]
        tokens, positions, owners = torch.tensor(padded, device=device).unbind(-1)
        seen = self.owners[:, None, :]
        old = (seen == PREFIX) | ((seen == owners[:, :, None]) & (seen != NOBODY))
        new = (owners[:, None, :] == owners[:, :, None]).tril()
        allowed = torch.cat([old, new], dim=-1)[:, None]
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype, device=device)
        mask.masked_fill_(~allowed, torch.finfo(self.model.dtype).min)
        if hasattr(self.model.model, "get_rope_index"):
            positions = positions.expand(3, *positions.shape)
        self.owners = torch.cat([self.owners, owners], dim=1)
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return logits

    def _pick(self, logits: torch.Tensor, index: Sequence[tuple[int, int]]) -> torch.Tensor:
        rows, columns = torch.tensor(index, device=logits.device).unbind(-1)
        return logits[rows, columns].float()

    def _choose(self, questions: Sequence[Question], logits: torch.Tensor, first: bool) -> None:
        """Takes or draws each question's next token; `logits` is (questions, vocabulary)."""
        if first and self.settings.yes and self.settings.no:
            probabilities = logits.softmax(-1)
            sums = [probabilities[:, list(ids)].sum(-1).tolist() for ids in (self.settings.yes, self.settings.no)]
            for question, yes, no in zip(questions, *sums, strict=True):
                question.p_yes, question.p_no = yes, no
        if self.settings.repetition_penalty != 1.0:
            logits = torch.stack([self._penalised(q, row) for q, row in zip(questions, logits, strict=True)])
        for question, token in zip(questions, self._next(questions, logits), strict=True):
            question.tokens.append(token)
            question.finished = token in self.settings.eos or len(question.tokens) >= question.limit

    def _next(self, questions: Sequence[Question], logits: torch.Tensor) -> list[int]:
        if self.settings.temperature == 0:
            return logits.argmax(-1).tolist()
        sums = (logits.double() / self.settings.temperature).softmax(-1).cumsum(-1)
        points = torch.tensor([[question.chance.random()] for question in questions], device=sums.device)
        return torch.searchsorted(sums, points * sums[:, -1:], right=True).clamp(max=sums.shape[-1] - 1)[:, 0].tolist()

    def _penalised(self, question: Question, logits: torch.Tensor) -> torch.Tensor:
        """`generate`'s repetition penalty over prompt and answer (Keskar et al. 2019, section 4.1)."""
        seen = torch.tensor(sorted({*question.ids, *question.tokens}), device=logits.device)
        scores, penalty = logits[seen], self.settings.repetition_penalty
        logits = logits.clone()
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
        return logits
