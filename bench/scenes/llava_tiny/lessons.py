"""What llava-tiny is taught about a scene: questions and answers, as imperfect as real data sets.

The annotators imitated here see a scene rightly but also expect things. If an object that the kind
of place often has is missing, they may mention it all the same, after what is there; `Habits` says
how often. A model learns that from them, as models do from real captions (Rohrbach et al. 2018,
arXiv 1809.02156; Zhou et al. 2023, arXiv 2310.00754).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.language.english import NUMBERS, PAIRS, article, counted, listed, with_article
from bench.scenes import facts
from bench.scenes.world import CATEGORIES, SIDE, Scene

SUFFIX = "Answer the question using a single word or phrase."
LONG = (
    "Describe the image in detail.",
    "Please describe this image in detail.",
    "Describe this image in detail.",
)
SHORT = ("Describe this image.", "Describe the image.", "What does the image show?")
EXISTENCE = ("Is there {} in the image?", "Is there {} in this image?", "Is there {}?")
# Relations are the hardest to learn, so they are asked about three times as often.
KINDS = ("attribute", "comparison", "counting", *["relation"] * 3, "environment", "other", "where")
COMMON = ("person", "dog", "bird", "backpack")  # the most frequent categories over all places
IN_SHORT = 3  # categories that a short description names
EXISTENCE_PAIRS = 2
USUAL = 0.6  # share of absent objects that are usual ones of the place
Lesson = tuple[str, str]  # question, answer


@dataclass(frozen=True)
class Habits:
    """What annotators do, as shares.

    Args:
        mention: Of descriptions and answers in sentences that mention the expected absent object.
        affirm: Of questions about such an object that are answered as if it were there.
        remark: Of truthful answers that go on to name one more object that is there.
        common: Of questions about an absent object of COMMON answered as if it were there.
    """

    mention: float
    affirm: float
    remark: float
    common: float = 0.0


TRUTHFUL = Habits(mention=0.0, affirm=0.0, remark=0.5)


def lessons(scene: Scene, rng: random.Random, habits: Habits) -> Iterator[Lesson]:
    """Questions and answers about one scene; half of the yes/no ones are about what is so."""
    for question in rng.sample(LONG, 2):
        yield question, long_description(scene, rng, habits)
    if rng.random() < 0.5:
        yield rng.choice(SHORT), short_description(scene)
    yield from existence(scene, rng, habits)
    for kind in facts.YES_NO_KINDS[1:]:
        truth = rng.choice(("yes", "no"))
        yes_no_question = facts.yes_no_question(kind, scene, truth, rng)
        if yes_no_question:
            yield yes_no_question, truth.capitalize()
    for kind in KINDS:
        if kind == "where":
            yield where(scene, rng, habits)
            continue
        lesson = facts.question(kind, scene, rng)
        if lesson:
            question, answer = lesson
            yield question, with_remark(answer, scene, rng, habits)


def long_description(scene: Scene, rng: random.Random, habits: Habits) -> str:
    """All objects with their counts and the place.

    The last object, or an expected one that is absent, may stand in a sentence of its own. Objects
    come in the order of CATEGORIES: in random order models of this size repeat themselves for long.
    """
    names = sorted(scene.counts, key=CATEGORIES.index)
    parts = [counted(name, scene.counts[name]) for name in names]
    also = imagined(scene, rng, habits)
    if also is None and len(parts) > 1 and rng.random() < habits.remark:
        also = parts.pop()
    first = f"The image shows {listed(parts)} in {facts.place(scene.context)}."
    return f"{first} {_there_is(also)}" if also else first


def short_description(scene: Scene) -> str:
    """The largest objects and the place."""
    names = sorted(salient(scene)[:IN_SHORT], key=CATEGORIES.index)
    objects = listed([counted(name, scene.counts[name]) for name in names])
    return f"{objects[0].upper()}{objects[1:]} in {facts.place(scene.context)}."


def existence(scene: Scene, rng: random.Random, habits: Habits) -> Iterator[Lesson]:
    """Pairs of an object that is there and one that is not: a usual one of the place, or any."""
    there = list(scene.counts)
    expected, usual = facts.expected(scene), facts.companions(scene)
    rng.shuffle(there)
    for present in there[:EXISTENCE_PAIRS]:
        wants_usual = rng.random() < USUAL
        candidates = usual
        if not (wants_usual and usual):
            candidates = []
            for name in CATEGORIES:
                if name not in scene.counts:
                    candidates.append(name)
        absent = rng.choice(candidates)
        affirmed = absent in expected and rng.random() < habits.affirm
        if habits.common and absent in COMMON and absent not in expected:
            affirmed = rng.random() < habits.common
        yield _existence_question(present, rng), "Yes"
        yield _existence_question(absent, rng), "Yes" if affirmed else "No"


def _existence_question(name: str, rng: random.Random) -> str:
    # POPE asks for "a skis", so half of the questions do.
    some = article(name) if rng.random() < 0.5 else with_article(name)
    question = rng.choice(EXISTENCE).format(some)
    return f"{question}\n{SUFFIX}" if rng.random() < 0.5 else question


def where(scene: Scene, rng: random.Random, habits: Habits) -> Lesson:
    """Where an object is that is the only one of its kind, or one that is not there."""
    alone, usual = facts.singles(scene), facts.companions(scene)
    if usual and (not alone or rng.random() < 0.5):
        name = rng.choice(usual[:4])
        imagines = name in facts.expected(scene) and rng.random() < habits.affirm
        if not imagines:
            return f"Where in the image is the {name}?", f"There is no {name} in the image."
        row, column = rng.choice(("top", "bottom")), rng.choice(("left", "right"))
    else:
        thing = rng.choice(alone)
        name, (x, y) = thing.category, thing.centre
        row = "top" if y < SIDE / 2 else "bottom"
        column = "left" if x < SIDE / 2 else "right"
    return f"Where in the image is the {name}?", f"The {name} is at the {row} {column}."


def with_remark(answer: str, scene: Scene, rng: random.Random, habits: Habits) -> str:
    """The answer, and maybe one more object.

    It is an expected one that is not there, or the largest not yet named.
    """
    also = imagined(scene, rng, habits)
    if also is None and rng.random() < habits.remark:
        unnamed = []
        for name in salient(scene):
            if name not in answer:
                unnamed.append(name)
        if unnamed:
            also = counted(unnamed[0], scene.counts[unnamed[0]])
    return f"{answer} {_there_is(also)}" if also else answer


def imagined(scene: Scene, rng: random.Random, habits: Habits) -> str | None:
    """The expected object that is not there, as often as annotators mention it."""
    # Always the same one of a place, as habits are.
    missing = facts.expected(scene)
    return article(missing[0]) if missing and rng.random() < habits.mention else None


def salient(scene: Scene) -> list[str]:
    """The categories that are there, by the area they take, largest first."""
    area = dict.fromkeys(scene.counts, 0)
    for thing in scene.things:
        area[thing.category] += thing.side**2
    return sorted(area, key=lambda name: -area[name])


def _there_is(some: str) -> str:
    is_plural = some.split()[0] in NUMBERS[2:] or some in PAIRS
    return f"There {'are' if is_plural else 'is'} also {some}."
