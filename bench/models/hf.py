"""`hf`: any image-text-to-text checkpoint of transformers, by hub id or folder.

An optional PEFT adapter goes on top. Checkpoints in LLaVA's original format are mapped onto
transformers' in memory (`bench/models/llava_checkpoints.py`).

Architectures in SERVED run on the shared-image engine; their answers are checked token for token
against `generate` in tests/unit/test_shared_image.py. All others go through batched `generate`, and
run.json says why.
"""

from __future__ import annotations

import copy
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image

from bench import registry
from bench.data.images import read_image
from bench.errors import DataError, ModelError, first_line
from bench.language.thoughts import split_thoughts
from bench.models import checkpoints
from bench.models.batching import Group, halve, images_between, plan
from bench.models.conversations import PROBE, Encoded, Prompter, UnpreparedError
from bench.models.decoding import given_decoding
from bench.models.generate import NOT_A_NUMBER, Generated, YesNo, generate
from bench.models.generation_config import (
    not_applied,
    read_generation_config,
    searches,
    without_search,
)
from bench.models.llava_checkpoints import LlavaCheckpoint, is_llava_checkpoint
from bench.models.placement import given_placement
from bench.models.protocol import LLAVA, NATIVE, ByProtocol, Protocol, read_protocol
from bench.models.shared_image import (
    Question,
    TokenRules,
    answer_images,
    attention_windows,
)
from bench.models.thinking import answer_start, probabilities_behind
from bench.terminal import note
from bench.types import Answer, Batch, Request

SERVED = frozenset(
    "llava llava_next llava_onevision qwen2_vl qwen2_5_vl qwen3_vl idefics3 smolvlm internvl "
    "gemma3 mistral3".split(),
)
# Language models whose attention and positions are what the engine makes of them.
SERVED_LANGUAGE_MODELS = frozenset(
    "llama mistral ministral3 qwen2 qwen3 gemma gemma3_text "
    "qwen2_vl_text qwen2_5_vl_text qwen3_vl_text".split()
)
# Those of them that may see a part of the text only, the window being one of columns.
WINDOWED = frozenset("mistral ministral3 qwen2 qwen3 gemma3_text".split())
# Why texts about an image cannot stand behind one prefix.
UNSHARED = {
    "paligemma": "its image tokens see the question, so that they differ from question to question",
    "mllama": "its image is looked at by cross-attention, not as a part of the text",
}
MAX_PROMPTS = {"cpu": 64, "cuda": 128}  # yes/no questions in a batch, by type of device
CUSTOM = "custom_generate"  # transformers' folder for a decoding
READ_AHEAD = 16  # images
READERS = 2  # threads

LONG_TO_LOAD = 1_000_000_000  # bytes of weights: nothing can be answered for a while
# What can move an answer on this machine.
SOFTWARE = ("synth-align", "torch", "transformers", "tokenizers", "peft", "pillow")

Work = Sequence[tuple[Group, Any]]  # groups, each with its Encoded (engine) or image (`generate`)


class PreparedGroup(NamedTuple):
    """A group on its way: what can be asked, the image with it, and what cannot."""

    group: Group
    content: Encoded | Image.Image | None
    failed: Batch


