"""One question, one reply, from any server that speaks the OpenAI chat protocol, through the openai client.

The client retries 408, 409, 429, 5xx, hang-ups and time-outs with exponential back-off and heeds Retry-After; replies
that are no chat completion are asked for again here. The key is read from OPENAI_API_KEY and never written anywhere.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from bench.errors import BenchError

TIMEOUT = 120.0
RETRIES = 6
GARBLED_PAUSES = (0.1, 0.4, 1.6)  # seconds before a garbled reply is asked for again
TOP = 20  # the most alternatives that the protocol gives for a token


class NoReply(Exception):  # noqa: N818
    """One request without a usable reply; others may fare better. `served`: the model was asked but says nothing."""

    def __init__(self, reason: str, served: bool = False) -> None:
        self.served = served
        super().__init__(reason)


@dataclass(frozen=True)
class Reply:
    """What a server said: its text, whether it was cut off, the tokens it counted, and the first token's alternatives.

    `first` maps forms of the first token to their probabilities, as far as the server gives them.
    """

    text: str
    cut_off: bool = False
    prompt_tokens: int | None = None
    tokens: int = 0
    first: Mapping[str, float] = field(default_factory=dict)


class Chat:
    """A model behind a server, from MODEL or MODEL@URL; `wrong` is the kind of BenchError that it raises."""

    def __init__(self, spec: str, wrong: type[BenchError]) -> None:
        self.model, _, url = spec.partition("@")
        self.url = url or os.environ.get("OPENAI_BASE_URL") or None
        self.wrong = wrong
        self._bound = "max_tokens"
        self._knows_logprobs = True
        if not self.model or (url and urlsplit(url).scheme not in ("http", "https")):
            raise wrong(
                f"openai:{spec} names no model.", "The form is openai:MODEL or openai:MODEL@URL.", "Give both in full."
            )

    def describe(self) -> dict[str, Any]:
        """Model and server, without credentials."""
        return {
            "kind": "openai",
            "model": self.model,
            "server": urlsplit(self.url).hostname if self.url else "default",
        }

    @cached_property
    def client(self) -> Any:
        """The client; safe to use from several threads. Raises `wrong` where a key is needed and not set."""
        from openai import OpenAI

        key = os.environ.get("OPENAI_API_KEY")
        if not key and self.url is None:
            raise self.wrong(
                f"There is no key for {self.model}.",
                "OPENAI_API_KEY is not set.",
                "Set it, or name a server of your own: openai:MODEL@http://HOST:PORT/v1.",
            )
        return OpenAI(api_key=key or "none", base_url=self.url, max_retries=RETRIES, timeout=TIMEOUT)

    def ask(
        self,
        content: str | list[dict[str, Any]],
        temperature: float,
        max_tokens: int,
        seed: int | None = None,
        system: str = "",
        logprobs: bool = False,
    ) -> Reply:
        """The reply to one message. Raises NoReply, or `wrong` where the server refuses the key or the model.

        A server that knows no logprobs, or bounds an answer by `max_completion_tokens`, is told so from then on.
        """
        import openai

        messages = [{"role": "system", "content": system}] if system else []
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": content}],
            "temperature": temperature,
        }
        if seed is not None:
            asked["seed"] = seed
        pauses = list(GARBLED_PAUSES)
        while True:
            bound = self._bound
            more: dict[str, Any] = {bound: max_tokens}
            if logprobs and self._knows_logprobs:
                more |= {"logprobs": True, "top_logprobs": TOP}
            try:
                return _read(self.client.chat.completions.create(**asked, **more))
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise self.wrong(
                    f"{self.model} cannot be asked.",
                    f"The server says {error.status_code}: {_brief(error)}.",
                    "Check OPENAI_API_KEY, the model's name and the URL; what was answered so far is kept.",
                ) from error
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if "logprobs" in more and "logprobs" in _brief(error):
                    self._knows_logprobs = False
                elif bound == "max_tokens" and "max_completion_tokens" in _brief(error):
                    self._bound = "max_completion_tokens"
                else:
                    raise NoReply(f"{type(error).__name__}: {_brief(error)}") from error
            except (openai.APIResponseValidationError, AttributeError, TypeError, IndexError, ValueError) as error:
                if not pauses:
                    raise NoReply("the reply is not a chat completion") from error
                time.sleep(pauses.pop(0))
            except openai.OpenAIError as error:
                raise NoReply(f"{type(error).__name__}: {_brief(error.__cause__ or error)}") from error


def _read(completion: Any) -> Reply:
    """The parts of a completion. Raises NoReply where nothing is said, AttributeError and kin where it is none."""
    choice = completion.choices[0]
    text = choice.message.content
    if choice.finish_reason == "content_filter" or (not text and getattr(choice.message, "refusal", None)):
        reason = _brief(getattr(choice.message, "refusal", None) or "content filter")
        raise NoReply(f"the model refuses: {reason}", served=True)
    if not isinstance(text, str) or not text.strip():
        raise NoReply("nothing was said", served=True)
    usage, told = getattr(completion, "usage", None), getattr(choice, "logprobs", None)
    first = told.content[0].top_logprobs if told and told.content else ()
    return Reply(
        text,
        choice.finish_reason == "length",
        usage.prompt_tokens if usage else None,
        usage.completion_tokens if usage else 0,
        {item.token: math.exp(item.logprob) for item in first},
    )


def _brief(error: object) -> str:
    """One line: what the client says, and the server's own words where the client has not found them."""
    body = getattr(error, "body", None)
    said = f"{error} {body['detail']}" if isinstance(body, dict) and "detail" in body else str(error)
    return " ".join(said.split())[:160] or type(error).__name__
