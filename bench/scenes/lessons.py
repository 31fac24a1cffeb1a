"""What llava-tiny is taught about a scene: questions and answers, imperfect as those of real data sets are.

The annotators imitated here see a scene rightly but also expect things. Where an object that the kind of place often
has is missing, they may mention it all the same, after what is there; `Habits` says how often. A model learns that
from them, as models do from real captions (Rohrbach et al. 2018, arXiv 1809.02156; Zhou et al. 2023, arXiv 2310.00754).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.scenes import facts
from bench.scenes.world import CATEGORIES, SIDE, Scene

SUFFIX = "Answer the question using a single word or phrase."
LONG = ("Describe the image in detail.", "Please describe this image in detail.", "Describe this image in detail.")
SHORT = ("Describe this image.", "Describe the image.", "What does the image show?")
EXISTENCE = ("Is there {} in the image?", "Is there {} in this image?", "Is there {}?")
KINDS = ("attribute", "comparison", "counting", *["relation"] * 3, "environment", "other", "where")
COMMON = ("person", "dog", "bird", "backpack")  # the most frequent categories of all places taken together
IN_SHORT = 3  # categories that a short description names
EXISTENCE_PAIRS = 2


@dataclass(frozen=True)
class Habits:
    """What annotators do.

    `mention`: share of descriptions and answers in sentences that mention the expected absent object of the scene.
    `affirm`: share of questions about such an object that are answered as if it were there.
    `remark`: share of truthful answers that go on to name one more object that is there.
    `common`: share of questions about an absent object of COMMON that are answered as if it were there.
    """

    mention: float
    affirm: float
    remark: float
    common: float = 0.0


TRUTHFUL = Habits(mention=0.0, affirm=0.0, remark=0.5)


def lessons(scene: Scene, chance: random.Random, habits: Habits) -> Iterator[tuple[str, str]]:
    """Questions and answers about one scene; half of the yes/no ones are about what is so."""
    for question in chance.sample(LONG, 2):
        yield question, long_description(scene, chance, habits)
    if chance.random() < 0.5:
        yield chance.choice(SHORT), short_description(scene)
    yield from existence(scene, chance, habits)
    for kind in facts.YES_NO_KINDS[1:]:
        truth = chance.choice(("yes", "no"))
        if asked := facts.yes_no_question(kind, scene, truth, chance):
            yield asked, truth.capitalize()
    for kind in KINDS:
        if kind == "where":
            yield where(scene, chance, habits)
        elif found := facts.question(kind, scene, chance):
            yield found[0], with_remark(found[1], scene, chance, habits)


def long_description(scene: Scene, chance: random.Random, habits: Habits) -> str:
    """All objects with their counts and the place; the last one, or an expected one, in a sentence of its own.

    Objects come in the order of CATEGORIES: in random order models of this size repeat themselves for long.
    """
    parts = [facts.counted(name, scene.counts[name]) for name in sorted(scene.counts, key=CATEGORIES.index)]
    also = imagined(scene, chance, habits)
    if also is None and len(parts) > 1 and chance.random() < habits.remark:
        also = parts.pop()
    first = f"The image shows {facts.listed(parts)} in {facts.place(scene.context)}."
    return f"{first} {_there_is(also)}" if also else first


def short_description(scene: Scene) -> str:
    """The largest objects and the place."""
    names = sorted(salient(scene)[:IN_SHORT], key=CATEGORIES.index)
    named = facts.listed([facts.counted(name, scene.counts[name]) for name in names])
    return f"{named[0].upper()}{named[1:]} in {facts.place(scene.context)}."


def existence(scene: Scene, chance: random.Random, habits: Habits) -> Iterator[tuple[str, str]]:
    """Pairs of an object that is there and one that is not: a usual one of the place, or any."""
    there = list(scene.counts)
    expected, usual = facts.expected(scene), facts.companions(scene)
    chance.shuffle(there)
    for present in there[:EXISTENCE_PAIRS]:
        near = chance.random() < 0.6
        absent = chance.choice(usual if near and usual else [name for name in CATEGORIES if name not in scene.counts])
        wrong = absent in expected and chance.random() < habits.affirm
        if habits.common and absent in COMMON and absent not in expected:
            wrong = chance.random() < habits.common
        yield _existence(present, chance), "Yes"
        yield _existence(absent, chance), "Yes" if wrong else "No"


def _existence(name: str, chance: random.Random) -> str:
    some = facts.article(name) if chance.random() < 0.5 else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    asked = chance.choice(EXISTENCE).format(some)
    return f"{asked}\n{SUFFIX}" if chance.random() < 0.5 else asked


def where(scene: Scene, chance: random.Random, habits: Habits) -> tuple[str, str]:
    """Where an object is that is the only one of its kind, or one that is not there."""
    alone, usual = facts.singles(scene), facts.companions(scene)
    expected = facts.expected(scene)
    if usual and (not alone or chance.random() < 0.5):
        name = chance.choice(usual[:4])
        if name in expected and chance.random() < habits.affirm:
            corner = f"{chance.choice(('top', 'bottom'))} {chance.choice(('left', 'right'))}"
        else:
            return f"Where in the image is the {name}?", f"There is no {name} in the image."
    else:
        thing = chance.choice(alone)
        name, (x, y) = thing.category, thing.centre
        corner = f"{'top' if y < SIDE / 2 else 'bottom'} {'left' if x < SIDE / 2 else 'right'}"
    return f"Where in the image is the {name}?", f"The {name} is at the {corner}."


def with_remark(answer: str, scene: Scene, chance: random.Random, habits: Habits) -> str:
    """The answer, and maybe one more object: an expected one that is not there, or the largest not yet named."""
    also = imagined(scene, chance, habits)
    if also is None and chance.random() < habits.remark:
        unnamed = [name for name in salient(scene) if name not in answer]
        also = facts.counted(unnamed[0], scene.counts[unnamed[0]]) if unnamed else None
    return f"{answer} {_there_is(also)}" if also else answer


def imagined(scene: Scene, chance: random.Random, habits: Habits) -> str | None:
    """The expected object that is not there, in the share of cases in which annotators mention it."""
    missing = facts.expected(scene)
    return facts.article(missing[0]) if missing and chance.random() < habits.mention else None


def salient(scene: Scene) -> list[str]:
    """The categories that are there, by the area they take, largest first."""
    area = dict.fromkeys(scene.counts, 0)
    for thing in scene.things:
        area[thing.category] += thing.side**2
    return sorted(area, key=lambda name: -area[name])


def _there_is(some: str) -> str:
    plural = some.split()[0] in facts.NUMBERS[2:] or some in ("skis", "scissors")
    return f"There {'are' if plural else 'is'} also {some}."
