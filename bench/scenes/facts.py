"""What is true of a scene, in words: questions with reference answers, objects, synonyms."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from bench.language.coco_objects import OBJECTS
from bench.language.english import NUMBERS, article, counted, listed, plural
from bench.scenes.world import CATEGORIES, SIDE, SPLITS, Context, Scene, Thing, scene

NAME = re.compile(r"scene_(\w+)_(\d+)_(\d+)\.png")
YES_NO_KINDS = (  # AMBER's discriminative types
    "discriminative-hallucination",
    "discriminative-attribute-state",
    "discriminative-attribute-number",
    "relation",
)
FAR = SIDE / 8  # pixels between centres from which one is clearly left of, right of, above or below
CLEARLY_LARGER = 8  # pixels of side
OPPOSITE_SIZE = {"small": "large", "large": "small"}
OPPOSITE_RELATION = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
QuestionAndAnswer = tuple[str, str]


def scene_of(name: str) -> Scene:
    """The scene whose image has this file name. Raises ValueError if the name is of no scene."""
    match = NAME.fullmatch(name)
    if match is None or match[1] not in SPLITS:
        raise ValueError(f"{name} is not the picture of a scene.")
    return scene(match[1], int(match[2]), int(match[3]))


def description(scene: Scene) -> str:
    """All objects with their counts, and the place, in a sentence."""
    parts = [counted(name, count) for name, count in scene.counts.items()]
    return f"The image shows {listed(parts)} in {place(scene.context)}."


def place(context: Context) -> str:
    """ "a kitchen", "an office"."""
    return article(context.name)


def noun(name: str) -> str:
    """The single noun that AMBER's rule finds of a category: its last word."""
    return name.rpartition(" ")[2]


def noun_relations() -> dict[str, list[str]]:
    """Every noun with its single-word synonyms, in the form of AMBER's relation.json."""
    related: dict[str, list[str]] = {}
    for name in CATEGORIES:
        words = related.setdefault(noun(name), [])
        for word in OBJECTS[name]:
            if word != noun(name) and word not in words:
                words.append(word)
    return related


def companions(scene: Scene) -> list[str]:
    """What usually goes with the scene but is not there, the most usual first."""
    return [name for name in scene.context.usual if name not in scene.counts]


def expected(scene: Scene) -> list[str]:
    """What such a place often has but is not there."""
    return [name for name in scene.context.often if name not in scene.counts]


def relation(a: Thing, b: Thing) -> str | None:
    """Where `a` stands as seen from `b`, None if it is unclear.

    One of "to the left of", "to the right of", "above", "below".
    """
    right = a.centre[0] - b.centre[0]
    down = a.centre[1] - b.centre[1]
    # Clearly to one side, and more to that side than up or down.
    if abs(right) >= FAR and abs(right) >= 2 * abs(down):
        return "to the right of" if right > 0 else "to the left of"
    if abs(down) >= FAR and abs(down) >= 2 * abs(right):
        return "below" if down > 0 else "above"
    return None


def singles(scene: Scene) -> list[Thing]:
    """The objects that are the only ones of their kind."""
    counts = scene.counts
    return [thing for thing in scene.things if counts[thing.category] == 1]


def _small_or_large(scene: Scene) -> list[Thing]:
    """The single objects whose size is beyond doubt."""
    return [thing for thing in singles(scene) if thing.size != "medium"]


def placed_pairs(scene: Scene) -> list[tuple[Thing, Thing, str]]:
    """All pairs of single objects with a clear relation, and that relation."""
    alone = singles(scene)
    pairs = []
    for a in alone:
        for b in alone:
            where = relation(a, b) if a != b else None
            if where:
                pairs.append((a, b, where))
    return pairs


