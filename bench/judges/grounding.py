"""`grounding:MODEL[+MODEL…]`: a judge that looks at the image, without GPT-4.

What an answer claims about the image is put to vision-language models as yes/no questions
(`bench/grounding/`). An assertion is false if the mean of their P(yes) is below one half, a denial
if it is above. Any false claim is a hallucination; how informative an answer is depends on the
share of the reference's claims that it makes. The rating is MMHal-Bench's, so that the judge can be
compared with others (`bench judge RUN --judge grounding:… --judge openai:…`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import JudgeError
from bench.grounding.panel import ImageQuestion, Probabilities, as_number, ask, mean_over
from bench.grounding.readers import Response, reader_of
from bench.language.claims import Claim
from bench.metrics.claim_reviews import CheckedClaim, review_of
from bench.metrics.ratings import rating_by_facts
from bench.runs.jobs import check_server, load_model
from bench.types import Answer, Model, Sample, Verdict

VERSION = "1"
TOGETHER = 64  # answers judged between two writes
EVEN = 0.5  # P(yes) at which yes and no are as likely


class _Item(NamedTuple):
    """An answer with its claims and its reference's; None if they could not be read."""

    sample: Sample
    answer: Answer
    claims: list[Claim] | None
    wanted: list[Claim]


class GroundingJudge:
    """Asks all models of the panel about every claim; they are in memory together.

    Args:
        spec: Models of the bench, separated by "+".
        options: claims (who finds them: coco, noun-phrases, openai:MODEL[@URL] or hf:MODEL),
            api_key_env (the variable of that server's key).

    Raises:
        JudgeError: There is no model, or nobody of that name who finds claims.
        ModelError: A model cannot be found.
    """

    OPTIONS = frozenset({"claims", "api_key_env"})

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        names = [name for name in spec.split("+") if name]
        if not names:
            raise JudgeError(
                "The grounding judge has no model.",
                "Vision-language models check the claims.",
                "Write --judge grounding:MODEL or grounding:MODEL+MODEL.",
            )
        self.names = names
        self.reader = reader_of(
            options.get("claims") or "coco", JudgeError, options.get("api_key_env")
        )
        self.path_of: Mapping[str, Path] = {}

    @cached_property
    def models(self) -> list[Model]:
        """The panel."""
        return [load_model(name, {}) for name in self.names]

    def describe(self) -> dict[str, Any]:
        """The models as their adapters describe them, and who finds the claims."""
        return {
            "kind": "grounding",
            "version": VERSION,
            "models": [model.describe() for model in self.models],
            "claims": self.reader.describe(),
        }

    def check(self) -> None:
        """Raises BenchError if a model or the reader of claims cannot be used."""
        self.reader.check()
        for model in self.models:
            check_server(model)

    def look_at(self, images: Mapping[str, Path]) -> None:
        """Says where the images lie, by name."""
        self.path_of = images

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """Verdicts in batches, in the order of the items.

        Raises JudgeError if a model gives no P(yes).
        """
        for start in range(0, len(items), TOGETHER):
            read = self._read(items[start : start + TOGETHER])
            probabilities = self._probabilities(read)
            verdicts = []
            for item in read:
                verdicts.append((item.sample, self._verdict(item, probabilities)))
            yield verdicts

    def _read(self, items: Sequence[tuple[Sample, Answer]]) -> list[_Item]:
        answers, references = [], []
        for sample, answer in items:
            answers.append(Response(answer.text, sample.question))
            references.append(Response(str(sample.reference), sample.question))
        claims_of = dict(self.reader.read(answers))
        wanted_of = dict(self.reader.read(references))
        read = []
        for number, (sample, answer) in enumerate(items):
            read.append(_Item(sample, answer, claims_of.get(number), wanted_of.get(number, [])))
        return read

    def _probabilities(self, items: Sequence[_Item]) -> Probabilities:
        """The panel's mean P(yes) of everything that is claimed."""
        questions: dict[ImageQuestion, None] = {}
        for item in items:
            if item.sample.image in self.path_of:
                for claim in item.claims or ():
                    questions[ImageQuestion(item.sample.image, claim.question)] = None
        # Those of an image stand together: it is encoded once.
        in_order = sorted(questions)
        panel = []
        for name, model in zip(self.names, self.models, strict=True):
            answers: Probabilities = {}
            for batch in ask(model, in_order, self.path_of):
                for question, p in batch:
                    if p is None:
                        raise JudgeError(
                            f"{name} gives no P(yes).",
                            "The grounding judge reads it of every claim.",
                            "Use a local model, or a server that gives logprobs.",
                        )
                    answers[question] = as_number(p)
            panel.append(answers)
        return mean_over(panel)

    def _verdict(self, item: _Item, probabilities: Probabilities) -> Verdict:
        sample, claims = item.sample, item.claims
        if "judge_task" in sample.metadata:
            return Verdict("", "the grounding judge rates answers, and lists no objects")
        if claims is None:
            return Verdict("", "its claims could not be read")
        if sample.image not in self.path_of:
            return Verdict("", f"the image {sample.image} was not found")
        checked = []
        for claim in claims:
            p = probabilities.get(ImageQuestion(sample.image, claim.question))
            if p is None:
                return Verdict("", f"the image {sample.image} could not be asked about")
            holds = p < EVEN if claim.denied else p >= EVEN
            checked.append(CheckedClaim(holds, p, claim.denied, claim.question, claim.subject))
        hallucinates = not all(claim.holds for claim in checked)
        wanted = {_fact(claim) for claim in item.wanted}
        given = wanted & {_fact(claim) for claim in claims}
        words = len(item.answer.text.split())
        rating = rating_by_facts(hallucinates, len(given), len(wanted), words)
        return Verdict(review_of(checked, rating))


def _fact(claim: Claim) -> tuple[str, bool]:
    """What makes an answer's claim and a reference's one fact."""
    return claim.question.lower(), claim.denied
