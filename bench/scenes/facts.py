"""What is true of a scene, in words: questions with reference answers, object lists, COCO-style synonyms."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from bench.scenes.world import CATEGORIES, SIDE, SPLITS, Context, Scene, Thing, scene

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IRREGULAR = {"person": "people", "bus": "buses", "sheep": "sheep", "knife": "knives", "sandwich": "sandwiches",
             "couch": "couches", "skis": "skis", "scissors": "scissors", "mouse": "mice", "wine glass": "wine glasses",
             "toothbrush": "toothbrushes", "broccoli": "broccoli"}  # fmt: skip
SYNONYMS = {
    "person": ("man", "woman", "people", "boy", "girl", "child"), "bicycle": ("bike",), "motorcycle": ("motorbike",),
    "airplane": ("plane", "aircraft"), "truck": ("lorry",), "cat": ("kitten",), "dog": ("puppy",),
    "backpack": ("rucksack",), "handbag": ("purse",), "suitcase": ("luggage",), "sports ball": ("ball", "football"),
    "cup": ("mug",), "couch": ("sofa",), "potted plant": ("houseplant", "plant"), "tv": ("television",),
    "cell phone": ("phone", "smartphone"), "teddy bear": ("teddy",), "skis": ("ski",), "donut": ("doughnut",),
    "sheep": ("lamb",), "cow": ("bull",), "horse": ("pony",), "boat": ("sailboat",),
    "vase": ("vas",),  # what CHAIR's lemmatiser makes of "vases"
}  # fmt: skip
NAME = re.compile(r"scene_(\w+)_(\d+)_(\d+)\.png")
YES_NO_KINDS = (  # AMBER's discriminative types
    "discriminative-hallucination",
    "discriminative-attribute-state",
    "discriminative-attribute-number",
    "relation",
)
FAR = SIDE / 8  # what counts as clearly left of, right of, above or below, in pixels between centres


def scene_of(name: str) -> Scene:
    """The scene whose picture has this file name. Raises ValueError where the name is of no scene."""
    found = NAME.fullmatch(name)
    if found is None or found[1] not in SPLITS:
        raise ValueError(f"{name} is not the picture of a scene.")
    return scene(found[1], int(found[2]), int(found[3]))


def article(name: str) -> str:
    """The name with its indefinite article; none for pairs such as scissors."""
    if name in ("skis", "scissors"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def counted(name: str, count: int) -> str:
    """ "a dog", "two dogs"."""
    return article(name) if count == 1 else f"{NUMBERS[count]} {plural(name)}"


def plural(name: str) -> str:
    """The name's plural."""
    return IRREGULAR.get(name, f"{name}s")


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def description(scene: Scene) -> str:
    """All objects with their counts, and the place, in one or two sentences."""
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
        words = [word for word in SYNONYMS.get(name, ()) if word != noun(name)]
        related[noun(name)] = list(dict.fromkeys([*related.get(noun(name), ()), *words]))
    return related


def companions(scene: Scene) -> list[str]:
    """What usually goes with the scene but is not there, the most usual first."""
    context = scene.context
    usual = context.often + context.sometimes + context.rarely
    return [name for name in usual if name not in scene.counts]


def expected(scene: Scene) -> list[str]:
    """What such a place often has but is not there."""
    return [name for name in scene.context.often if name not in scene.counts]


def relation(a: Thing, b: Thing) -> str | None:
    """Where `a` stands as seen from `b`: "to the left of", "to the right of", "above", "below"; None if unclear."""
    right, down = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    if abs(right) >= FAR and abs(right) >= 2 * abs(down):
        return "to the right of" if right > 0 else "to the left of"
    if abs(down) >= FAR and abs(down) >= 2 * abs(right):
        return "below" if down > 0 else "above"
    return None


def singles(scene: Scene) -> list[Thing]:
    """The objects that are the only ones of their kind."""
    return [thing for thing in scene.things if scene.counts[thing.category] == 1]


def placed_pairs(scene: Scene) -> list[tuple[Thing, Thing, str]]:
    """All pairs of single objects with a clear relation, and that relation."""
    alone = singles(scene)
    return [(a, b, where) for a in alone for b in alone if a != b and (where := relation(a, b))]


