"""`openai:MODEL[@URL]`: any server that speaks the OpenAI chat protocol, through the openai client.

The client retries 408, 409, 429, 5xx and time-outs with exponential back-off and heeds Retry-After.
The key is read from OPENAI_API_KEY and never written anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from bench.errors import JudgeError
from bench.judges.rubric import Rubric
from bench.types import Answer, Sample, Verdict

MAX_TOKENS = 1024
TIMEOUT = 120.0
RETRIES = 6
AT_ONCE = 8


class OpenAIJudge:
    """Asks for one review per answer at temperature 0, several at once. Raises JudgeError on a bad spec or no key."""

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.model, _, url = spec.partition("@")
        self.url = url or os.environ.get("OPENAI_BASE_URL") or None
        if not self.model or (url and urlsplit(url).scheme not in ("http", "https")):
            raise JudgeError(
                f"openai:{spec} names no judge.", "The form is openai:MODEL or openai:MODEL@URL.", "Give both in full."
            )
        self.rubric = Rubric(options.get("template"))

    def describe(self) -> dict[str, Any]:
        """Model, server (without credentials), prompt digest and decoding."""
        host = urlsplit(self.url).hostname if self.url else "default"
        return {
            "kind": "openai",
            "model": self.model,
            "server": host,
            "prompt_sha256": self.rubric.sha256,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """One verdict per item, in order. Raises JudgeError where the server refuses the key or the model."""
        if not items:
            return
        client = self._client()
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            verdicts = pool.map(lambda item: self._ask(client, *item), items)
            for (sample, _), verdict in zip(items, verdicts, strict=True):
                yield [(sample, verdict)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _client(self) -> Any:
        from openai import OpenAI

        key = os.environ.get("OPENAI_API_KEY")
        if not key and self.url is None:
            raise JudgeError(
                "The judge has no key.",
                "OPENAI_API_KEY is not set.",
                "Set it, or name a server of your own: --judge openai:MODEL@http://HOST:PORT/v1.",
            )
        return OpenAI(api_key=key or "none", base_url=self.url, max_retries=RETRIES, timeout=TIMEOUT)

    def _ask(self, client: Any, sample: Sample, answer: Answer) -> Verdict:
        import openai

        message = {"role": "user", "content": self.rubric.fill(sample, answer)}
        try:
            reply = client.chat.completions.create(
                model=self.model, messages=[message], temperature=0, max_tokens=MAX_TOKENS
            )
            text = reply.choices[0].message.content
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise JudgeError(
                f"The judge {self.model} cannot be asked.",
                f"The server says {error.status_code}: {_brief(error)}.",
                "Check OPENAI_API_KEY, the model's name and the URL; verdicts given so far are kept.",
            ) from error
        except openai.OpenAIError as error:
            return Verdict("", f"the judge failed: {type(error).__name__}: {_brief(error)}")
        except (AttributeError, TypeError, IndexError, ValueError):
            return Verdict("", "the judge's reply is not a chat completion")
        return Verdict(text) if isinstance(text, str) and text.strip() else Verdict("", "the judge said nothing")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
