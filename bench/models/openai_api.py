"""`openai:MODEL[@URL]`: any vision-language model behind a server of the OpenAI chat protocol.

Images go as data URLs, the file's own bytes, before the question, so that a server with a prefix
cache reads each once. Several requests are under way at a time. Each answer is handed over the
moment it comes, so that a kill loses, and pays again for, no more than those.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from bench.chat import Chat, NoReply, Outage, Reply, ask_all
from bench.data.images import is_turned, read_image
from bench.errors import DataError, ModelError
from bench.models.decoding import Decoding, given_decoding
from bench.models.openai_batch import Batches
from bench.models.protocol import NATIVE, ByProtocol, Protocol, read_protocol
from bench.types import Answer, Batch, Request

CONCURRENT = 8  # requests under way at a time
SENTENCE_ENDS = tuple(".!?。！？\"'”’)*")
PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class OpenAIModel(ByProtocol):
    """A model behind a server.

    Args:
        spec: MODEL or MODEL@URL.
        options: protocol (its system prompt, suffix and lengths; template and image are the
            server's), decoding (or a bare temperature), seed, workers (requests at once),
            api_key_env (the variable of the server's key), api_option (further fields of every
            request), image_side (the longest that is sent), batch (by the Batch API).

    Raises:
        ModelError: A bad spec, a missing key, or a protocol that no server can follow.
    """

    CHAT: type[Chat] = Chat
    OPTIONS = frozenset(
        "protocol workers api_key_env api_option image_side batch decoding temperature seed".split()
    )

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        api_options = options.get("api_option") or ()
        self.chat = self.CHAT(spec, ModelError, options.get("api_key_env"), api_options)
        self.protocol = _protocol(options.get("protocol") or "auto")
        self.decoding = _decoding(options)
        self.seed = int(options.get("seed") or 0)
        self.concurrent = int(options.get("workers") or CONCURRENT)
        self.image_side: int | None = options.get("image_side")
        self.in_batches = bool(options.get("batch"))
        self.batches: Batches | None = None  # those of the run that is asked
        self._was_tried = False

    def describe(self) -> dict[str, Any]:
        """Model, server (without credentials), protocol and decoding."""
        decoding = self.decoding.describe()
        if self.decoding.temperature:
            decoding["seed"] = self.seed
        return {
            **self.chat.describe(),
            "served": self.served,
            "name": self.chat.model,
            "protocol": self.protocol.model_dump(),
            "decoding": decoding,
            **({"image_side": self.image_side} if self.image_side else {}),
        }

    @cached_property
    def served(self) -> dict[str, Any] | None:
        """What the server says of the model."""
        return self.chat.served_model()

    @property
    def negotiated(self) -> Sequence[str]:
        """What the server refused, so that it was asked otherwise."""
        return list(self.chat.negotiated)

    def check(self) -> None:
        """Raises ModelError if the key or the server is missing."""
        self.chat.check()

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Every answer as a batch of its own, in the order in which they come.

        Raises ModelError, after handing over what is under way, if the server refuses the key or
        the model, or serves no request any more.
        """
        waiting = [request for request in requests if request.key not in done]
        if self.batches is not None:
            yield from self._from_batches(waiting)
            return
        _ = self.chat.client  # made once, before the threads
        outage = Outage(self.chat.model, ModelError)
        for request, answer in ask_all(self._ask, waiting, self.concurrent, outage):
            yield [(request, answer)]

    def begin_batches(self, requests: Sequence[Request], done: frozenset[str], file: Path) -> None:
        """Sends what is neither answered nor under way.

        Args:
            requests: All requests of a run.
            done: Keys of those that are answered.
            file: Where the ids of the run's batches are kept.

        Raises:
            ModelError: The server cannot be asked, or not in batches.
        """
        self.batches = Batches(self.chat, file)
        known = set(done)
        for submitted in self.batches.pending():
            known.update(submitted.keys)
        fresh = [request for request in requests if request.key not in known]
        if not fresh:
            return
        if not self._was_tried:
            # What the server refuses shows at the first question, not a day later.
            answer, served = self._ask(fresh[0])
            if not served:
                raise ModelError(
                    f"{self.chat.model} does not answer.",
                    str(answer.error),
                    "Check that the server is running, then start the same command again.",
                )
            self._was_tried = True
        self.batches.submit(self._bodies(fresh))

    def _bodies(self, requests: Sequence[Request]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and body of each request whose image can be read."""
        for request in requests:
            try:
                arguments = self._arguments(request)
            except DataError:
                continue  # it is told when the answers come
            yield request.key, self.chat.batch_body(self.chat.request(**arguments))

    def _from_batches(self, waiting: Sequence[Request]) -> Iterator[Batch]:
        """The answers to the requests, batch by batch as they end."""
        assert self.batches is not None
        open_requests = {request.key: request for request in waiting}
        for replies in self.batches.replies():
            answers: Batch = []
            for key, reply in replies.items():
                # What was recorded before a kill stands in the batch too.
                request = open_requests.pop(key, None)
                if request is not None:
                    answers.append((request, _answer(reply, 0.0, request.limit)))
            yield answers
        unread: Batch = []
        for request in open_requests.values():
            # It was left out of the batches.
            unread.append((request, self._ask(request)[0]))
        yield unread

    def _arguments(self, request: Request) -> dict[str, Any]:
        """What Chat is asked with. Raises DataError if the image cannot be read."""
        assert request.path is not None
        # Each answer's own, as for local models.
        seed = None
        if self.decoding.temperature:
            seed = zlib.crc32(f"{self.seed} {request.key}".encode())
        return {
            "content": [
                {
                    "type": "image_url",
                    "image_url": {"url": data_url(request.path, self.image_side)},
                },
                {"type": "text", "text": request.prompt},
            ],
            "temperature": self.decoding.temperature,
            "max_tokens": request.limit,
            "seed": seed,
            "system": self.protocol.system,
            "logprobs": request.yes_no,
            "top_p": self.decoding.top_p,
        }

    def _ask(self, request: Request) -> tuple[Answer, bool]:
        """The answer to one request, and whether the server is alive."""
        started = time.perf_counter()
        try:
            arguments = self._arguments(request)
        except DataError as error:
            return Answer("", error=f"{error.fact} {error.reason}"), True
        try:
            reply = self.chat.ask(**arguments)
        except NoReply as error:
            return _answer(error, 0.0, request.limit), error.served
        return _answer(reply, time.perf_counter() - started, request.limit), True


def _answer(reply: Reply | NoReply, seconds: float, limit: int) -> Answer:
    """What a server said as an answer, which took some seconds and had a limit of tokens."""
    if isinstance(reply, NoReply):
        return Answer("", error=f"no answer: {reply}")
    text = reply.text.strip()
    # Some servers call every end a stop. One that has used the limit and breaks off in a sentence
    # was cut off; a whole sentence may have ended there by itself.
    breaks_off = reply.tokens >= limit and not text.endswith(SENTENCE_ENDS)
    return Answer(
        text,
        reply.tokens,
        seconds,
        "length" if reply.cut_off or breaks_off else "stop",
        _probability(reply.first_token, "yes"),
        _probability(reply.first_token, "no"),
        prompt_tokens=reply.prompt_tokens,
        thoughts=reply.thoughts,
    )


@lru_cache(maxsize=64)
def data_url(path: Path, side: int | None = None) -> str:
    """The image as a data URL.

    It holds the file's own bytes, or PNG if servers would not all show the same of it: another
    format, several frames, an EXIF orientation, 16-bit grey or CMYK; or if it is larger than asked.
    Raises DataError if it cannot be read.

    Args:
        path: The image.
        side: The longest side in pixels; a larger image is scaled to it. None for any.
    """
    # Decoded once to see that it can be, whatever is sent.
    image = read_image(path)
    is_large = side is not None and max(image.size) > side
    if side is not None and is_large:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    with Image.open(path) as opened:
        mime_type = MIME_TYPES.get(opened.format or "")
        is_single = getattr(opened, "n_frames", 1) == 1
        is_plain = opened.mode in PLAIN_MODES and is_single and not is_turned(opened)
    content = path.read_bytes()
    if mime_type is None or not is_plain or is_large:
        buffer = BytesIO()
        image.save(buffer, "PNG")
        mime_type, content = "image/png", buffer.getvalue()
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


def _probability(first_token: Sequence[tuple[str, float]], word: str) -> float | None:
    """The probability that the first token is a form of `word`.

    None if the server gave no probabilities.
    """
    if not first_token:
        return None
    probability = 0.0
    for token, p in first_token:
        # " Yes", "yes" and "YES" are one answer.
        if token.strip().lower() == word:
            probability += p
    return probability


def _decoding(options: Mapping[str, Any]) -> Decoding:
    decoding = given_decoding(options)
    is_own = decoding.contrast is not None or decoding.code is not None
    if decoding.beams > 1 or decoding.top_k or is_own:
        raise ModelError(
            "A server of the OpenAI protocol cannot decode so.",
            "Its protocol has temperature and top_p, but no beams, top_k or contrast.",
            "Use greedy, or sample:temperature=…,top_p=….",
        )
    return decoding


def _protocol(name: str) -> Protocol:
    protocol = NATIVE if name == "auto" else read_protocol(name)
    is_own = protocol.conversation != "template" or protocol.image != "processor"
    if is_own or protocol.orientation != "exif":
        raise ModelError(
            f"A server cannot be asked by the protocol '{protocol.name}'.",
            "Its template and the preparation of images are its own.",
            "Use native, or a file with `base: native`, a system prompt, suffixes and lengths.",
        )
    return protocol