def question(kind: str, scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    """A question of one of MMHal-Bench's eight types with its reference answer.

    None if the scene allows none.
    """
    return _QUESTIONS[kind](scene, rng)


def _attribute(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    clear = _small_or_large(scene)
    if not clear:
        return None
    thing = rng.choice(clear)
    asked = f"Is the {thing.category} in the image small or large?"
    return asked, f"The {thing.category} is {thing.size}."


def _adversarial(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    absent = companions(scene)[:4]
    if not absent:
        return None
    name = rng.choice(absent)
    return f"Where in the image is the {name}?", f"There is no {name} in the image."


def _comparison(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    alone = singles(scene)
    pairs = [(a, b) for a in alone for b in alone if a.side > b.side + CLEARLY_LARGER]
    if not pairs:
        return None
    large, small = rng.choice(pairs)
    # In either order, or "the first one" would be the answer.
    first, second = rng.sample([large.category, small.category], 2)
    return (
        f"Which is larger in the image, the {first} or the {second}?",
        f"The {large.category} is larger than the {small.category}.",
    )


def _counting(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    name, count = rng.choice(list(scene.counts.items()))
    asked = f"How many {plural(name)} are there in the image?"
    if count == 1:
        return asked, f"There is one {name} in the image."
    return asked, f"There are {counted(name, count)} in the image."


def _relation(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    pairs = placed_pairs(scene)
    if not pairs:
        return None
    a, b, where = rng.choice(pairs)
    choice = "to the left or to the right of" if "the" in where else "above or below"
    asked = f"Is the {a.category} {choice} the {b.category}?"
    return asked, f"The {a.category} is {where} the {b.category}."


def _environment(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    asked = "What kind of place does the image show?"
    return asked, f"The image shows {place(scene.context)}."


def _holistic(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    return "Describe the image in detail.", description(scene)


def _other(scene: Scene, rng: random.Random) -> QuestionAndAnswer | None:
    # Two objects nearly below each other leave it open which is the leftmost.
    by_left = sorted(scene.things, key=lambda thing: thing.centre[0])
    if by_left[1].centre[0] - by_left[0].centre[0] < FAR:
        return None
    leftmost = article(by_left[0].category)
    return "What is the leftmost object in the image?", f"The leftmost object is {leftmost}."


_QUESTIONS = {
    "attribute": _attribute,
    "adversarial": _adversarial,
    "comparison": _comparison,
    "counting": _counting,
    "relation": _relation,
    "environment": _environment,
    "holistic": _holistic,
    "other": _other,
}


def yes_no_question(kind: str, scene: Scene, truth: str, rng: random.Random) -> str | None:
    """A yes/no question of one of AMBER's types.

    Args:
        kind: One of YES_NO_KINDS.
        scene: What it is about.
        truth: The answer that it shall have, "yes" or "no".
        rng: What draws among the possible questions.

    Returns:
        The question; None if the scene allows none of this kind.
    """
    yes = truth == "yes"
    if kind == "discriminative-hallucination":
        return _existence_question(scene, yes, rng)
    if kind == "discriminative-attribute-state":
        clear = _small_or_large(scene)
        if not clear:
            return None
        thing = rng.choice(clear)
        size = thing.size if yes else OPPOSITE_SIZE[thing.size]
        return f"Is the {thing.category} {size} in this image?"
    if kind == "discriminative-attribute-number":
        name, count = rng.choice(list(scene.counts.items()))
        number_asked = count if yes else count + 1
        if number_asked == 1:
            return f"Is there one {name} in this image?"
        return f"Are there {NUMBERS[number_asked]} {plural(name)} in this image?"
    if kind == "relation":
        pairs = placed_pairs(scene)
        if not pairs:
            return None
        a, b, where = rng.choice(pairs)
        told_relation = where if yes else OPPOSITE_RELATION[where]
        return f"Is the {a.category} {told_relation} the {b.category}?"
    return None


def _existence_question(scene: Scene, yes: bool, rng: random.Random) -> str | None:
    candidates: Sequence[str] = list(scene.counts)
    if not yes:
        candidates = companions(scene)[:5] or ["zebra"]
    name = rng.choice(candidates)
    if not yes and name in scene.counts:
        return None
    return f"Is there {article(name)} in this image?"


def synonym_lines() -> str:
    """The categories with their synonyms in the form of CHAIR's list."""
    lines = [", ".join((name, *OBJECTS[name])) + "\n" for name in CATEGORIES]
    return "".join(lines)
