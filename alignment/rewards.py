"""A reward for every response.

`grounding` looks at the image, which a reward model for text cannot: every object that a response asserts or denies,
and every number of objects, is put to vision-language models as a yes/no question about the image (`claims.py`), and
the mean of their P = P(yes) / (P(yes) + P(no)) is worth

    value(P) = clip((P - threshold) / (1 - threshold), -2, 1)

for an assertion and -value(P) for a denial. A response's reward is the sum over its distinct claims, those of numbers
weighted by `numbers`, so that it grows with what is covered and falls with what is not so. `facts` takes 1 or 0 from a
scene's facts for P.

`classifier` and `judge` are in `alignment/text_rewards.py`.

Artifact: rewards.jsonl with {"key", "reward", "doubtful"}, the last being objects with an assertion of negative value;
for `grounding` also grounding.jsonl with {"model", "image", "question", "p"}.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.claims import Claim, claims_of
from alignment.recipe import ClassifierReward, FactsReward, GroundingReward, JudgeReward, RecipeError
from alignment.text_rewards import Rewarded, Row, by_classifier, by_judge
from bench import registry
from bench.compose import load_judge, load_model
from bench.errors import BenchError
from bench.metrics.object_mentions import read_synonyms
from bench.metrics.yes_no import yes_probability
from bench.scenes import facts
from bench.store import append_lines, read_lines
from bench.terminal import progress_bar
from bench.types import Benchmark, Request

VERSION = "4"
Kind = GroundingReward | FactsReward | ClassifierReward | JudgeReward
WORST = -2.0


def identity(settings: Kind) -> Any:
    """The asked models as their adapters describe them, and the vocabulary; for a judge, what it says of itself."""
    if isinstance(settings, GroundingReward):
        asked = [load_model(name, {}).describe() for name in settings.models]
        return [asked, sorted(_synonyms(settings).items())]
    if isinstance(settings, JudgeReward):
        judge = load_judge(settings.judge, None)
        return judge.describe() if judge else None
    return None


def run(settings: Kind, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Rewards all responses. Raises BenchError where a reward is not a number; those before it are kept."""
    images = {row["id"]: row for row in read_lines(inputs["images"] / "images.jsonl")}
    file = out / "rewards.jsonl"
    done = {row["key"] for row in read_lines(file)}
    waiting = [row for row in read_lines(inputs["responses"] / "responses.jsonl") if row["key"] not in done]
    if isinstance(settings, ClassifierReward):
        found = by_classifier(settings, waiting)
    elif isinstance(settings, JudgeReward):
        found = by_judge(settings, waiting, {name: row["prompt"] for name, row in images.items()})
    else:
        files = {name: inputs["images"] / row["file"] for name, row in images.items() if row["file"]}
        found = _by_claims(settings, waiting, files, out / "grounding.jsonl")
    with progress_bar("rewards", len(waiting)) as progress:
        for batch in found:
            wrong = next((row["key"] for row, reward, _ in batch if not math.isfinite(reward)), None)
            if wrong is not None:
                raise BenchError(
                    f"The reward of response {wrong} is not a number.",
                    "A model that gives no probabilities, or an overflow.",
                    "Use another reward model or dtype.",
                )
            append_lines(file, [{"key": row["key"], "reward": reward, "doubtful": d} for row, reward, d in batch])
            progress(len(batch))
    rewarded = len(read_lines(file))
    return {"rewards": rewarded, "unrewarded": len(done) + len(waiting) - rewarded}


def _by_claims(
    settings: GroundingReward | FactsReward, rows: Sequence[Row], images: Mapping[str, Path], file: Path
) -> Iterator[list[Rewarded]]:
    """All rewards from what is claimed about the objects of an image."""
    synonyms = _synonyms(settings)
    said = [claims_of(row["text"], row["instruction"], synonyms) for row in rows]
    asked = {(row["image"], claim.question): claim for row, claims in zip(rows, said, strict=True) for claim in claims}
    p: Mapping[tuple[str, str], float]
    if isinstance(settings, FactsReward):
        p = {pair: _true(claim, images[pair[0]]) for pair, claim in asked.items()}
    else:
        panel = [_ask(name, images, sorted(asked), file) for name in settings.models]
        p = {
            pair: statistics.fmean(answers[pair] for answers in panel if pair in answers)
            for pair in asked
            if any(pair in answers for answers in panel)
        }
    rewarded = []
    for row, claims in zip(rows, said, strict=True):
        worth = {}
        for claim in claims:
            pair = (row["image"], claim.question)
            weight = 1.0 if claim.number is None else settings.numbers
            if pair in p:
                worth[claim] = weight * value(p[pair], settings.threshold)
        reward = math.fsum(-amount if claim.denied else amount for claim, amount in worth.items())
        doubtful = dict.fromkeys(claim.object for claim, amount in worth.items() if amount < 0 and not claim.denied)
        rewarded.append((row, reward, [*doubtful]))
    yield rewarded


def _true(claim: Claim, picture: Path) -> float:
    count = _scene(picture.name).counts.get(claim.object, 0)
    return float(count > 0 if claim.number is None else count == claim.number)


def value(p: float, threshold: float) -> float:
    """What an assertion is worth whose object is there with probability `p`: from WORST to 1, 0 at the threshold."""
    if threshold == 1:
        return 0.0 if p == 1 else WORST
    return max(WORST, (p - threshold) / (1 - threshold)) if not math.isnan(p) else p


def _ask(
    name: str, images: Mapping[str, Path], asked: Sequence[tuple[str, str]], file: Path
) -> dict[tuple[str, str], float]:
    """One model's P(yes) of every (image, question), NaN where it gives none; kept in `file`."""
    rows = [row for row in read_lines(file) if row["model"] == name]
    done = frozenset(f"{row['image']}/{row['question']}" for row in rows)
    model = load_model(name, {})
    pope: Benchmark = registry.load("benchmarks", "pope")
    suffix = model.suffix(pope)
    requests = []
    for image, question in asked:
        prompt = f"{question}\n{suffix}" if suffix else question
        requests.append(Request(f"{image}/{question}", image, images[image], question, prompt, 1, True, ()))
    with progress_bar(f"grounding by {name}", len(requests)) as progress:
        progress(len(done))
        for batch in model.answer(requests, done):
            new = [
                {"model": name, "image": r.image, "question": r.question, "p": yes_probability(a.p_yes, a.p_no)}
                for r, a in batch
                if r.key not in done and a.error is None
            ]
            append_lines(file, new)
            rows += new
            progress(len(new))
    return {(row["image"], row["question"]): math.nan if row["p"] is None else row["p"] for row in rows}


def _synonyms(settings: GroundingReward | FactsReward) -> dict[str, str]:
    if isinstance(settings, FactsReward) or settings.vocabulary == "scenes":
        return read_synonyms(facts.synonym_lines())
    assert isinstance(settings.vocabulary, Path)
    try:
        return read_synonyms(settings.vocabulary.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The vocabulary {settings.vocabulary} cannot be read.", f"{error}.", "Give a list of synonyms as CHAIR's."
        ) from error


@lru_cache(maxsize=4096)
def _scene(name: str) -> Any:
    try:
        return facts.scene_of(name)
    except ValueError as error:
        raise RecipeError(
            "The facts reward knows scenes alone.", f"{error}", "Use `rewards: {kind: grounding}`."
        ) from error
