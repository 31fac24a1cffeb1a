"""`openai:MODEL[@URL]`: any server that speaks the OpenAI chat protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.chat import Chat, NoReply, Outage, ask_all
from bench.errors import JudgeError
from bench.judges.rubric import MAX_TOKENS, Rubric, verdict_of
from bench.types import Answer, Sample, Verdict

CONCURRENT = 8


class OpenAIJudge:
    """Asks for one review per answer at temperature 0, several at once.

    Args:
        spec: MODEL or MODEL@URL.
        options: template (a file with the judge's prompt, or "official"), max_tokens, api_key_env
            (the variable of the server's key).

    Raises:
        JudgeError: A bad spec or a missing key.
    """

    OPTIONS = frozenset({"template", "max_tokens", "api_key_env"})

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.chat = Chat(spec, JudgeError, options.get("api_key_env"))
        self.rubric = Rubric(options.get("template"))
        self.max_tokens = int(options.get("max_tokens") or MAX_TOKENS)

    def describe(self) -> dict[str, Any]:
        """Model, server (without credentials), prompt digest and decoding."""
        return {
            **self.chat.describe(),
            **self.rubric.describe(),
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }

    @property
    def negotiated(self) -> Sequence[str]:
        """What the server refused, so that it was asked otherwise."""
        return list(self.chat.negotiated)

    def check(self) -> None:
        """Raises JudgeError if the key or the server is missing."""
        self.chat.check()

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """One verdict per item, in the order in which they come.

        Raises JudgeError, after handing over what is under way, if the server refuses the key or
        the model, or serves no request any more.
        """
        if not items:
            return
        _ = self.chat.client  # made once, before the threads
        outage = Outage(f"The judge {self.chat.model}", JudgeError)
        for (sample, _), verdict in ask_all(self._ask, items, CONCURRENT, outage):
            yield [(sample, verdict)]

    def _ask(self, item: tuple[Sample, Answer]) -> tuple[Verdict, bool]:
        """The verdict on one answer, and whether the server is alive."""
        prompt = self.rubric.fill(*item)
        # One review that fails is reported and asked again; the others are kept.
        try:
            reply = self.chat.ask(prompt, temperature=0, max_tokens=self.max_tokens)
        except NoReply as error:
            return Verdict("", f"the judge failed: {error}"), error.served
        return verdict_of(reply.text, reply.cut_off, item[0]), True
