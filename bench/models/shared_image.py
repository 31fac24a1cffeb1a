"""The shared-image engine: an image and its common prompt prefix are encoded once.

All questions about the image run against the prefix's cached keys and values. The questions' own
tokens are packed behind it in one row per image, each question blind to the others by a 4-D mask
and with its positions restarted, and decoded together. Questions that are finished are fed no more;
images that are finished leave the batch. This is exact: every token sees what it would see in
`generate`, in other sums of floating point.

One row of a batch, with the owner of each column:

    cached prefix (image, instruction)   question 1   question 2   answer 1   answer 2   padding
    PREFIX … PREFIX                      1 … 1        2 … 2        1          2          NOBODY
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from bench.models.contrast import contrasted, distorted, implausible
from bench.models.conversations import Encoded, common_prefix
from bench.models.decoding import GREEDY, Decoding
from bench.models.generate import draw, to_device, told_by_the_model, yes_no_probabilities

PREFIX, NOBODY = 0, -1
FULL = "full_attention"  # transformers' name for a layer without a window
ALL_LAYERS = "all"  # where a language model takes one mask


@dataclass
class Question:
    """One prompt on its way.

    Args:
        owner: Its number in the row, from 1.
        ids: The prompt's token ids, prefix included.
        limit: The most tokens of its answer.
        rng: What draws its tokens at a temperature above 0.
        position: The position of its next token.
        tokens: The answer so far.
        finished: Whether the answer has ended.
        p_yes: P(yes) of the first answer token.
        p_no: P(no) of it.
        is_broken: Whether the model gave NaN for a token, after which there is no answer.
    """

    owner: int
    ids: list[int]
    limit: int
    rng: random.Random
    position: int = 0
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    p_yes: float | None = None
    p_no: float | None = None
    is_broken: bool = False


@dataclass(frozen=True)
class TokenRules:
    """How to choose tokens, and when an answer ends.

    Args:
        eos: Ids that end an answer.
        repetition_penalty: `generate`'s.
        yes: Ids of single tokens that are forms of yes.
        no: Ids of single tokens that are forms of no.
        decoding: Greedy, or sampling.
    """

    eos: frozenset[int]
    repetition_penalty: float
    yes: tuple[int, ...]
    no: tuple[int, ...]
    decoding: Decoding = GREEDY


class Column(NamedTuple):
    """One token to feed: its id, its position, and the question that it belongs to."""

    token: int
    position: int
    owner: int


PADDING = Column(0, 0, NOBODY)


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, columns, width), with room for more columns.

    A step copies its own columns; DynamicLayer copies all that is cached, at every step.
    """

    keys: torch.Tensor
    values: torch.Tensor
    buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends columns; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self.buffers is None or self.buffers[0].shape[-2] < end:
            room = end + end // 4
            self.buffers = (
                _with_room(self.keys, key_states, length, room),
                _with_room(self.values, value_states, length, room),
            )
        keys, values = self.buffers
        keys[:, :, length:end] = key_states
        values[:, :, length:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps some rows and frees the others."""
        super().batch_select_indices(indices.to(self.keys.device))
        self.buffers = None


def _with_room(cached: torch.Tensor, new: torch.Tensor, length: int, columns: int) -> torch.Tensor:
    """A buffer of `columns` columns for states like `new`, with the cached ones in front."""
    rows, heads, _, width = new.shape
    buffer = new.new_empty((rows, heads, columns, width))
    if length:
        buffer[:, :, :length] = cached
    return buffer


class Prefix(NamedTuple):
    """An encoded prefix: its keys and values, its length, and the position behind it."""

    cache: DynamicCache
    length: int
    next_position: int


@torch.inference_mode()
def answer_images(
    model: Any,
    settings: TokenRules,
    images: Sequence[Encoded],
    limits: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[str]],
    noise_seeds: Sequence[int] = (),
) -> list[list[Question]]:
    """Answers to every prompt of every image.

    Args:
        model: An architecture among `hf.SERVED`.
        settings: How to decode.
        images: Images with their prompts.
        limits: The most tokens of each answer.
        seeds: A text for each answer, which decides what is drawn for it at a temperature above 0,
            so that a batch's composition does not.
        noise_seeds: For contrastive decoding, what decides each image's distortion.

    Returns:
        The finished questions, in the order of the prompts.
    """
    contrast = settings.decoding.contrast
    prefixes: list[Prefix] = []
    distorted_prefixes: list[Prefix] = []
    rows: list[list[Question]] = []
    for number, (image, image_limits, image_seeds) in enumerate(
        zip(images, limits, seeds, strict=True)
    ):
        # At least one token of each prompt must be fed behind the prefix, to give the first logits.
        length = min(common_prefix(image.ids), min(map(len, image.ids)) - 1)
        prefixes.append(encode_prefix(model, image, length))
        if contrast is not None:
            noised = distorted(image, contrast.noise_step, noise_seeds[number])
            distorted_prefixes.append(encode_prefix(model, noised, length))
        row: list[Question] = []
        for ids, limit, seed in zip(image.ids, image_limits, image_seeds, strict=True):
            row.append(Question(len(row) + 1, ids, limit, random.Random(seed)))
        rows.append(row)
    views = [prefixes] if contrast is None else [prefixes, distorted_prefixes]
    batch = _Batch(model, settings, [View.of(view, model.device) for view in views])
    batch.ask(rows, prefixes)
    while batch.step():
        pass
    return rows


def encode_prefix(model: Any, image: Encoded, length: int) -> Prefix:
    """Encodes the first `length` tokens of an image's prompts, image included."""
    ids = torch.tensor([image.ids[0][:length]], device=model.device)  # (1, length)
    inputs = {name: to_device(value, model) for name, value in image.pixels.items()}
    types = {name: value[:, :length].to(model.device) for name, value in image.token_types.items()}
    inputs["position_ids"] = prefix_positions(model, ids, types, inputs)
    next_position = int(inputs["position_ids"].max()) + 1
    cache = DynamicCache()
    # Only keys and values are wanted, no logits.
    last = torch.tensor([length - 1], device=model.device)
    with (
        told_by_the_model(str(model.name_or_path)),
        _last_layer_at(model, last),
        _without_unread_layer(model),
    ):
        model.model(input_ids=ids, **inputs, **types, past_key_values=cache, use_cache=True)
    return Prefix(cache, length, next_position)


def attention_windows(text_config: Any) -> dict[str, int | None]:
    """How many of the last tokens a layer sees, None for all of them, by kind of layer.

    A language model with layers of several kinds takes a mask for each, under transformers' names;
    all others take one, here under ALL_LAYERS.
    """
    window = getattr(text_config, "sliding_window", None)
    kinds = set(getattr(text_config, "layer_types", None) or ())
    if kinds == {FULL}:
        return {ALL_LAYERS: None}
    if not kinds:
        # Mistral's first 7B: every layer has the window, if there is one.
        return {ALL_LAYERS: window}
    return {kind: None if kind == FULL else window for kind in sorted(kinds)}


def prefix_positions(
    model: Any,
    ids: torch.Tensor,
    types: Mapping[str, torch.Tensor],
    pixels: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Positions of a prefix's tokens: (1, tokens), by M-RoPE (3, 1, tokens).

    M-RoPE counts an image's rows and columns, so positions run behind the count of tokens.

    Args:
        model: The model.
        ids: The prefix's token ids, shape (1, tokens).
        types: Types of its tokens, by name.
        pixels: The image's tensors, by name.
    """
    rope_index = getattr(model.model, "get_rope_index", None)
    if rope_index is None:
        return torch.arange(ids.shape[1], device=ids.device)[None]
    grids = {name: value for name, value in pixels.items() if name.endswith("grid_thw")}
    positions: torch.Tensor = rope_index(ids, **types, **grids)[0]
    return positions


def _last_layer_at(model: Any, columns: torch.Tensor) -> AbstractContextManager[None]:
    """Computes the last layer's feed-forward network in some columns only.

    Behind it come the logits alone, and they are wanted nowhere else: of a prefix nowhere, of
    questions at their ends. With `_without_unread_layer` it saves 7 % of the model with 8 layers in
    tests/speed/engine.py.

    Args:
        model: The model.
        columns: Indices of columns, shape (kept,).
    """
    feed_forward = model.get_decoder().layers[-1].mlp
    whole = feed_forward.forward

    def at_columns(states: torch.Tensor) -> torch.Tensor:  # (rows, columns, width)
        computed = torch.zeros_like(states)
        kept = columns.to(states.device)  # a layer may lie on another device
        computed[:, kept] = whole(states[:, kept])
        return computed

    return _replaced(feed_forward, at_columns)


def _without_unread_layer(model: Any) -> AbstractContextManager[None]:
    """Leaves out the vision tower's last layer where LLaVA reads the one before it."""
    encoder = getattr(getattr(model.model, "vision_tower", None), "encoder", None)
    if encoder is None or getattr(model.config, "vision_feature_layer", None) != -2:
        return nullcontext()
    return _replaced(encoder.layers[-1], lambda states, *_, **__: states)


@contextmanager
def _replaced(module: torch.nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """The module with another forward, which is taken away again."""
    own = vars(module).get("forward")  # adapters and quantisers may have put one there
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def merge(caches: list[DynamicCache]) -> Cache:
    """One cache with a row per image.

    Shorter prefixes are padded behind with zeros that nothing may look at. The caches given are
    emptied layer by layer, so that no layer is held twice for long.
    """
    merged = Cache(layer_class_to_replicate=GrowingLayer)
    longest = max(cache.get_seq_length() for cache in caches)
    for index in range(len(caches[0].layers)):
        # Layer by layer: the merged copy of one is made before the parts of the next are read.
        layers = [cache.layers[index] for cache in caches]
        keys = torch.cat([_pad(layer.keys, longest) for layer in layers])
        values = torch.cat([_pad(layer.values, longest) for layer in layers])
        merged.update(keys, values, index)
        for layer in layers:
            layer.keys = layer.values = None
    return merged


def _pad(states: torch.Tensor, length: int) -> torch.Tensor:
    """Keys or values (1, heads, tokens, width) padded behind to `length` tokens."""
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2]))


