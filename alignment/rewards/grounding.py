"""`grounding`: a reward that looks at the image, which a reward model for text cannot.

Everything that a response claims about the image becomes a yes/no question to vision-language
models (`bench/language/claims.py`, `noun_phrases.py`, or a language model's). The mean of their
P = P(yes) / (P(yes) + P(no)) is worth

    value(P) = clip((P - threshold) / (1 - threshold), -2, 1)

for an assertion. A denial that the instruction asked for is worth -value(P), at most 1, and one
that nobody asked for is worth nothing: there is no end of what is not in an image. A response's
reward is the sum over its distinct claims, those of numbers and attributes weighted by `numbers`,
so that it grows with what is covered and falls with what is not so. `facts` takes 1 or 0 from a
scene's facts for P.

Artifacts, beside rewards.jsonl: claims.jsonl with {"key", "claims"} if a language model split the
responses, grounding.jsonl with {"model", "image", "question", "p"}.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from PIL import Image
from pydantic import Field
from typing_extensions import TypedDict

from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from alignment.settings import Beside, RecipeError, Settings
from bench.errors import DataError
from bench.files import append_lines, read_json, read_lines, read_text, write_json
from bench.grounding.panel import ImageQuestion, Probabilities, as_number, ask, mean_over
from bench.grounding.readers import CocoReader, ModelReader, Reader, Response, reader_of
from bench.grounding.threshold import AgreedClaim, choose_threshold
from bench.language.claims import Claim
from bench.language.object_mentions import read_synonyms
from bench.runs.jobs import load_model
from bench.scenes import facts
from bench.scenes.world import Scene
from bench.terminal import progress_bar

WORST = -2.0  # one false object must not outweigh everything that is right
BEST_DENIAL = 1.0  # as much as an assertion
GREY = (128, 128, 128)
Probability = Annotated[float, Field(ge=0, le=1)]


class CocoClaims(Settings):
    """Claims about objects of a list and their numbers.

    `synonyms` is a list in CHAIR's form; COCO's 80 categories without it.
    """

    kind: Literal["coco"]
    synonyms: Beside | None = None

    def reader(self) -> Reader:
        """Raises RecipeError if the list cannot be read."""
        if self.synonyms is None:
            return reader_of("coco", RecipeError)
        try:
            return CocoReader(read_synonyms(read_text(self.synonyms)))
        except DataError as error:
            raise RecipeError(
                f"The list of synonyms {self.synonyms} cannot be read.",
                error.reason,
                "Give a list in CHAIR's form, or none for COCO's categories.",
            ) from error


class NounPhraseClaims(Settings):
    """Claims about whatever is named, with numbers and attributes."""

    kind: Literal["noun-phrases"]

    def reader(self) -> Reader:
        """The tagger's."""
        return reader_of("noun-phrases", RecipeError)


class ModelClaims(Settings):
    """Claims as a language model splits a response into them.

    `model` is openai:MODEL[@URL], or hf:MODEL for an instruct model on this machine.
    """

    kind: Literal["model"]
    model: str

    def reader(self) -> Reader:
        """The model's. Raises RecipeError if it cannot be one."""
        return ModelReader(self.model, RecipeError)


class Claimed(NamedTuple):
    """A response with its claims."""

    response: ResponseRow
    claims: list[Claim]


