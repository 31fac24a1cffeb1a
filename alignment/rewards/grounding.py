"""`grounding`: a reward that looks at the image, which a reward model for text cannot.

Every object that a response asserts or denies, and every number of objects, is put to
vision-language models as a yes/no question about the image (`bench/language/claims.py`). The mean
of their P = P(yes) / (P(yes) + P(no)) is worth

    value(P) = clip((P - threshold) / (1 - threshold), -2, 1)

for an assertion and -value(P) for a denial. A response's reward is the sum over its distinct
claims, those of numbers weighted by `numbers`, so that it grows with what is covered and falls with
what is not so. `facts` takes 1 or 0 from a scene's facts for P.

Artifact, beside rewards.jsonl: grounding.jsonl with {"model", "image", "question", "p"}.
"""

from __future__ import annotations

import math
import statistics
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from alignment.settings import Beside, RecipeError
from bench import registry
from bench.files import append_lines, read_lines
from bench.language.claims import Claim, claims_of
from bench.language.object_mentions import read_synonyms
from bench.metrics.yes_no import yes_probability
from bench.runs.jobs import load_model
from bench.scenes import facts
from bench.scenes.world import Scene
from bench.terminal import progress_bar
from bench.types import Benchmark, Request

WORST = -2.0  # one false object must not outweigh everything that is right
ImageQuestion = tuple[str, str]  # image, question
Probabilities = dict[ImageQuestion, float]


class ClaimsReward(Reward):
    """A reward by what is claimed about the objects of an image.

    `threshold` is the probability at which an assertion is worth nothing, `numbers` what a number
    of objects counts beside their being there.
    """

    threshold: float = Field(0.5, ge=0, le=1)
    numbers: float = Field(1.0, ge=0)

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """All rewards in one batch, once all questions have been asked."""
        synonyms = self.synonyms()
        claims = [claims_of(row["text"], row["instruction"], synonyms) for row in responses]
        # Many responses claim the same of an image; it is asked once.
        claim_of: dict[ImageQuestion, Claim] = {}
        for row, own_claims in zip(responses, claims, strict=True):
            for claim in own_claims:
                claim_of[row["image"], claim.question] = claim
        probabilities = self.probabilities(claim_of, images, out / "grounding.jsonl")
        batch = []
        for row, own_claims in zip(responses, claims, strict=True):
            batch.append(self._reward(row, own_claims, probabilities))
        yield batch

    def _reward(
        self, row: ResponseRow, claims: Sequence[Claim], probabilities: Probabilities
    ) -> Rewarded:
        terms = []
        doubtful: dict[str, None] = {}
        for claim in claims:
            question = (row["image"], claim.question)
            if question not in probabilities:  # its image could not be read
                continue
            weight = 1.0 if claim.number is None else self.numbers
            # A denial is worth what the assertion would cost, and the reverse.
            worth = weight * value(probabilities[question], self.threshold)
            terms.append(-worth if claim.denied else worth)
            if worth < 0 and not claim.denied:
                doubtful[claim.object] = None
        # fsum, so that the order of claims does not change the last digit and with it a tie.
        return Rewarded(row, math.fsum(terms), [*doubtful])

    def synonyms(self) -> dict[str, str]:
        """Category by word: the objects that can be claimed. The scenes' own by default."""
        return read_synonyms(facts.synonym_lines())

    @abstractmethod
    def probabilities(
        self, claim_of: Mapping[ImageQuestion, Claim], images: Mapping[str, ImageFile], file: Path
    ) -> Probabilities:
        """The probability that the answer to each question is yes.

        Args:
            claim_of: The claim that each question asks about.
            images: The images by id.
            file: Where answers may be kept.
        """