@dataclass
class View:
    """What rows of questions look at: cached prefixes, and whose each cached column is.

    Contrastive decoding has two views of the same rows, of the images and of the distorted ones.

    Args:
        cache: Keys and values.
        owners: Shape (rows, cached).
        positions: Shape (rows, cached); windows are measured by them. M-RoPE's are not columns', so
            no such model with windows is served.
    """

    cache: Cache
    owners: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of(cls, prefixes: Sequence[Prefix], device: torch.device) -> View:
        """The view of some prefixes, one row for each; their own caches are emptied."""
        cache = merge([prefix.cache for prefix in prefixes])
        lengths = torch.tensor([prefix.length for prefix in prefixes], device=device)
        columns = torch.arange(int(lengths.max()), device=device)
        owners = torch.where(columns < lengths[:, None], PREFIX, NOBODY)
        return cls(cache, owners, columns.expand(owners.shape))

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps some rows and frees the others."""
        self.cache.batch_select_indices(rows)
        self.owners = self.owners[rows]
        self.positions = self.positions[rows]


class _Batch:
    """Rows of packed questions behind their prefixes."""

    def __init__(self, model: Any, settings: TokenRules, views: Sequence[View]) -> None:
        self.model, self.settings, self.views = model, settings, views
        self.windows = attention_windows(model.config.get_text_config())
        self.rows: list[list[Question]] = []

    def ask(self, rows: Sequence[Sequence[Question]], prefixes: Sequence[Prefix]) -> None:
        """Runs the questions' own tokens and picks each one's first answer token."""
        self.rows = list(map(list, rows))
        feed: list[list[Column]] = []
        last_columns: list[list[int]] = []  # of each question in each row
        for row, prefix in zip(self.rows, prefixes, strict=True):
            columns: list[Column] = []
            row_last = []
            for question in row:
                question.position = prefix.next_position
                for token in question.ids[prefix.length :]:
                    columns.append(Column(token, question.position, question.owner))
                    question.position += 1
                row_last.append(len(columns) - 1)
            feed.append(columns)
            last_columns.append(row_last)
        # Logits are as wide as the vocabulary, so they are computed only where a question ends.
        kept = sorted({column for row_last in last_columns for column in row_last})
        ends = torch.tensor(kept, device=self.model.device)
        with _last_layer_at(self.model, ends):
            logits = self._forward(feed, ends)
        kept_index = {column: index for index, column in enumerate(kept)}
        where = []
        for row_index, row_last in enumerate(last_columns):
            where += [(row_index, kept_index[column]) for column in row_last]
        self._choose(logits, where, first=True)

    def step(self) -> bool:
        """Feeds every unfinished question its last token; False if none is left."""
        alive = []
        for row_index, row in enumerate(self.rows):
            if any(not question.finished for question in row):
                alive.append(row_index)
        if not alive:
            return False
        # A finished image's keys and values are freed at once.
        if len(alive) < len(self.rows):
            keep = torch.tensor(alive, device=self.model.device)
            for view in self.views:
                view.keep(keep)
        feed = []
        rows = []
        for row_index in alive:
            row = [question for question in self.rows[row_index] if not question.finished]
            columns = []
            for question in row:
                columns.append(Column(question.tokens[-1], question.position, question.owner))
                question.position += 1
            rows.append(row)
            feed.append(columns)
        self.rows = rows
        logits = self._forward(feed, 0)  # 0 keeps all columns: each is a question's last one
        where: list[tuple[int, int]] = []
        for row_index, row in enumerate(self.rows):
            where += zip([row_index] * len(row), range(len(row)), strict=True)
        self._choose(logits, where, first=False)
        return True

    def _forward(self, feed: Sequence[Sequence[Column]], kept: Any) -> list[torch.Tensor]:
        """In each view the logits (rows, kept, vocabulary) of the columns to feed."""
        return [self._forward_in(view, feed, kept) for view in self.views]

    def _forward_in(self, view: View, feed: Sequence[Sequence[Column]], kept: Any) -> torch.Tensor:
        """Logits (rows, kept, vocabulary) of the columns to feed, rows padded behind.

        A token sees its row's prefix and its own question, nothing else.
        """
        device = self.model.device
        width = max(map(len, feed))
        padded = [[*row, *[PADDING] * (width - len(row))] for row in feed]
        tokens, positions, owners = torch.tensor(padded, device=device).unbind(-1)  # (rows, width)

        cached_owner = view.owners[:, None, :]  # (rows, 1, cached)
        query_owner = owners[:, :, None]  # (rows, width, 1)
        sees_prefix = cached_owner == PREFIX
        sees_own_past = (cached_owner == query_owner) & (cached_owner != NOBODY)
        same_question = owners[:, None, :] == query_owner  # (rows, width, width)
        # Padding sees padding: a row of the mask without any True would give NaN.
        sees_own_new = same_question.tril()
        allowed = torch.cat([sees_prefix | sees_own_past, sees_own_new], dim=-1)
        allowed = allowed[:, None]  # (rows, 1, width, cached + width)

        view.positions = torch.cat([view.positions, positions], dim=1)
        mask = self._mask(allowed, positions, view.positions)
        if hasattr(self.model.model, "get_rope_index"):
            # M-RoPE takes three positions a token; those of text are equal.
            positions = positions.expand(3, *positions.shape)
        # From the next step on these columns are cached.
        view.owners = torch.cat([view.owners, owners], dim=1)
        logits: torch.Tensor = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=view.cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
        return logits

    def _mask(
        self, allowed: torch.Tensor, positions: torch.Tensor, all_positions: torch.Tensor
    ) -> Any:
        """What the language model takes as its mask, by kind of layer if it has several.

        Args:
            allowed: What a layer without a window sees, shape (rows, 1, width, cached + width).
            positions: Those of the columns to feed, shape (rows, width).
            all_positions: Those of the cached columns and of these, shape (rows, cached + width).
        """
        masks = {}
        for kind, window in self.windows.items():
            visible = allowed
            if window is not None:
                distances = positions[:, None, :, None] - all_positions[:, None, None, :]
                visible = allowed & (distances < window)
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=visible.device)
            masks[kind] = mask.masked_fill_(~visible, torch.finfo(self.model.dtype).min)
        return masks.get(ALL_LAYERS, masks)  # one mask, or one for each kind of layer

    def _choose(
        self, all_logits: Sequence[torch.Tensor], where: Sequence[tuple[int, int]], first: bool
    ) -> None:
        """Takes or draws every question's next token.

        Args:
            all_logits: In each view, shape (rows, kept, vocabulary).
            where: (row, kept column) of each question's last token.
            first: Whether it is the answers' first token, whose P(yes) and P(no) are recorded.
        """
        questions = [question for row in self.rows for question in row]
        rows, columns = torch.tensor(where, device=all_logits[0].device).unbind(-1)
        logits = all_logits[0][rows, columns].float()  # (questions, vocabulary)
        for question, is_broken in zip(questions, logits.isnan().any(-1).tolist(), strict=True):
            question.is_broken = question.is_broken or is_broken
        excluded = None
        contrast = self.settings.decoding.contrast
        if contrast is not None:
            excluded = implausible(logits, contrast.beta)
            beside = all_logits[1][rows, columns].float()
            logits = contrasted(logits, beside, contrast.alpha)
        # Before the penalty: P(yes) is what the model says, not what is made of it.
        if first:
            known = yes_no_probabilities(logits, self.settings.yes, self.settings.no)
            for question, (yes, no) in zip(questions, known, strict=True):
                question.p_yes, question.p_no = yes, no
        if excluded is not None:
            logits = logits.masked_fill(excluded, -math.inf)
        if self.settings.repetition_penalty != 1.0:
            penalised = [self._penalise(q, row) for q, row in zip(questions, logits, strict=True)]
            logits = torch.stack(penalised)
        for question, token in zip(questions, self._next_tokens(questions, logits), strict=True):
            question.tokens.append(token)
            ended = token in self.settings.eos
            is_full = len(question.tokens) >= question.limit
            question.finished = ended or is_full or question.is_broken

    def _next_tokens(self, questions: Sequence[Question], logits: torch.Tensor) -> list[int]:
        """The most likely tokens, or drawn ones."""
        if not self.settings.decoding.temperature:
            return logits.argmax(-1).tolist()
        rngs = [question.rng for question in questions]
        return draw(logits, self.settings.decoding, rngs).tolist()

    def _penalise(self, question: Question, logits: torch.Tensor) -> torch.Tensor:
        """`generate`'s repetition penalty over prompt and answer.

        Source: Keskar et al. 2019, arXiv 1909.05858, section 4.1.
        """
        # Each token once, however often it stands there, as `generate` does it.
        token_ids = torch.tensor(sorted({*question.ids, *question.tokens}), device=logits.device)
        scores, penalty = logits[token_ids], self.settings.repetition_penalty
        logits = logits.clone()
        logits[token_ids] = torch.where(scores < 0, scores * penalty, scores / penalty)
        return logits
