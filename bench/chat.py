"""One question, one reply, from any server that speaks the OpenAI chat protocol, through the openai client.

The client retries 408, 409, 429, 5xx and time-outs with exponential back-off and heeds Retry-After.
The key is read from OPENAI_API_KEY and never written anywhere.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from bench.errors import BenchError

TIMEOUT = 120.0
RETRIES = 6


class NoReply(Exception):  # noqa: N818
    """One request without a usable reply; others may fare better."""


class Chat:
    """A model behind a server, from MODEL or MODEL@URL; `wrong` is the kind of BenchError that it raises."""

    def __init__(self, spec: str, wrong: type[BenchError]) -> None:
        self.model, _, url = spec.partition("@")
        self.url = url or os.environ.get("OPENAI_BASE_URL") or None
        self.wrong = wrong
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

    def ask(self, content: str, temperature: float, max_tokens: int, seed: int | None = None) -> str:
        """The reply's text. Raises NoReply, or `wrong` where the server refuses the key or the model."""
        import openai

        message = {"role": "user", "content": content}
        drawn = {} if seed is None else {"seed": seed}
        try:
            reply = self.client.chat.completions.create(
                model=self.model, messages=[message], temperature=temperature, max_tokens=max_tokens, **drawn
            )
            text = reply.choices[0].message.content
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self.wrong(
                f"{self.model} cannot be asked.",
                f"The server says {error.status_code}: {_brief(error)}.",
                "Check OPENAI_API_KEY, the model's name and the URL; what was answered so far is kept.",
            ) from error
        except openai.OpenAIError as error:
            raise NoReply(f"{type(error).__name__}: {_brief(error)}") from error
        except (AttributeError, TypeError, IndexError, ValueError) as error:
            raise NoReply("the reply is not a chat completion") from error
        if not isinstance(text, str) or not text.strip():
            raise NoReply("nothing was said")
        return text


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
