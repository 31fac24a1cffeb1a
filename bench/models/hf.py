"""`hf`: any image-text-to-text checkpoint of transformers, by hub id or folder, with an optional PEFT adapter.

Checkpoints in LLaVA's original format are mapped onto transformers' in memory (`bench/models/original.py`).

Architectures in SERVED run on the shared-image engine; their answers are checked token for token against `generate`
in tests/unit/test_shared_image.py. All others go through batched `generate`, and run.json says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import registry
from bench.data.images import read_image
from bench.errors import DataError, ModelError
from bench.models import generate, loading
from bench.models.original import Original, is_original
from bench.models.prompts import Encoded, Prompter
from bench.models.protocol import LLAVA, NATIVE, ByProtocol, Protocol, read_protocol
from bench.models.shared_image import Settings, answer_images
from bench.types import Answer, Batch, Request

SERVED = frozenset(
    "llava llava_next llava_onevision qwen2_vl qwen2_5_vl idefics3 smolvlm internvl".split(),
)
GREEDY_FIELDS = ("no_repeat_ngram_size", "suppress_tokens", "bad_words_ids", "min_length", "sequence_bias")
PROMPTS_AT_ONCE = {"cpu": 32, "cuda": 128}
AHEAD = 16


class HFModel(ByProtocol):
    """Reads config and processor at once, the weights when the first answer is wanted.

    `spec` is NAME or NAME+ADAPTER. Options: protocol, dtype, device, revision, trust_remote_code, temperature, seed.
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        name, _, adapter = spec.partition("+")
        name = registry.MODEL_ALIASES.get(name, name)
        self.folder = loading.locate(name, options.get("revision"))
        self.name = self.folder.resolve().name if Path(name).is_dir() else name
        self.adapter = loading.locate_adapter(adapter) if adapter else None
        self.checkpoint = (
            Original(self.folder)
            if is_original(self.folder)
            else loading.Checkpoint(self.folder, bool(options.get("trust_remote_code")))
        )
        self.config, self.processor = self.checkpoint.config, self.checkpoint.processor
        self.device = _device(options.get("device") or "auto")
        self.dtype = _dtype(options.get("dtype") or "auto", self.device)
        self.protocol = self._protocol(options.get("protocol") or "auto")
        self.prompter = Prompter(self.processor, self.protocol)
        self.decoding = _generation_config(self.folder, self.config)
        self.temperature, self.seed = float(options.get("temperature") or 0), int(options.get("seed") or 0)
        self.refusal = self._refusal()
        self.at_once = PROMPTS_AT_ONCE.get(self.device.type, 32)
        self._fits = self.at_once
        self._model: Any = None

    def describe(self) -> dict[str, Any]:
        """Everything that can change an answer."""
        names = ("eos_token_id", "repetition_penalty")
        return {
            "kind": "hf",
            "name": self.name if self.adapter is None else f"{self.name}+{self.adapter.name}",
            "revision": loading.commit(self.folder),
            "weights_sha256": self._fingerprints[0],
            "adapter_sha256": self._fingerprints[1],
            "architecture": self.config.model_type,
            "processor": f"{type(self.processor).__name__}, {type(self.processor.image_processor).__name__}",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type if self.device.type != "cuda" else torch.cuda.get_device_name(self.device),
            "protocol": self.protocol.model_dump(),
            "decoding": self._choice() | {name: getattr(self.decoding, name) for name in names},
            "engine": f"generate ({self.refusal})" if self.refusal else "shared-image",
        }

    def _choice(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "seed": self.seed} if self.temperature else {"greedy": True}

    @cached_property
    def _fingerprints(self) -> tuple[str, str | None]:
        return self.checkpoint.fingerprint(), loading.fingerprint(self.adapter) if self.adapter else None

    @property
    def model(self) -> Any:
        """The model, loaded on first use."""
        if self._model is None:
            self._model = self.checkpoint.read(self.dtype, self.device)
            if self.adapter is not None:
                loading.add_adapter(self._model, self.adapter)
        return self._model

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Answers in batches of whole images; while one is computed, the next images are read in the background."""
        batches = plan(requests, self.at_once)
        waiting = [batch for batch in batches if any(r.key not in done for group in batch for r in group)]
        pool = ThreadPoolExecutor(2)
        try:
            queue: list[list[Future[Any]]] = []
            for index, batch in enumerate(waiting):
                while len(queue) < len(waiting) and (len(queue) <= index or _images(waiting, index, queue) < AHEAD):
                    queue.append([pool.submit(self._encode, group) for group in waiting[len(queue)]])
                encoded = [future.result() for future in queue[index]]
                queue[index] = []
                yield self._answer(batch, encoded)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _encode(self, group: Sequence[Request]) -> Encoded | Image.Image | str:
        """The group's image and prompts, or the reason why its image cannot be read."""
        path = group[0].path
        assert path is not None
        try:
            image = read_image(path)
            if not self.refusal:
                return self.prompter.encode(image, [request.prompt for request in group])
            self.prompter.whole(self.prompter.prepare(image), group[0].prompt)  # `generate` prepares it again
            return image
        except DataError as error:
            return f"{error.fact} {error.reason}"
        except (ValueError, RuntimeError, ZeroDivisionError) as error:  # a processor's limits on size or shape
            return f"image {path.name} cannot be prepared ({type(error).__name__}: {str(error)[:120]})"

    def _answer(self, batch: Sequence[Sequence[Request]], encoded: Sequence[Encoded | Image.Image | str]) -> Batch:
        started = time.perf_counter()
        broken = [
            (r, Answer("", error=e)) for g, e in zip(batch, encoded, strict=True) if isinstance(e, str) for r in g
        ]
        good = [(g, e) for g, e in zip(batch, encoded, strict=True) if not isinstance(e, str)]
        answers = self._within_memory(good) if good else []
        seconds = (time.perf_counter() - started) / max(1, len(answers))
        return broken + [
            (request, Answer(text, tokens, seconds, "stop" if stopped else "length", p_yes, p_no))
            for request, (text, tokens, stopped, p_yes, p_no) in answers
        ]

    def _within_memory(self, work: Sequence[tuple[Sequence[Request], Any]]) -> list[tuple[Request, generate.Spoken]]:
        """Computes the work whole, or in halves where it has proved too large for the device's memory."""
        size = sum(len(group) for group, _ in work)
        if size <= self._fits:
            try:
                return self._compute(work)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise ModelError(
                        f"One question about {work[0][0][0].image} does not fit in the memory of {self.device}.",
                        str(error).splitlines()[0],
                        "Use --dtype bfloat16, a larger device or --device cpu; what was answered is kept.",
                    ) from error
                self._fits = size // 2
            torch.cuda.empty_cache()
        halves = _halve(work)
        return [item for half in halves for item in self._within_memory(half)]

    def _compute(self, work: Sequence[tuple[Sequence[Request], Any]]) -> list[tuple[Request, generate.Spoken]]:
        requests = [request for group, _ in work for request in group]
        if self.refusal:
            images = [image for group, image in work for _ in group]
            return list(zip(requests, generate.speak(self, images, requests), strict=True))
        limits = [[request.max_tokens for request in group] for group, _ in work]
        seeds = [[f"{self.seed} {request.key}" for request in group] for group, _ in work]
        rows = answer_images(self.model, self.settings, [item for _, item in work], limits, seeds)
        spoken = []
        for request, question in zip(requests, (q for row in rows for q in row), strict=True):
            p = (question.p_yes, question.p_no) if request.yes_no else (None, None)
            spoken.append((request, self.spoken(question.tokens, *p)))
        return spoken

    def spoken(self, tokens: Sequence[int], p_yes: float | None, p_no: float | None) -> generate.Spoken:
        """Text, number of tokens and whether it ended by itself, from generated ids."""
        stopped = bool(tokens) and tokens[-1] in self.settings.eos
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return text, len(tokens) - stopped, stopped, p_yes, p_no

    @property
    def settings(self) -> Settings:
        """How to decode."""
        eos = self.decoding.eos_token_id
        tokenizer = self.processor.tokenizer
        return Settings(
            frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos]),
            self.decoding.repetition_penalty or 1.0,
            word_ids(tokenizer, "yes"),
            word_ids(tokenizer, "no"),
            self.temperature,
        )

    def _protocol(self, name: str) -> Protocol:
        """The protocol by name or file; auto is `llava` for checkpoints that speak Vicuna's USER/ASSISTANT form."""
        if name != "auto":
            return read_protocol(name)
        if self.config.model_type != "llava":
            return NATIVE
        text = Prompter(self.processor, NATIVE).text("?") if getattr(self.processor, "chat_template", None) else ""
        return LLAVA if not text or text.endswith("ASSISTANT:") else NATIVE

    def _refusal(self) -> str | None:
        """Why the shared-image engine does not serve this model, None where it does."""
        if self.config.model_type not in SERVED:
            return f"{self.config.model_type} is not among the architectures checked for the shared-image engine"
        special = [name for name in GREEDY_FIELDS if getattr(self.decoding, name, None)]
        return f"its generation config sets {', '.join(special)}" if special else None


