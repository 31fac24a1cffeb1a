"""A reward for every response.

`grounding` looks at the image, which a reward model for text cannot: every object that a response asserts or denies is
put to a vision-language model as a yes/no question about the image, and P = P(yes) / (P(yes) + P(no)) is worth

    value(P) = clip((P - threshold) / (1 - threshold), -2, 1)

for an assertion and -value(P) for a denial. A response's reward is the sum over the distinct objects, so that it grows
with what is covered and falls with what is not there. `facts` takes 1 or 0 from a scene's facts for P.

`classifier` and `judge` are in `alignment/text_rewards.py`.

Artifact: rewards.jsonl with {"key", "reward", "doubtful"}, the last being asserted objects of negative value; for
`grounding` also grounding.jsonl with {"image", "object", "p"}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.recipe import ClassifierReward, FactsReward, GroundingReward, JudgeReward, RecipeError
from alignment.text_rewards import Rewarded, Row, by_classifier, by_judge
from bench import registry
from bench.compose import load_judge, load_model
from bench.data.pope_questions import question_about
from bench.errors import BenchError
from bench.judges.scene import DENIALS
from bench.metrics.object_mentions import chair_mentions, chair_words, read_synonyms
from bench.metrics.yes_no import yes_probability
from bench.scenes import facts
from bench.store import append_lines, read_lines
from bench.terminal import progress_bar
from bench.types import Benchmark, Request

VERSION = "1"
Kind = GroundingReward | FactsReward | ClassifierReward | JudgeReward
WORST = -2.0
CLAUSE = re.compile(r"[.;!?\n]|, but ")


def identity(settings: Kind) -> Any:
    """The asked model as its adapter describes it, and the vocabulary; for a judge, what it says of itself."""
    if isinstance(settings, GroundingReward):
        return [load_model(settings.model, {}).describe(), sorted(_synonyms(settings).items())]
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
        found = _by_objects(settings, waiting, files, out / "grounding.jsonl")
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


def _by_objects(
    settings: GroundingReward | FactsReward, rows: Sequence[Row], images: Mapping[str, Path], file: Path
) -> Iterator[list[Rewarded]]:
    """All rewards from what is asserted and denied about the objects of an image."""
    synonyms = _synonyms(settings)
    claims = [claimed(row["text"], row["instruction"], synonyms) for row in rows]
    asked = dict.fromkeys(
        (row["image"], name) for row, pair in zip(rows, claims, strict=True) for name in (*pair[0], *pair[1])
    )
    if isinstance(settings, FactsReward):
        p = {(image, name): float(name in _scene(images[image]).counts) for image, name in asked}
    else:
        p = _ask(settings, images, list(asked), file)
    rewarded = []
    for row, (asserted, denied) in zip(rows, claims, strict=True):
        worth = {
            name: value(p[row["image"], name], settings.threshold)
            for name in (*asserted, *denied)
            if (row["image"], name) in p
        }
        signed = [worth[name] if name in asserted else -worth[name] for name in worth]
        rewarded.append((row, math.fsum(signed), [name for name in asserted if worth.get(name, 0) < 0]))
    yield rewarded


def value(p: float, threshold: float) -> float:
    """What an assertion is worth whose object is there with probability `p`: from WORST to 1, 0 at the threshold."""
    if threshold == 1:
        return 0.0 if p == 1 else WORST
    return max(WORST, (p - threshold) / (1 - threshold)) if not math.isnan(p) else p


def claimed(text: str, instruction: str, synonyms: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The distinct objects that a response says are there, and those it says are not.

    A clause with no, not, none … denies its objects; a bare yes or no is about those of the instruction.
    """
    asserted: dict[str, None] = {}
    denied: dict[str, None] = {}
    for clause in CLAUSE.split(text):
        found = chair_mentions(clause, synonyms)
        (denied if DENIALS & {*chair_words(clause)} else asserted).update(dict.fromkeys(found))
    first = re.match(r"\s*(yes|no)\b", text.lower())
    if first:
        about = dict.fromkeys(chair_mentions(instruction, synonyms))
        (asserted if first[1] == "yes" else denied).update(about)
    return list(asserted), [name for name in denied if name not in asserted]


def _ask(
    settings: GroundingReward, images: Mapping[str, Path], asked: Sequence[tuple[str, str]], file: Path
) -> dict[tuple[str, str], float]:
    """P(yes) of every (image, object), one yes/no question each in POPE's words."""
    done = {(row["image"], row["object"]): row["p"] for row in read_lines(file)}
    model = load_model(settings.model, {})
    pope: Benchmark = registry.load("benchmarks", "pope")
    suffix = model.suffix(pope)
    requests, about = [], {}
    for image, name in sorted(asked):
        key = f"{image}/{name}"
        about[key] = (image, name)
        question = question_about(name)
        prompt = f"{question}\n{suffix}" if suffix else question
        requests.append(Request(key, image, images[image], question, prompt, 1, True, ()))
    keys = frozenset(f"{image}/{name}" for image, name in done)
    with progress_bar("grounding", len(requests)) as progress:
        progress(len(keys))
        for batch in model.answer(requests, keys):
            rows = []
            for request, answer in batch:
                p = yes_probability(answer.p_yes, answer.p_no)
                if request.key not in keys and answer.error is None:
                    image, name = about[request.key]
                    rows.append({"image": image, "object": name, "p": p})
            append_lines(file, rows)
            progress(len(rows))
    found = {(row["image"], row["object"]): row["p"] for row in read_lines(file)}
    return {pair: math.nan if p is None else p for pair, p in found.items()}


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


def _scene(path: Path) -> Any:
    try:
        return facts.scene_of(path.name)
    except ValueError as error:
        raise RecipeError(
            "The facts reward knows scenes alone.", f"{error}", "Use `rewards: {kind: grounding}`."
        ) from error
