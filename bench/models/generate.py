"""The plain way: transformers' `generate` in batches.

It serves the models that the shared-image engine does not.
"""

from __future__ import annotations

import copy
import math
import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bench.errors import ModelError, one_line
from bench.models.decoding import Decoding
from bench.types import Request

if TYPE_CHECKING:
    from bench.models.hf import HFModel

YesNo = tuple[float | None, float | None]  # P(yes) and P(no), None if they are not known
BATCH = 8  # prompts in one call of `generate`


class Generated(NamedTuple):
    """One answer: its text, its length in tokens, whether it ended by itself, P(yes) and P(no).

    A reasoning model's thoughts stand apart, and the others are the answer's behind them. `error`
    says why there is no answer.
    """

    text: str
    tokens: int
    stopped: bool
    p_yes: float | None
    p_no: float | None
    thoughts: str = ""
    error: str | None = None


NOT_A_NUMBER = Generated(
    "",
    0,
    True,
    None,
    None,
    error="the model computes NaN: try --dtype bfloat16 or float32, or get its files again",
)


class NaNWatch(LogitsProcessor):  # type: ignore[misc]
    """Remembers the rows of a batch for which the model gave NaN; it changes nothing."""

    def __init__(self) -> None:
        self.rows: set[int] = set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) as they are."""
        self.rows |= set(scores.isnan().any(-1).nonzero()[:, 0].tolist())
        return scores


class OwnDraws(LogitsProcessor):  # type: ignore[misc]
    """Draws each row's token by its own random numbers, so that a batch decides nothing.

    To `generate`, which is greedy, the token that was drawn is the only one possible.
    """

    def __init__(self, decoding: Decoding, seeds: Sequence[str]) -> None:
        self.decoding = decoding
        self.rngs = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) with one token a row."""
        tokens = draw(scores.float(), self.decoding, self.rngs)
        only = torch.full_like(scores, -math.inf)
        only[torch.arange(len(tokens)), tokens] = 0.0
        return only


def draw(logits: torch.Tensor, decoding: Decoding, rngs: Sequence[random.Random]) -> torch.Tensor:
    """Tokens (rows,) drawn from softmax(logits / temperature), logits of shape (rows, vocabulary).

    The cumulative distribution is inverted at a number of each row's own generator.
    """
    # In double precision: the sums of 150,000 small numbers must end at 1.
    scores = logits.double() / decoding.temperature
    probabilities = _likeliest(scores, decoding).softmax(-1)
    cumulative = probabilities.cumsum(-1)  # (rows, vocabulary)
    uniform = [[rng.random()] for rng in rngs]
    points = torch.tensor(uniform, device=cumulative.device) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, points, right=True)
    return tokens.clamp(max=cumulative.shape[-1] - 1)[:, 0]