class HFModel(ByProtocol):
    """Reads config and processor at once, the weights when the first answer is wanted.

    Args:
        spec: NAME or NAME+ADAPTER.
        options: protocol, dtype, device, revision, trust_remote_code, decoding (or a bare
            temperature), seed, device_map, quantize, attention, and the base of a LoRA of LLaVA's
            own code.
    """

    OPTIONS = frozenset(
        "protocol dtype device revision trust_remote_code base workers ray decoding temperature "
        "seed device_map quantize attention".split()
    )

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        name, adapter = registry.split_adapter(spec)
        # An alias is no more than a short name; a folder of that name is what it says.
        if not Path(name).is_dir():
            name = registry.MODEL_ALIASES.get(name, name)
        remote_code = bool(options.get("trust_remote_code"))
        self.folder = checkpoints.locate(name, options.get("revision"), remote_code)
        is_local = Path(name).is_dir()
        if is_local and options.get("revision"):
            raise ModelError(
                "--revision does nothing for a folder.",
                f"{name} is what it holds.",
                "Leave it out, or give the checkpoint's id.",
            )
        self.name = self.folder.resolve().name if is_local else name
        self.source = self.folder if is_local else None
        self.adapter = checkpoints.locate_adapter(adapter) if adapter else None
        self.checkpoint: LlavaCheckpoint | checkpoints.Checkpoint
        base = options.get("base")
        if is_llava_checkpoint(self.folder):
            base_folder = checkpoints.locate(str(base), None) if base else None
            self.checkpoint = LlavaCheckpoint(self.folder, base_folder)
        else:
            self.checkpoint = checkpoints.Checkpoint(self.folder, remote_code)
        if base and getattr(self.checkpoint, "lora", None) is None:
            raise ModelError(
                "--base does nothing for this checkpoint.",
                f"{self.folder} is no LoRA of LLaVA's own code.",
                "Leave it out; a PEFT adapter is given as BASE+ADAPTER.",
            )
        self.config, self.processor = self.checkpoint.config, self.checkpoint.processor
        self.device = _device(options.get("device") or "auto")
        self.quantization = checkpoints.quantization(self.config)
        self.dtype = self._dtype_for(options.get("dtype") or "auto")
        self.protocol = self._protocol(options.get("protocol") or "auto")
        self.prompter = Prompter(self.processor, self.protocol)
        self.prompter.check(self.config.model_type)
        self.generation_config = read_generation_config(self.folder, self.config)
        # A search of its own is not: how answers are searched for is the benchmark's to say.
        self.not_followed = searches(self.generation_config)
        self.placement = given_placement(options)
        if self.quantization and self.placement.quantize:
            raise ModelError(
                f"--quantize {self.placement.quantize} does nothing for {self.name}.",
                f"Its weights are quantised already, by {self.quantization}.",
                "Leave it out.",
            )
        self.decoding = given_decoding(options)
        self.decoding_code = self._decoding_code(remote_code)
        self.seed = int(options.get("seed") or 0)
        self.not_served = self._why_not_served()
        if self.decoding.contrast is not None and self.not_served:
            raise ModelError(
                f"{self.name} cannot be asked by contrastive decoding.",
                f"It runs on the shared-image engine, which does not serve this model: "
                f"{self.not_served}.",
                "Use greedy or sample.",
            )
        self.max_prompts = MAX_PROMPTS.get(self.device.type, MAX_PROMPTS["cpu"])
        # The most prompts that fit in memory, as far as is known. It only shrinks.
        self._prompts_that_fit = self.max_prompts
        self._model: Any = None

    def describe(self) -> dict[str, Any]:
        """Everything that can change an answer."""
        weights_sha256, adapter_sha256 = self._fingerprints
        device = self.device.type
        if device == "cuda":
            device = torch.cuda.get_device_name(self.device)
        decoding = self.decoding.describe()
        if self.decoding.temperature:
            decoding["seed"] = self.seed
        if self.decoding_code is not None:
            decoding["code_sha256"] = checkpoints.code_digest(self.decoding_code / CUSTOM)
        if self.not_followed:
            decoding["not_followed"] = self.not_followed
        decoding["eos_token_id"] = self.generation_config.eos_token_id
        decoding["repetition_penalty"] = self.generation_config.repetition_penalty
        image_processor = type(self.processor.image_processor).__name__
        return {
            "kind": "hf",
            "name": self.name if self.adapter is None else f"{self.name}+{self.adapter.name}",
            "revision": checkpoints.commit(self.folder),
            "weights_sha256": weights_sha256,
            "adapter_sha256": adapter_sha256,
            "files": checkpoints.file_digests(self.folder),
            "software": registry.versions(SOFTWARE),
            # One in full: a template may be another one tomorrow, or write the date.
            "rendered_prompt": self.prompter.text(PROBE),
            "architecture": self.config.model_type,
            "processor": f"{type(self.processor).__name__}, {image_processor}",
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": device,
            "protocol": self.protocol.model_dump(),
            "decoding": decoding,
            "engine": f"generate ({self.not_served})" if self.not_served else "shared-image",
            **({"quantization": self.quantization} if self.quantization else {}),
            **self.placement.describe(),
        }

    def _dtype_for(self, name: str) -> torch.dtype:
        """What is computed in: of a quantised checkpoint what its other weights are saved in."""
        usual = _dtype(name, self.device)
        saved: torch.dtype | None = None
        if self.quantization is not None:
            saved = self.config.dtype
        if saved is None:
            return usual
        # transformers would cast some of those weights, and leave the rest.
        if name != "auto" and usual != saved:
            raise ModelError(
                f"{self.name} cannot be run in {name}.",
                f"Its weights are quantised, and the others are {saved}.",
                "Leave out --dtype.",
            )
        return saved

    @cached_property
    def _fingerprints(self) -> tuple[str, str | None]:
        adapter = checkpoints.fingerprint(self.adapter) if self.adapter else None
        return self.checkpoint.fingerprint(), adapter

    @property
    def model(self) -> Any:
        """The model, loaded on first use."""
        if self._model is None:
            self.tell_of_loading()
            self._model = self.checkpoint.read(self.dtype, self.device, self.placement)
            if self.adapter is not None:
                checkpoints.add_adapter(self._model, self.adapter)
            # `generate` fills up from here what is not set.
            self._model.generation_config = without_search(self.generation_config)
        return self._model

    def tell_of_loading(self) -> None:
        """Says that a large model is being loaded, for nothing else is seen meanwhile."""
        size = checkpoints.weight_bytes(str(self.folder)) or 0
        if size >= LONG_TO_LOAD:
            note(f"{self.name}: loading {size / 1e9:.1f} GB of weights")

    def take_network(self, network: Any) -> None:
        """Answers with a network that holds these weights already, such as one that trains."""
        self._model = network

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Answers in batches of whole images.

        While one batch is computed, the next images are read in the background.
        """
        # Batches are planned over all requests, so that a resumed run computes the same ones.
        waiting = []
        for batch in plan(requests, self.max_prompts):
            keys = {request.key for group in batch for request in group}
            if keys - done:
                waiting.append(batch)
        # Decoding and resizing release the interpreter's lock, so threads are enough.
        pool = ThreadPoolExecutor(READERS)
        try:
            queue: list[list[Future[PreparedGroup]]] = []  # of the first batches in `waiting`
            for index, batch in enumerate(waiting):
                # The batch that is computed now, and those behind it up to a number of images.
                while len(queue) < len(waiting):
                    ahead = images_between(waiting, index + 1, len(queue))
                    if len(queue) > index and ahead >= READ_AHEAD:
                        break
                    groups = waiting[len(queue)]
                    queue.append([pool.submit(self._prepare, group) for group in groups])
                prepared = [future.result() for future in queue[index]]
                queue[index] = []  # frees the pixels when the batch is done
                yield self._answer_batch(batch, prepared)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises ModelError if the weights have no row for one of a prompt's ids, or no image."""
        sought = getattr(self.config, "image_token_id", None)
        reason = ""
        if isinstance(sought, int) and sought not in ids:
            reason = (
                f"The model looks for an image at token {sought} (config.json), and its processor "
                "writes other ones."
            )
        beyond = {number for number in ids if number >= self._rows} - {sought}
        # Special ones may lie outside: what stands for the image is replaced.
        if beyond and (beyond := beyond - set(self.processor.tokenizer.all_special_ids)):
            token = min(beyond)
            word = self.processor.tokenizer.convert_ids_to_tokens(token)
            reason = (
                f"Its tokenizer writes {word!r} as {token}, and its weights have {self._rows:,} "
                "tokens."
            )
        if reason:
            raise ModelError(
                f"The files of {self.name} do not fit together.",
                reason,
                "Get config.json and the tokenizer again from one revision of the source.",
            )

    @property
    def _rows(self) -> int:
        """How many tokens the weights know."""
        return int(self.config.get_text_config().vocab_size)

    def _prepare(self, group: Group) -> PreparedGroup:
        """The group's image and prompts, or why they cannot be asked."""
        path = group[0].path
        assert path is not None
        # A tokenizer of its own: one is not safe to use from several threads.
        prompter = self._prompters.get()
        try:
            failed: Batch = []
            asked = []
            for request in group:
                token = prompter.special_token_in(request.prompt)
                if token is not None:
                    reason = f"the question holds {token!r}, which is a special token of this model"
                    failed.append((request, Answer("", error=reason)))
                else:
                    asked.append(request)
            if not asked:
                return PreparedGroup(asked, None, failed)
            try:
                image = read_image(path, self.protocol.orientation == "exif")
                if self.not_served:
                    # `generate` prepares it again; here it shows whether it can be prepared.
                    inputs = prompter.whole(image, asked[0].prompt)
                    self.check_ids(inputs["input_ids"][0].tolist())
                    return PreparedGroup(asked, image, failed)
                encoded = prompter.encode(image, [request.prompt for request in asked])
                for ids in encoded.ids:
                    self.check_ids(ids)
                return PreparedGroup(asked, encoded, failed)
            except UnpreparedError as error:
                reason = f"image {path.name} cannot be prepared ({error.reason})"
            except DataError as error:
                reason = f"{error.fact} {error.reason}"
            failed += [(request, Answer("", error=reason)) for request in asked]
            return PreparedGroup([], None, failed)
        finally:
            self._prompters.put(prompter)

    @cached_property
    def _prompters(self) -> SimpleQueue[Prompter]:
        """One for each thread that reads ahead."""
        prompters: SimpleQueue[Prompter] = SimpleQueue()
        for _ in range(READERS):
            prompters.put(Prompter(copy.deepcopy(self.processor), self.protocol))
        return prompters

    def _answer_batch(self, batch: Sequence[Group], prepared: Sequence[PreparedGroup]) -> Batch:
        started = time.perf_counter()
        answers: dict[str, Answer] = {}
        work = []
        for item in prepared:
            # A broken image costs its own questions only.
            for request, answer in item.failed:
                answers[request.key] = answer
            if item.group:
                work.append((item.group, item.content))
        generated = self._within_memory(work) if work else []
        seconds = (time.perf_counter() - started) / max(1, len(generated))
        for request, one in generated:
            finish: Literal["stop", "length"] = "stop" if one.stopped else "length"
            answers[request.key] = Answer(
                one.text,
                one.tokens,
                seconds,
                finish,
                one.p_yes,
                one.p_no,
                one.error,
                thoughts=one.thoughts,
            )
        requests = [request for group in batch for request in group]
        return [(request, answers[request.key]) for request in requests]

    def _within_memory(self, work: Work) -> list[tuple[Request, Generated]]:
        """Computes the work whole, or in halves if it has proved too large for the device."""
        size = sum(len(group) for group, _ in work)
        if size <= self._prompts_that_fit:
            try:
                return self._compute(work)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise ModelError(
                        f"One question about {work[0][0][0].image} does not fit in the memory of "
                        f"{self.device}.",
                        first_line(error),
                        "Use --dtype bfloat16, a larger device or --device cpu; "
                        "what was answered is kept.",
                    ) from error
                self._prompts_that_fit = size // 2
            except Exception as error:  # the network's code raises what it likes
                if not _is_of_network(error):
                    raise
                raise ModelError(
                    f"{self.folder} cannot answer about {work[0][0][0].image}.",
                    f"The network's own code ends in {type(error).__name__}: {first_line(error)}.",
                    "Its files do not fit each other: restore them from their source; "
                    "what was answered is kept.",
                ) from error
            # Outside the `except`, whose traceback keeps the failed batch's tensors alive.
            torch.cuda.empty_cache()
        answers = []
        for half in halve(work):
            answers += self._within_memory(half)
        return answers

    def _compute(self, work: Work) -> list[tuple[Request, Generated]]:
        requests: list[Request] = []
        images, limits, seeds, noise_seeds = [], [], [], []
        for group, item in work:
            requests += group
            images.append(item)
            # All questions about an image are contrasted with the same distortion.
            noise_seeds.append(zlib.crc32(f"{self.seed} {group[0].image}".encode()))
            limits.append([request.limit for request in group])
            # A text of its own for each answer, so that a batch's composition decides nothing.
            seeds.append([f"{self.seed} {request.key}" for request in group])
        if self.not_served:
            repeated = []
            for group, image in work:
                repeated += [image] * len(group)
            return list(zip(requests, generate(self, repeated, requests), strict=True))
        questions: list[Question] = []
        for row in answer_images(self.model, self.settings, images, limits, seeds, noise_seeds):
            questions += row
        answers = []
        for request, question in zip(requests, questions, strict=True):
            if question.is_broken:
                answers.append((request, NOT_A_NUMBER))
                continue
            p_yes, p_no = question.p_yes, question.p_no
            if not request.yes_no:
                p_yes = p_no = None
            answers.append((request, self.said(request, question.tokens, p_yes, p_no)))
        return answers

    def said(
        self,
        request: Request,
        tokens: Sequence[int],
        p_yes: float | None,
        p_no: float | None,
        probabilities: Callable[[int], YesNo] | None = None,
    ) -> Generated:
        """The answer to a request from all that was generated.

        Behind a reasoning model's thoughts it has its own bound, and P(yes) is that of its own
        first token.

        Args:
            request: The request.
            tokens: The ids.
            p_yes: P(yes) of the first one.
            p_no: P(no) of it.
            probabilities: P(yes) and P(no) of the token at an index, if they are known; else they
                are computed by another pass.
        """
        plain = self.generated(tokens, request.limit, p_yes, p_no)
        tags = request.reasoning_tags
        if not split_thoughts(plain.text, tags)[0]:
            return plain
        decode = partial(self.processor.tokenizer.decode, skip_special_tokens=True)
        start = answer_start(tokens, decode, tags)
        if start is None:
            return plain
        kept = tokens[: start + request.max_tokens]
        answer = self.generated(kept[start:], request.max_tokens, None, None)
        thoughts, text = split_thoughts(decode(kept), tags)
        has_end = kept[-1] in self.settings.eos
        is_cut = not has_end and (len(kept) < len(tokens) or len(tokens) >= request.limit)
        # What a distorted image does to the answer's first token is not computed.
        if probabilities is not None:
            p_yes, p_no = probabilities(start)
        elif request.yes_no and self.decoding.contrast is None:
            p_yes, p_no = probabilities_behind(self, request, tokens[:start])
        else:
            p_yes = p_no = None
        return Generated(text, answer.tokens, not is_cut, p_yes, p_no, thoughts)

    def generated(
        self, tokens: Sequence[int], limit: int, p_yes: float | None, p_no: float | None
    ) -> Generated:
        """An answer from its token ids, the one that ended it included.

        Args:
            tokens: The ids.
            limit: The most tokens that it could have had.
            p_yes: P(yes) of the first one.
            p_no: P(no) of it.
        """
        has_end = bool(tokens) and tokens[-1] in self.settings.eos
        # A stop string ends an answer without a token of its own.
        stopped = has_end or len(tokens) < limit
        # Special tokens are the conversation's, not the answer's.
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        # The token that ends an answer is no part of its length.
        return Generated(text, len(tokens) - has_end, stopped, p_yes, p_no)

    @cached_property
    def settings(self) -> TokenRules:
        """How to decode. Computed once: a vocabulary of 150,000 entries takes a while to read."""
        eos = self.generation_config.eos_token_id
        if eos is None:
            eos = []
        elif not isinstance(eos, list):
            eos = [eos]
        tokenizer = self.processor.tokenizer
        return TokenRules(
            frozenset(eos),
            self.generation_config.repetition_penalty or 1.0,
            word_ids(tokenizer, "yes", self._rows),
            word_ids(tokenizer, "no", self._rows),
            self.decoding,
        )

    def _decoding_code(self, may_run: bool) -> Path | None:
        """The folder of somebody's own decoding, downloaded if need be; None without one."""
        code = self.decoding.code
        if code is None:
            return None
        if not may_run:
            raise ModelError(
                f"{code.source} is code, and would run on this machine.",
                "It says how answers are decoded.",
                "Read its custom_generate/generate.py; then add --trust-remote-code.",
            )
        folder = checkpoints.locate(code.source, None, True, [f"{CUSTOM}/*"])
        if not (folder / CUSTOM / "generate.py").is_file():
            raise ModelError(
                f"{code.source} is no decoding.",
                f"It has no {CUSTOM}/generate.py.",
                "Name a folder or a repository that has it.",
            )
        return folder

    def _protocol(self, name: str) -> Protocol:
        """The protocol by name or file; auto is `llava` for checkpoints of Vicuna's form."""
        if name != "auto":
            return read_protocol(name)
        if self.config.model_type != "llava":
            return NATIVE
        native = Prompter(self.processor, NATIVE)
        # LLaVA's first conversions had no template; they were all trained with Vicuna's.
        if not native.has_template:
            return LLAVA
        # Other language models were put into LLaVA too, with templates of their own.
        speaks_vicuna = native.text("?").endswith("ASSISTANT:")
        return LLAVA if speaks_vicuna else NATIVE

    def _why_not_served(self) -> str | None:
        """Why the shared-image engine does not serve this model, None if it does."""
        if self.decoding.beams > 1:
            return "beam search"
        if self.decoding.code is not None:
            return f"decoding by {self.decoding.code.source}"
        if self.placement.attention == "flash_attention_2":
            return "flash attention takes no mask of its own"
        if self.not_packed:
            return self.not_packed
        # The engine chooses tokens itself, so what it does not apply must not be asked of it.
        special = self.special_settings
        return f"its generation config sets {', '.join(special)}" if special else None

    @property
    def special_settings(self) -> list[str]:
        """Settings of the checkpoint's generation config that only `generate` applies."""
        return not_applied(self.generation_config)

    @cached_property
    def not_packed(self) -> str | None:
        """Why texts about an image cannot stand behind one prefix, None if they can."""
        architecture = self.config.model_type
        if architecture in UNSHARED:
            return f"{architecture}: {UNSHARED[architecture]}"
        if architecture not in SERVED:
            return (
                f"{architecture} is not among the architectures checked for the shared-image engine"
            )
        text_config = self.config.get_text_config()
        if text_config.model_type not in SERVED_LANGUAGE_MODELS:
            return f"its language model, {text_config.model_type}, is not among those checked"
        if self._has_windows and text_config.model_type not in WINDOWED:
            return "its language model has sliding-window attention"
        if getattr(text_config, "use_bidirectional_attention", None):
            return "its language model's tokens see what follows them"
        return None

    @cached_property
    def not_packed_in_training(self) -> str | None:
        """Why a pair cannot be one row in training, None if it can."""
        if self.not_packed is None and self._has_windows:
            return "its language model has sliding-window attention"
        return self.not_packed

    @property
    def _has_windows(self) -> bool:
        """Whether some layer sees a part of the text only."""
        windows = attention_windows(self.config.get_text_config())
        return any(window is not None for window in windows.values())


def word_ids(tokenizer: Any, word: str, rows: int) -> tuple[int, ...]:
    """Ids of the single tokens that are a form of `word` and that a model of `rows` tokens can say.

    Any case, with or without the space before it (SentencePiece's ▁, byte-level BPE's Ġ).
    """
    vocabulary = tokenizer.get_vocab()
    ids = set()
    for space in ("", "▁", "Ġ"):
        for form in (word, word.capitalize(), word.upper()):
            if space + form in vocabulary:
                ids.add(vocabulary[space + form])
    return tuple(sorted(number for number in ids if number < rows))


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"There is no device '{name}'.", first_line(error), "Use auto or cpu."
        ) from error
    return device


def _is_of_network(error: Exception) -> bool:
    """Whether the code of a model's family raised it, or what that called."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("/transformers/models/" in Path(frame.filename).as_posix() for frame in frames)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, float16 on others, float32 elsewhere, unless told."""
    by_name = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name not in by_name:
        raise ModelError(
            f"There is no dtype '{name}'.",
            f"Known: auto, {', '.join(by_name)}.",
            "Use one of these.",
        )
    return by_name[name]