def question(kind: str, scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    """A question of one of MMHal-Bench's eight types with its reference answer; None where the scene allows none."""
    return _MAKERS[kind](scene, chance)


def _attribute(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    clear = [thing for thing in singles(scene) if thing.size != "medium"]
    if not clear:
        return None
    thing = chance.choice(clear)
    return f"Is the {thing.category} in the image small or large?", f"The {thing.category} is {thing.size}."


def _adversarial(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    absent = companions(scene)[:4]
    if not absent:
        return None
    name = chance.choice(absent)
    return f"Where in the image is the {name}?", f"There is no {name} in the image."


def _comparison(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    pairs = [(a, b) for a in singles(scene) for b in singles(scene) if a.side > b.side + 8]
    if not pairs:
        return None
    large, small = chance.choice(pairs)
    first, second = chance.sample([large.category, small.category], 2)
    return (
        f"Which is larger in the image, the {first} or the {second}?",
        f"The {large.category} is larger than the {small.category}.",
    )


def _counting(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    name, count = chance.choice(list(scene.counts.items()))
    verb = "is" if count == 1 else "are"
    some = f"one {name}" if count == 1 else counted(name, count)
    return f"How many {plural(name)} are there in the image?", f"There {verb} {some} in the image."


def _relation(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    pairs = placed_pairs(scene)
    if not pairs:
        return None
    a, b, where = chance.choice(pairs)
    asked = "to the left or to the right of" if "the" in where else "above or below"
    return f"Is the {a.category} {asked} the {b.category}?", f"The {a.category} is {where} the {b.category}."


def _environment(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    return "What kind of place does the image show?", f"The image shows {place(scene.context)}."


def _holistic(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    return "Describe the image in detail.", description(scene)


def _other(scene: Scene, chance: random.Random) -> tuple[str, str] | None:
    by_left = sorted(scene.things, key=lambda thing: thing.centre[0])
    if by_left[1].centre[0] - by_left[0].centre[0] < FAR:
        return None
    return "What is the leftmost object in the image?", f"The leftmost object is {article(by_left[0].category)}."


_MAKERS = {
    "attribute": _attribute,
    "adversarial": _adversarial,
    "comparison": _comparison,
    "counting": _counting,
    "relation": _relation,
    "environment": _environment,
    "holistic": _holistic,
    "other": _other,
}


def yes_no_question(kind: str, scene: Scene, truth: str, chance: random.Random) -> str | None:
    """A yes/no question whose answer is `truth`; None where the scene allows none of this kind."""
    yes = truth == "yes"
    if kind == "discriminative-hallucination":
        name = chance.choice(list(scene.counts) if yes else companions(scene)[:5] or ["zebra"])
        return f"Is there {article(name)} in this image?" if yes or name not in scene.counts else None
    if kind == "discriminative-attribute-state":
        clear = [thing for thing in singles(scene) if thing.size != "medium"]
        if not clear:
            return None
        thing = chance.choice(clear)
        size = thing.size if yes else {"small": "large", "large": "small"}[thing.size]
        return f"Is the {thing.category} {size} in this image?"
    if kind == "discriminative-attribute-number":
        name, count = chance.choice(list(scene.counts.items()))
        said = count if yes else count + 1
        some = f"Is there one {name}" if said == 1 else f"Are there {NUMBERS[said]} {plural(name)}"
        return f"{some} in this image?"
    if kind == "relation":
        pairs = placed_pairs(scene)
        if not pairs:
            return None
        a, b, where = chance.choice(pairs)
        opposite = {"to the left of": "to the right of", "above": "below"}
        opposite |= {value: key for key, value in opposite.items()}
        return f"Is the {a.category} {where if yes else opposite[where]} the {b.category}?"
    return None


def synonym_lines() -> str:
    """The categories with their synonyms in the form of CHAIR's list."""
    return "".join(", ".join((name, *SYNONYMS.get(name, ()))) + "\n" for name in CATEGORIES)