class ClaimsReward(Reward):
    """A reward by what is claimed about an image.

    `numbers` is what a number or an attribute of objects counts beside their being there, `claims`
    who finds the claims.
    """

    numbers: float = Field(1.0, ge=0)
    claims: CocoClaims | NounPhraseClaims | ModelClaims = Field(
        CocoClaims(kind="coco"), discriminator="kind"
    )

    def check(self) -> None:
        """Raises BenchError if the claims cannot be found."""
        self.claims.reader().check()

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """All rewards in one batch, once all questions have been asked.

        A response that the reader of claims could not read is left out.
        """
        claimed = self._read(responses, out)
        # Many responses claim the same of an image; it is asked once.
        claim_of: dict[ImageQuestion, Claim] = {}
        for row, claims in claimed:
            for claim in claims:
                if _counts(claim):
                    claim_of[ImageQuestion(row["image"], claim.question)] = claim
        probabilities = self.probabilities(claim_of, images, out / "grounding.jsonl")
        threshold = self.threshold_for(claimed, probabilities, out / "threshold.json")
        yield [self._reward(one, probabilities, threshold) for one in claimed]

    @abstractmethod
    def threshold_for(
        self, claimed: Sequence[Claimed], probabilities: Probabilities, file: Path
    ) -> float:
        """The probability at which an assertion is worth nothing.

        Args:
            claimed: The responses with their claims.
            probabilities: The answers to all questions.
            file: Where a choice is kept.
        """

    def _read(self, responses: Sequence[ResponseRow], out: Path) -> list[Claimed]:
        """The responses with their claims, in order; a model's claims are kept in claims.jsonl."""
        reader = self.claims.reader()
        is_kept = isinstance(self.claims, ModelClaims)
        file = out / "claims.jsonl"
        claims_of: dict[str, list[Claim]] = {}
        if is_kept:
            for line in read_lines(file, ClaimsRow):
                claims_of[line["key"]] = list(map(_claim, line["claims"]))
        waiting = [row for row in responses if row["key"] not in claims_of]
        texts = [Response(row["text"], row["instruction"]) for row in waiting]
        with progress_bar("claims", len(responses)) as progress:
            progress(len(claims_of))
            for number, claims in reader.read(texts):
                key = waiting[number]["key"]
                claims_of[key] = claims
                if is_kept:
                    rows = [claim._asdict() for claim in claims]
                    append_lines(file, [{"key": key, "claims": rows}])
                progress(1)
        return [Claimed(row, claims_of[row["key"]]) for row in responses if row["key"] in claims_of]

    def _reward(self, claimed: Claimed, probabilities: Probabilities, threshold: float) -> Rewarded:
        row, claims = claimed
        terms = []
        doubtful: dict[str, None] = {}
        for claim in claims:
            question = ImageQuestion(row["image"], claim.question)
            # An image that could not be read was not asked about.
            if question not in probabilities or not _counts(claim):
                continue
            weight = 1.0 if claim.kind == "object" else self.numbers
            worth = value(probabilities[question], threshold)
            if claim.denied:
                terms.append(weight * min(BEST_DENIAL, -worth))
            else:
                terms.append(weight * worth)
                if worth < 0:
                    doubtful[claim.subject] = None
        # fsum, so that the order of claims does not change the last digit and with it a tie.
        return Rewarded(row, math.fsum(terms), [*doubtful], len(claims))

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

    Without `models` those judge whose the responses are: a model alone judges its own.
    `threshold: auto` is chosen from how far responses to an image agree
    (`bench/grounding/threshold.py`); threshold.json and the manifest say what it is. `image` is
    what the panel sees: controls show it another image of the same artifact, or a grey one.
    """

    kind: Literal["grounding"]
    models: list[str] = Field(default_factory=list)
    image: Literal["own", "another", "blank"] = "own"
    threshold: Probability | Literal["auto"] = "auto"

    def with_responders(self, models: Sequence[str]) -> GroundingReward:
        """Their own panel, if no other one is named."""
        return self if self.models else self.model_copy(update={"models": list(models)})

    def identity(self) -> Any:
        """The models as their adapters describe them, and what decides the claims."""
        descriptions = []
        for name in self.models:
            descriptions.append(load_model(name, {}).describe())
        return [descriptions, self.claims.reader().describe()]

    def asked_models(self) -> Sequence[str]:
        """The panel."""
        return self.models

    def probabilities(
        self, claim_of: Mapping[ImageQuestion, Claim], images: Mapping[str, ImageFile], file: Path
    ) -> Probabilities:
        """The mean over the panel, NaN if one of its models gives no probability."""
        questions = sorted(claim_of)
        path_of = self._shown(images, file.parent)
        return mean_over([_ask(name, path_of, questions, file) for name in self.models])

    def _shown(self, images: Mapping[str, ImageFile], out: Path) -> dict[str, Path]:
        """What the panel sees in the place of each image."""
        names = sorted(images)
        if self.image == "another":
            # Half a turn, so that a prompt's own neighbours are not shown.
            turned = names[len(names) // 2 :] + names[: len(names) // 2]
            return {name: images[other].path for name, other in zip(names, turned, strict=True)}
        if self.image == "blank":
            path_of = {}
            for name in names:
                with Image.open(images[name].path) as shown:
                    size = shown.size
                path_of[name] = out / f"grey-{size[0]}x{size[1]}.png"
                if not path_of[name].exists():
                    Image.new("RGB", size, GREY).save(path_of[name])
            return path_of
        return {name: image.path for name, image in images.items()}

    def threshold_for(
        self, claimed: Sequence[Claimed], probabilities: Probabilities, file: Path
    ) -> float:
        """The setting, or the choice; one that was made before stays.

        Raises RecipeError if none can be made.
        """
        if self.threshold != "auto":
            return self.threshold
        if not file.exists():
            choice = choose_threshold(agreed_claims(claimed, probabilities))
            if isinstance(choice, str):
                raise RecipeError(
                    "`threshold: auto` finds no threshold.",
                    choice,
                    "Give a number, or more responses to each image.",
                )
            write_json(file, choice._asdict())
        return read_json(file, Chosen)["threshold"]

    def counts(self, out: Path) -> dict[str, Any]:
        """The threshold, if it was chosen."""
        if self.threshold != "auto":
            return {}
        return {"threshold": round(read_json(out / "threshold.json", Chosen)["threshold"], 3)}


class FactsReward(ClaimsReward):
    """The facts of the scenes in place of P(yes).

    An upper bound for experiments, impossible on photographs.
    """

    kind: Literal["facts"]
    claims: CocoClaims = CocoClaims(kind="coco")
    threshold: Probability = 0.5

    def threshold_for(
        self, claimed: Sequence[Claimed], probabilities: Probabilities, file: Path
    ) -> float:
        """The setting."""
        return self.threshold

    def probabilities(
        self, claim_of: Mapping[ImageQuestion, Claim], images: Mapping[str, ImageFile], file: Path
    ) -> Probabilities:
        """1 for what is so, 0 for what is not."""
        probabilities = {}
        for question, claim in claim_of.items():
            count = _scene(images[question.image].path.name).counts.get(claim.subject, 0)
            holds = count > 0 if claim.number is None else count == claim.number
            probabilities[question] = float(holds)
        return probabilities


def agreed_claims(claimed: Sequence[Claimed], probabilities: Probabilities) -> list[AgreedClaim]:
    """The distinct assertions of objects, with the share of their image's responses that make them.

    Images with one response are left out: it always agrees with itself.
    """
    responses_to: Counter[str] = Counter()
    times: Counter[ImageQuestion] = Counter()
    for row, claims in claimed:
        responses_to[row["image"]] += 1
        for claim in claims:
            if claim.kind == "object" and not claim.denied:
                times[ImageQuestion(row["image"], claim.question)] += 1
    agreed = []
    for question, count in times.items():
        num_responses = responses_to[question.image]
        if question in probabilities and num_responses > 1:
            agreed.append(AgreedClaim(probabilities[question], count / num_responses))
    return agreed


def value(p: float, threshold: float) -> float:
    """What an assertion is worth whose object is there with probability `p`.

    From WORST to 1, and 0 at the threshold.
    """
    if math.isnan(p):
        return p
    if threshold == 1:
        return 0.0 if p == 1 else WORST
    return max(WORST, (p - threshold) / (1 - threshold))


def _counts(claim: Claim) -> bool:
    """Whether a claim can be worth anything: a denial only if it was asked for."""
    return claim.asked or not claim.denied


class Chosen(TypedDict):
    """threshold.json."""

    threshold: float


class ClaimFields(TypedDict):
    """A `Claim` in claims.jsonl."""

    question: str
    subject: str
    kind: Literal["object", "detail"]
    number: int | None
    denied: bool
    asked: bool


def _claim(fields: ClaimFields) -> Claim:
    return Claim(
        fields["question"],
        fields["subject"],
        fields["kind"],
        fields["number"],
        fields["denied"],
        fields["asked"],
    )


class ClaimsRow(TypedDict):
    """A line of claims.jsonl: a response's key and what it claims."""

    key: str
    claims: list[ClaimFields]


class AskedRow(TypedDict):
    """A line of a panel's file: P(yes), null if the model gives none."""

    model: str
    image: str
    question: str
    p: float | None


def _ask(
    name: str, path_of: Mapping[str, Path], questions: Sequence[ImageQuestion], file: Path
) -> Probabilities:
    """One model's P(yes) of every question, NaN if it gives none; kept in `file`."""
    probabilities: Probabilities = {}
    for row in read_lines(file, AskedRow):
        if row["model"] == name:
            probabilities[ImageQuestion(row["image"], row["question"])] = as_number(row["p"])
    done = [question for question in questions if question in probabilities]
    # One model at a time in memory, however many are on the panel.
    model = load_model(name, {})
    with progress_bar(f"grounding by {name}", len(questions)) as progress:
        progress(len(done))
        for batch in ask(model, questions, path_of, done):
            rows: list[AskedRow] = []
            for question, p in batch:
                row = {
                    "model": name,
                    "image": question.image,
                    "question": question.question,
                    "p": p,
                }
                rows.append(row)
                probabilities[question] = as_number(p)
            append_lines(file, rows)
            progress(len(rows))
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