def _likeliest(scores: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Scores (rows, vocabulary) with those that are not to be drawn at minus infinity.

    By transformers' own warpers, in their order: top-k, then top-p of what is left.
    """
    no_ids = torch.empty((0, 0), dtype=torch.long)
    if decoding.top_k:
        scores = TopKLogitsWarper(decoding.top_k)(no_ids, scores)
    if decoding.top_p < 1:
        scores = TopPLogitsWarper(decoding.top_p)(no_ids, scores)
    return scores


@torch.inference_mode()
def generate(
    model: HFModel, images: Sequence[Image.Image], requests: Sequence[Request]
) -> list[Generated]:
    """Answers to the requests, which are of one kind, one image for each."""
    # LLaVA's own prompt form is tokenised piece by piece, which no processor does for a batch.
    size = 1 if model.protocol.conversation == "vicuna_v1" else BATCH
    # Somebody's own decoding may know one row only.
    size = 1 if model.decoding_code is not None else size
    answers: list[Generated] = []
    for start in range(0, len(requests), size):
        part = slice(start, start + size)
        answers += _generate_batch(model, images[part], requests[part])
    return answers


def _generate_batch(
    model: HFModel, images: Sequence[Image.Image], requests: Sequence[Request]
) -> list[Generated]:
    inputs = model_inputs(model, images, requests)
    wants_probabilities = requests[0].yes_no
    limit = requests[0].limit
    # The model keeps its own; what is asked here is this batch's.
    config = copy.deepcopy(model.model.generation_config)
    config.update(
        max_new_tokens=limit,
        return_dict_in_generate=True,
        output_logits=wants_probabilities,
        do_sample=False,
        num_beams=model.decoding.beams,
    )
    watch = NaNWatch()
    processors = LogitsProcessorList([watch])
    if model.decoding.temperature:
        # A text of its own for each answer, as the shared-image engine has.
        seeds = [f"{model.seed} {request.key}" for request in requests]
        processors.append(OwnDraws(model.decoding, seeds))
    tokenizer = model.processor.tokenizer  # stop strings are looked for in its tokens
    arguments = inputs | {
        "generation_config": config,
        "logits_processor": processors,
        "tokenizer": tokenizer,
    }
    prompt_length = inputs["input_ids"].shape[1]
    if model.decoding_code is not None:
        output = _by_code(model, arguments, prompt_length)
        wants_probabilities = wants_probabilities and bool(getattr(output, "logits", None))
    else:
        with told_by_the_model(model.name):
            output = model.model.generate(**arguments)
    # `generate` returns prompt and answer in one row.
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    rows = sequences[:, prompt_length:].tolist()
    settings = model.settings
    probabilities: list[YesNo] = [(None, None)] * len(requests)
    if wants_probabilities:
        # Of the raw logits: processors would have changed the distribution.
        # All beams of a row begin alike.
        first_logits = output.logits[0][:: model.decoding.beams]
        probabilities = yes_no_probabilities(first_logits, settings.yes, settings.no)
    padding = config.pad_token_id
    answers = []
    broken = {row // model.decoding.beams for row in watch.rows}
    for index, request in enumerate(requests):
        if index in broken:
            answers.append(NOT_A_NUMBER)
            continue
        row, (p_yes, p_no) = rows[index], probabilities[index]
        tokens = _until_end(row, settings.eos, padding)
        answers.append(model.said(request, tokens, p_yes, p_no))
    return answers


def yes_no_probabilities(
    logits: torch.Tensor, yes: Sequence[int], no: Sequence[int]
) -> list[YesNo]:
    """P(yes) and P(no) of each row; None where the vocabulary has no such words.

    Args:
        logits: Shape (rows, vocabulary).
        yes: Ids of single tokens that are forms of yes.
        no: Ids of single tokens that are forms of no.
    """
    if not yes or not no:
        return [(None, None)] * len(logits)
    probabilities = logits.float().softmax(-1)
    p_yes = probabilities[:, list(yes)].sum(-1).tolist()
    p_no = probabilities[:, list(no)].sum(-1).tolist()
    return list(zip(p_yes, p_no, strict=True))


def _by_code(model: HFModel, arguments: dict[str, Any], prompt_length: int) -> Any:
    """What somebody's own decoding gives. Raises ModelError if it fails or gives no tokens."""
    code = model.decoding.code
    assert code is not None
    remedy = "What was answered is kept: correct it, or use another decoding."
    try:
        output = model.model.generate(
            **arguments,
            **code.arguments,
            custom_generate=str(model.decoding_code),
            trust_remote_code=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # it is anybody's code
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ModelError(
            f"The decoding {code.source} failed.",
            f"{type(error).__name__}: {one_line(error)} ({last.name}, line {last.lineno}).",
            remedy,
        ) from error
    sequences = output if isinstance(output, torch.Tensor) else getattr(output, "sequences", None)
    ids = arguments["input_ids"]
    is_tokens = (
        isinstance(sequences, torch.Tensor)
        and sequences.dtype == torch.long
        and sequences.dim() == 2
        and len(sequences) == len(ids)
        and bool((sequences[:, :prompt_length] == ids).all())
    )
    if not is_tokens:
        raise ModelError(
            f"The decoding {code.source} gives no tokens.",
            "It must return ids of shape (rows, prompt and answer), or an object with `sequences`.",
            remedy,
        )
    return output


def model_inputs(
    model: HFModel, images: Sequence[Image.Image], requests: Sequence[Request]
) -> dict[str, torch.Tensor]:
    """What `generate` takes, padded on the left so that all answers begin in the same column."""
    prompter = model.prompter
    if model.protocol.conversation == "vicuna_v1":
        encoded = prompter.encode(images[0], [requests[0].prompt])
        inputs = {"input_ids": torch.tensor(encoded.ids), **encoded.pixels}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    else:
        texts = [prompter.text(request.prompt) for request in requests]
        output = model.processor(
            images=[[prompter.prepare(image)] for image in images],
            text=texts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=prompter.adds_special(texts[0]),
        )
        inputs = dict(output)
        inputs.pop("labels", None)  # PaliGemma's processor adds them
    return {name: to_device(value, model.model) for name, value in inputs.items()}


def to_device(value: torch.Tensor, network: Any) -> torch.Tensor:
    """The tensor on the model's device, in its dtype if it is floating point."""
    if value.is_floating_point():
        return value.to(network.device, network.dtype)
    return value.to(network.device)


@contextmanager
def told_by_the_model(name: str) -> Iterator[None]:
    """What a model of transformers refuses in what its own processor made becomes a ModelError."""
    try:
        yield
    except ValueError as error:
        raise ModelError(
            f"{name} refuses what its processor made of an image and a question.",
            one_line(error),
            "Its files do not fit together: get config and processor again from one revision of "
            "the source.",
        ) from error


def _until_end(tokens: list[int], eos: frozenset[int], padding: int | None) -> list[int]:
    """The tokens up to and with the first that ends the answer; what follows is padding."""
    for index, token in enumerate(tokens):
        if token in eos:
            return tokens[: index + 1]
    # A row that a stop string has ended is filled up without an end token.
    end = len(tokens)
    while end and tokens[end - 1] == padding:
        end -= 1
    return tokens[:end]