class GroundingReward(ClaimsReward):
    """What the mean P(yes) of `models` says of everything that a response claims.

    `vocabulary` is "scenes", or a list of synonyms in CHAIR's form.
    """

    kind: Literal["grounding"]
    models: list[str] = Field(min_length=1)
    vocabulary: Literal["scenes"] | Beside = "scenes"

    def identity(self) -> Any:
        """The models as their adapters describe them, and the vocabulary."""
        descriptions = []
        for name in self.models:
            descriptions.append(load_model(name, {}).describe())
        return [descriptions, sorted(self.synonyms().items())]

    def asked_models(self) -> Sequence[str]:
        """The panel."""
        return self.models

    def synonyms(self) -> dict[str, str]:
        """The vocabulary. Raises RecipeError if its file cannot be read."""
        if not isinstance(self.vocabulary, Path):
            return super().synonyms()
        try:
            return read_synonyms(self.vocabulary.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"The vocabulary {self.vocabulary} cannot be read.",
                f"{error}.",
                "Give a list of synonyms in CHAIR's form.",
            ) from error

    def probabilities(
        self, claim_of: Mapping[ImageQuestion, Claim], images: Mapping[str, ImageFile], file: Path
    ) -> Probabilities:
        """The mean over the panel, NaN if one of its models gives no probability."""
        questions = sorted(claim_of)
        panel = [_ask(name, images, questions, file) for name in self.models]
        means = {}
        for pair in claim_of:
            answers = [answers[pair] for answers in panel if pair in answers]
            if answers:
                means[pair] = statistics.fmean(answers)
        return means


class FactsReward(ClaimsReward):
    """The facts of the scenes in place of P(yes).

    An upper bound for experiments, impossible on photographs.
    """

    kind: Literal["facts"]

    def probabilities(
        self, claim_of: Mapping[ImageQuestion, Claim], images: Mapping[str, ImageFile], file: Path
    ) -> Probabilities:
        """1 for what is so, 0 for what is not."""
        probabilities = {}
        for question, claim in claim_of.items():
            count = _scene(images[question[0]].path.name).counts.get(claim.object, 0)
            holds = count > 0 if claim.number is None else count == claim.number
            probabilities[question] = float(holds)
        return probabilities


def value(p: float, threshold: float) -> float:
    """What an assertion is worth whose object is there with probability `p`.

    From WORST to 1, and 0 at the threshold.
    """
    if math.isnan(p):
        return p
    if threshold == 1:
        return 0.0 if p == 1 else WORST
    return max(WORST, (p - threshold) / (1 - threshold))


def _ask(
    name: str, images: Mapping[str, ImageFile], questions: Sequence[ImageQuestion], file: Path
) -> Probabilities:
    """One model's P(yes) of every question, NaN if it gives none; kept in `file`."""
    rows = [row for row in read_lines(file) if row["model"] == name]
    done = frozenset(f"{row['image']}/{row['question']}" for row in rows)
    # One model at a time in memory, however many are on the panel.
    model = load_model(name, {})
    # POPE's own suffix: the model answers the question as it would in that benchmark.
    pope: Benchmark = registry.benchmark("pope")
    suffix = model.suffix(pope)
    requests = []
    for image, question in questions:
        prompt = f"{question}\n{suffix}" if suffix else question
        path = images[image].path
        key = f"{image}/{question}"
        requests.append(Request(key, image, path, question, prompt, 1, True, ()))
    with progress_bar(f"grounding by {name}", len(requests)) as progress:
        progress(len(done))
        for batch in model.answer(requests, done):
            new = []
            for request, answer in batch:
                if request.key in done or answer.error is not None:
                    continue
                new.append(
                    {
                        "model": name,
                        "image": request.image,
                        "question": request.question,
                        "p": yes_probability(answer.p_yes, answer.p_no),
                    }
                )
            append_lines(file, new)
            rows += new
            progress(len(new))
    probabilities = {}
    for row in rows:
        p = math.nan if row["p"] is None else row["p"]
        probabilities[row["image"], row["question"]] = p
    return probabilities


@lru_cache(maxsize=4096)
def _scene(name: str) -> Scene:
    try:
        return facts.scene_of(name)
    except ValueError as error:
        raise RecipeError(
            "The facts reward knows only scenes.",
            f"{error}",
            "Use `rewards: {kind: grounding}`.",
        ) from error
