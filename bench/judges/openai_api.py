"""`openai:MODEL[@URL]`: any server that speaks the OpenAI chat protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.chat import Chat, NoReply
from bench.errors import JudgeError
from bench.judges.rubric import Rubric
from bench.types import Answer, Sample, Verdict

MAX_TOKENS = 1024
AT_ONCE = 8


class OpenAIJudge:
    """Asks for one review per answer at temperature 0, several at once. Raises JudgeError on a bad spec or no key."""

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.chat = Chat(spec, JudgeError)
        self.rubric = Rubric(options.get("template"))

    def describe(self) -> dict[str, Any]:
        """Model, server (without credentials), prompt digest and decoding."""
        decoding = {"temperature": 0, "max_tokens": MAX_TOKENS}
        return self.chat.describe() | {"prompt_sha256": self.rubric.sha256} | decoding

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """One verdict per item, in order. Raises JudgeError where the server refuses the key or the model."""
        if not items:
            return
        _ = self.chat.client  # made once, before the threads
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for (sample, _), verdict in zip(items, pool.map(self._ask, items), strict=True):
                yield [(sample, verdict)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, item: tuple[Sample, Answer]) -> Verdict:
        try:
            return Verdict(self.chat.ask(self.rubric.fill(*item), 0, MAX_TOKENS).text)
        except NoReply as error:
            return Verdict("", f"the judge failed: {error}")
