"""`hf:MODEL`: a judge on this machine.

Any instruct model of transformers, by the same rubric as one behind an API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.errors import JudgeError
from bench.judges.rubric import MAX_TOKENS, Rubric, verdict_of
from bench.models.instruct import BATCH, InstructModel
from bench.types import Answer, Sample, Verdict


class HFJudge:
    """Reviews by greedy decoding.

    Args:
        spec: A hub id or folder.
        options: template (a file with the judge's prompt, or "official"), max_tokens.

    Raises:
        ModelError: The model cannot be found.
        JudgeError: It has no tokenizer, or no chat template: a judge must follow instructions.
    """

    OPTIONS = frozenset({"template", "max_tokens"})

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        self.rubric = Rubric(options.get("template"))
        self.max_tokens = int(options.get("max_tokens") or MAX_TOKENS)
        self.model = InstructModel(spec, "judge", JudgeError)

    def describe(self) -> dict[str, Any]:
        """Model, weights, prompt digest and decoding."""
        return {
            **self.model.describe(),
            **self.rubric.describe(),
            "greedy": True,
            "max_tokens": self.max_tokens,
        }

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order of the items."""
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            prompts = [self.rubric.fill(*item) for item in batch]
            replies = self.model.replies(prompts, self.max_tokens)
            verdicts = []
            for (sample, _), (review, cut_off) in zip(batch, replies, strict=True):
                verdicts.append((sample, verdict_of(review, cut_off, sample)))
            yield verdicts