def plan(requests: Sequence[Request], at_once: int) -> list[list[list[Request]]]:
    """Batches of groups: a group is an image's requests of one kind, at most `at_once` of them, and so is a batch."""
    groups: list[list[Request]] = []
    for request in requests:
        last = groups[-1][-1] if groups else None
        same = last is not None and (last.image, last.yes_no, last.max_tokens) == (
            request.image,
            request.yes_no,
            request.max_tokens,
        )
        if same and len(groups[-1]) < at_once:
            groups[-1].append(request)
        else:
            groups.append([request])
    batches: list[list[list[Request]]] = []
    for group in groups:
        fits = batches and sum(map(len, batches[-1])) + len(group) <= at_once
        if fits and batches[-1][-1][-1].yes_no == group[0].yes_no:
            batches[-1].append(group)
        else:
            batches.append([group])
    return batches


def word_ids(tokenizer: Any, word: str) -> tuple[int, ...]:
    """Ids of the single tokens that are a form of `word`: any case, with or without the space before it."""
    vocabulary = tokenizer.get_vocab()
    forms = [mark + form for mark in ("", "▁", "Ġ") for form in (word, word.capitalize(), word.upper())]
    return tuple(sorted({vocabulary[form] for form in forms if form in vocabulary}))


def _images(batches: Sequence[Sequence[Any]], index: int, queue: Sequence[Any]) -> int:
    """How many images are being read ahead of batch `index`."""
    return sum(map(len, batches[index : len(queue)]))


def _halve(work: Sequence[tuple[Sequence[Request], Any]]) -> list[list[tuple[Sequence[Request], Any]]]:
    if len(work) > 1:
        return [list(work[: len(work) // 2]), list(work[len(work) // 2 :])]
    group, item = work[0]
    middle = len(group) // 2
    if not isinstance(item, Encoded):
        return [[(group[:middle], item)], [(group[middle:], item)]]
    parts = [item.ids[:middle], item.ids[middle:]]
    first, second = (Encoded(ids, item.pixels, item.token_types) for ids in parts)
    return [[(group[:middle], first)], [(group[middle:], second)]]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"There is no device '{name}'.", str(error).splitlines()[0], "Use auto or cpu.") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, float16 on others, float32 elsewhere, unless told."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name not in known:
        raise ModelError(f"There is no dtype '{name}'.", f"Known: auto, {', '.join(known)}.", "Use one of these.")
    return known[name]


def _generation_config(folder: Path, config: Any) -> Any:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(config)
