"""`openai:MODEL[@URL]`: any vision-language model behind a server that speaks the OpenAI chat protocol.

Images go as data URLs, the file's own bytes, before the question, so that a server with a prefix cache reads each
once. Several requests are under way at a time; each answer is handed over the moment it comes, so that a kill loses,
and pays again for, no more than those.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from bench.chat import Chat, NoReply
from bench.data.images import read_image
from bench.errors import DataError, ModelError
from bench.models.protocol import NATIVE, ByProtocol, Protocol, read_protocol
from bench.types import Answer, Batch, Request

AT_ONCE = 8
GIVE_UP = 16  # so many requests in a row that the server does not serve end the run
TAKEN = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}  # formats that every server reads


class OpenAIModel(ByProtocol):
    """A model behind a server. Raises ModelError on a bad spec, a missing key or a protocol that no server can follow.

    Options: protocol (its system prompt, suffix and lengths; template and image are the server's), temperature, seed,
    workers (requests at once).
    """

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.chat = Chat(spec, ModelError)
        self.protocol = _protocol(options.get("protocol") or "auto")
        self.temperature, self.seed = float(options.get("temperature") or 0), int(options.get("seed") or 0)
        self.at_once = int(options.get("workers") or AT_ONCE)

    def describe(self) -> dict[str, Any]:
        """Model, server (without credentials), protocol and decoding."""
        choice = {"temperature": self.temperature, "seed": self.seed} if self.temperature else {"greedy": True}
        return {
            **self.chat.describe(),
            "name": self.chat.model,
            "protocol": self.protocol.model_dump(),
            "decoding": choice,
        }

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Every answer as a batch of its own, in the order in which they come.

        Raises ModelError, after handing over what is under way, where the server refuses the key or the model, or
        serves no request any more.
        """
        waiting = (request for request in requests if request.key not in done)
        _ = self.chat.client  # made once, before the threads
        pool = ThreadPoolExecutor(self.at_once)
        running: set[Future[tuple[Request, Answer, bool]]] = set()
        in_vain, fault = 0, None
        try:
            while True:
                while fault is None and len(running) < self.at_once and (request := next(waiting, None)) is not None:
                    running.add(pool.submit(self._ask, request))
                if not running:
                    break
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    if isinstance(error := future.exception(), ModelError):
                        fault = error
                        continue
                    request, answer, served = future.result()
                    in_vain = 0 if served else in_vain + 1
                    if in_vain == GIVE_UP and fault is None:
                        fault = self._gone(str(answer.error))
                    yield [(request, answer)]
            if fault is not None:
                raise fault
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, request: Request) -> tuple[Request, Answer, bool]:
        """The answer to one request, and whether the server served it."""
        assert request.path is not None
        started = time.perf_counter()
        try:
            url = data_url(request.path)
        except DataError as error:
            return request, Answer("", error=f"{error.fact} {error.reason}"), True
        picture = {"type": "image_url", "image_url": {"url": url}}
        content: list[dict[str, Any]] = [picture, {"type": "text", "text": request.prompt}]
        seed = zlib.crc32(f"{self.seed} {request.key}".encode()) if self.temperature else None
        try:
            reply = self.chat.ask(
                content, self.temperature, request.max_tokens, seed, self.protocol.system, logprobs=request.yes_no
            )
        except NoReply as error:
            return request, Answer("", error=f"no answer: {error}"), error.served
        p_yes, p_no = (_share(reply.first, word) for word in ("yes", "no"))
        seconds = time.perf_counter() - started
        text, paid = reply.text.strip(), reply.prompt_tokens
        finish: Literal["stop", "length"] = "length" if reply.cut_off else "stop"
        return request, Answer(text, reply.tokens, seconds, finish, p_yes, p_no, prompt_tokens=paid), True

    def _gone(self, reason: str) -> ModelError:
        return ModelError(
            f"{self.chat.model} does not answer.",
            f"The last {GIVE_UP} requests failed; the last one: {reason}",
            "Look after the server, then start the same command again; what was answered is kept.",
        )


@lru_cache(maxsize=64)
def data_url(path: Path) -> str:
    """The image as a data URL: the file's own bytes, or PNG where its format is not one that every server reads.

    Raises DataError where it cannot be read.
    """
    image = read_image(path)
    with Image.open(path) as opened:
        kind = TAKEN.get(opened.format or "")
    content = path.read_bytes()
    if kind is None:
        image.save(buffer := BytesIO(), "PNG")
        kind, content = "image/png", buffer.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _share(first: Mapping[str, float], word: str) -> float | None:
    """The probability that the first token is a form of `word`; None where the server gave no probabilities."""
    return sum(p for token, p in first.items() if token.strip().lower() == word) if first else None


def _protocol(name: str) -> Protocol:
    protocol = NATIVE if name == "auto" else read_protocol(name)
    if protocol.conversation != "template" or protocol.image != "processor":
        raise ModelError(
            f"A server cannot be asked by the protocol '{protocol.name}'.",
            "Its template and the preparation of images are its own.",
            "Use native, or a file with `base: native`, a system prompt, suffixes and lengths.",
        )
    return protocol
