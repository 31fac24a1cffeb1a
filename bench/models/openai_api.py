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

from bench.chat import Chat, NoReply, Outage, ask_all
from bench.data.images import is_turned, read_image
from bench.errors import DataError, ModelError
from bench.models.decoding import Decoding, given_decoding
from bench.models.protocol import NATIVE, ByProtocol, Protocol, read_protocol
from bench.types import Answer, Batch, Request

CONCURRENT = 8  # requests under way at a time
PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class OpenAIModel(ByProtocol):
    """A model behind a server.

    Args:
        spec: MODEL or MODEL@URL.
        options: protocol (its system prompt, suffix and lengths; template and image are the
            server's), decoding (or a bare temperature), seed, workers (requests at once),
            api_key_env (the variable of the server's key), api_option (further fields of every
            request).

    Raises:
        ModelError: A bad spec, a missing key, or a protocol that no server can follow.
    """

    OPTIONS = frozenset("protocol workers api_key_env api_option decoding temperature seed".split())

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        api_options = options.get("api_option") or ()
        self.chat = Chat(spec, ModelError, options.get("api_key_env"), api_options)
        self.protocol = _protocol(options.get("protocol") or "auto")
        self.decoding = _decoding(options)
        self.seed = int(options.get("seed") or 0)
        self.concurrent = int(options.get("workers") or CONCURRENT)

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
        _ = self.chat.client  # made once, before the threads
        outage = Outage(self.chat.model, ModelError)
        for request, answer in ask_all(self._ask, waiting, self.concurrent, outage):
            yield [(request, answer)]

    def _ask(self, request: Request) -> tuple[Answer, bool]:
        """The answer to one request, and whether the server is alive."""
        assert request.path is not None
        started = time.perf_counter()
        try:
            url = data_url(request.path)
        except DataError as error:
            return Answer("", error=f"{error.fact} {error.reason}"), True
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": request.prompt},
        ]
        # Each answer's own, as for local models.
        seed = None
        if self.decoding.temperature:
            seed = zlib.crc32(f"{self.seed} {request.key}".encode())
        try:
            reply = self.chat.ask(
                content,
                self.decoding.temperature,
                request.limit,
                seed,
                self.protocol.system,
                logprobs=request.yes_no,
                top_p=self.decoding.top_p,
            )
        except NoReply as error:
            return Answer("", error=f"no answer: {error}"), error.served
        answer = Answer(
            reply.text.strip(),
            reply.tokens,
            time.perf_counter() - started,
            "length" if reply.cut_off else "stop",
            _probability(reply.first_token, "yes"),
            _probability(reply.first_token, "no"),
            prompt_tokens=reply.prompt_tokens,
            thoughts=reply.thoughts,
        )
        return answer, True


@lru_cache(maxsize=64)
def data_url(path: Path) -> str:
    """The image as a data URL.

    It holds the file's own bytes, or PNG if servers would not all show the same of it: another
    format, several frames, an EXIF orientation, 16-bit grey or CMYK. Raises DataError if it cannot
    be read.
    """
    # Decoded once to see that it can be, whatever is sent.
    image = read_image(path)
    with Image.open(path) as opened:
        mime_type = MIME_TYPES.get(opened.format or "")
        is_single = getattr(opened, "n_frames", 1) == 1
        is_plain = opened.mode in PLAIN_MODES and is_single and not is_turned(opened)
    content = path.read_bytes()
    if mime_type is None or not is_plain:
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
