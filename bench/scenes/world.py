"""The world: which objects there are, which contexts they live in, what stands where in a scene.

A scene is a function of (split, seed, index) only, on every machine: Python's Mersenne Twister
seeded with that text, integers and comparisons of its floats, nothing else. Objects go together as
their contexts have it, which is what makes models hallucinate.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIDE = 128
# `final` is for experiments whose protocol was written before: nothing was chosen on it.
SPLITS = ("train", "validation", "test", "final")
SIZES = {"small": 22, "medium": 30, "large": 42}

# COCO category → emoji of Noto Color Emoji that shows it and nothing else of COCO: a surfer for a
# surfboard would show a person too.
SPRITES = {
    "person": "🧍",
    "bicycle": "🚲",
    "car": "🚗",
    "motorcycle": "🏍",
    "airplane": "✈",
    "bus": "🚌",
    "train": "🚆",
    "truck": "🚚",
    "boat": "⛵",
    "traffic light": "🚦",
    "stop sign": "🛑",
    "bird": "🐦",
    "cat": "🐈",
    "dog": "🐕",
    "horse": "🐎",
    "sheep": "🐑",
    "cow": "🐄",
    "elephant": "🐘",
    "bear": "🐻",
    "zebra": "🦓",
    "giraffe": "🦒",
    "backpack": "🎒",
    "umbrella": "☂",
    "handbag": "👜",
    "tie": "👔",
    "suitcase": "🧳",
    "frisbee": "🥏",
    "skis": "🎿",
    "sports ball": "⚽",
    "kite": "🪁",
    "skateboard": "🛹",
    "tennis racket": "🏸",
    "bottle": "🍾",
    "wine glass": "🍷",
    "cup": "☕",
    "knife": "🔪",
    "spoon": "🥄",
    "bowl": "🥣",
    "banana": "🍌",
    "apple": "🍎",
    "sandwich": "🥪",
    "orange": "🍊",
    "broccoli": "🥦",
    "carrot": "🥕",
    "hot dog": "🌭",
    "pizza": "🍕",
    "donut": "🍩",
    "cake": "🎂",
    "chair": "🪑",
    "couch": "🛋",
    "potted plant": "🪴",
    "bed": "🛏",
    "toilet": "🚽",
    "tv": "📺",
    "laptop": "💻",
    "mouse": "🖱",
    "keyboard": "⌨",
    "cell phone": "📱",
    "book": "📕",
    "clock": "⏰",
    "vase": "🏺",
    "scissors": "✂",
    "teddy bear": "🧸",
    "toothbrush": "🪥",
}
CATEGORIES = tuple(SPRITES)


@dataclass(frozen=True, slots=True)
class Context:
    """A kind of place.

    Args:
        name: What it is called.
        above: RGB of sky or wall.
        below: RGB of ground or floor.
        horizon: Where one ends and the other begins, in pixels from the top.
        often: Objects that are usually there.
        sometimes: Objects that are sometimes there.
        rarely: Objects that are rarely there.
    """

    name: str
    above: tuple[int, int, int]
    below: tuple[int, int, int]
    horizon: int
    often: tuple[str, ...]
    sometimes: tuple[str, ...]
    rarely: tuple[str, ...] = ()

    @property
    def usual(self) -> tuple[str, ...]:
        """All that may be there, the most usual first."""
        return self.often + self.sometimes + self.rarely


CONTEXTS = (
    Context(
        "kitchen",
        (250, 236, 205),
        (205, 175, 140),
        74,
        ("bowl", "knife", "spoon"),
        ("cup", "bottle", "apple", "carrot", "chair"),
        ("broccoli", "orange", "banana", "clock", "potted plant", "cat"),
    ),
    Context(
        "street",
        (186, 203, 219),
        (112, 114, 120),
        62,
        ("car", "person", "traffic light"),
        ("bus", "bicycle", "truck", "motorcycle"),
        ("stop sign", "handbag", "umbrella", "dog", "backpack"),
    ),
    Context(
        "park",
        (160, 214, 245),
        (120, 190, 90),
        58,
        ("person", "dog", "frisbee"),
        ("bird", "bicycle", "kite", "sports ball"),
        ("skateboard", "umbrella", "backpack", "sandwich", "book"),
    ),
    Context(
        "farm",
        (196, 226, 240),
        (196, 168, 90),
        54,
        ("cow", "horse", "sheep"),
        ("dog", "truck", "person", "bird"),
        ("apple", "carrot", "cat", "bicycle"),
    ),
    Context(
        "zoo",
        (205, 232, 196),
        (150, 160, 80),
        60,
        ("elephant", "giraffe", "zebra"),
        ("bear", "bird", "person"),
        ("backpack", "cell phone", "banana", "umbrella"),
    ),
    Context(
        "office",
        (226, 230, 236),
        (150, 158, 172),
        80,
        ("laptop", "keyboard", "mouse"),
        ("cup", "chair", "book", "cell phone"),
        ("clock", "tie", "scissors", "potted plant", "person"),
    ),
    Context(
        "bathroom",
        (212, 240, 240),
        (164, 206, 214),
        72,
        ("toilet", "toothbrush"),
        ("bottle", "vase", "cup"),
        ("potted plant", "scissors", "cat", "clock"),
    ),
    Context(
        "bedroom",
        (228, 214, 240),
        (168, 140, 180),
        70,
        ("bed", "teddy bear", "clock"),
        ("book", "cell phone", "cat"),
        ("laptop", "suitcase", "tie", "chair", "person"),
    ),
    Context(
        "living room",
        (246, 222, 196),
        (170, 110, 84),
        72,
        ("couch", "tv", "potted plant"),
        ("book", "vase", "cat", "chair"),
        ("clock", "dog", "teddy bear", "person", "laptop"),
    ),
    Context(
        "dining room",
        (252, 244, 222),
        (176, 60, 60),
        50,
        ("wine glass", "pizza", "knife"),
        ("cake", "bottle", "sandwich"),
        ("donut", "hot dog", "bowl", "spoon", "cup", "person"),
    ),
    Context(
        "station",
        (208, 208, 202),
        (140, 132, 120),
        66,
        ("train", "suitcase", "person"),
        ("backpack", "handbag", "clock"),
        ("cell phone", "umbrella", "bus", "airplane", "book"),
    ),
    Context(
        "beach",
        (140, 206, 250),
        (240, 220, 150),
        64,
        ("boat", "umbrella", "person"),
        ("kite", "bird"),
        ("sports ball", "bottle", "dog", "frisbee", "book"),
    ),
    Context(
        "mountain",
        (214, 232, 250),
        (244, 248, 252),
        50,
        ("skis", "person"),
        ("backpack", "bird", "dog"),
        ("cell phone", "bear", "airplane"),
    ),
    Context(
        "sports field",
        (176, 222, 250),
        (96, 160, 84),
        46,
        ("tennis racket", "sports ball", "person"),
        ("bottle", "skateboard", "backpack"),
        ("banana", "orange", "bicycle", "hot dog", "cell phone"),
    ),
    Context(
        "airport",
        (176, 212, 240),
        (168, 174, 178),
        70,
        ("airplane", "suitcase", "person"),
        ("truck", "bus", "backpack"),
        ("handbag", "cell phone", "laptop", "tie", "bird"),
    ),
    Context(
        "bakery",
        (250, 226, 188),
        (196, 140, 84),
        68,
        ("donut", "cake", "sandwich"),
        ("cup", "person", "hot dog"),
        ("banana", "orange", "apple", "broccoli", "bowl", "handbag"),
    ),
)
# How likely an object of `often`, `sometimes` and `rarely` is to be there.
PROBABILITIES = (0.62, 0.34, 0.12)
FEWEST, MOST = 2, 6  # categories in a scene
STRANGER = 0.18  # how often one object comes from elsewhere
COUNTS = (0.68, 0.22, 0.10)  # one, two, three of a kind
SIZE_WEIGHTS = (0.3, 0.45, 0.25)  # in the order of SIZES
TRIES = 24  # places that are tried for an object of one size
OVERLAP = 2  # pixels by which two boxes may overlap


@dataclass(frozen=True, slots=True)
class Thing:
    """One object.

    Args:
        category: Its COCO category.
        left: Left edge of its box in pixels.
        top: Upper edge.
        side: Width and height.
        size: The name of `side` in SIZES.
        mirrored: Whether its sprite is flipped.
    """

    category: str
    left: int
    top: int
    side: int
    size: str
    mirrored: bool

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box in pixels, from the left and from the top."""
        return self.left + self.side / 2, self.top + self.side / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A place and what stands in it."""

    split: str
    seed: int
    index: int
    context: Context
    things: tuple[Thing, ...]

    @property
    def name(self) -> str:
        """The file name of its image."""
        return f"scene_{self.split}_{self.seed}_{self.index:06}.png"

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each category that is there, in order of placing."""
        counts: dict[str, int] = {}
        for thing in self.things:
            counts[thing.category] = counts.get(thing.category, 0) + 1
        return counts


def scene(split: str, seed: int, index: int) -> Scene:
    """Scene number `index`. Raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: {', '.join(SPLITS)}.")
    rng = random.Random(f"scenes 1 {split} {seed} {index}")
    context = rng.choice(CONTEXTS)
    placed: list[Thing] = []
    for category in _categories(context, rng):
        count = _weighted_index(COUNTS, rng) + 1
        for _ in range(count):
            thing = put(category, placed, rng)
            if thing is not None:
                placed.append(thing)
    return Scene(split, seed, index, context, tuple(placed))


def scenes(split: str, seed: int, count: int, start: int = 0) -> Iterator[Scene]:
    """Scenes `start` … `start + count - 1`."""
    return (scene(split, seed, index) for index in range(start, start + count))


def _categories(context: Context, rng: random.Random) -> list[str]:
    """What stands in a scene of this context."""
    chosen = []
    groups = (context.often, context.sometimes, context.rarely)
    for items, probability in zip(groups, PROBABILITIES, strict=True):
        for item in items:
            if rng.random() < probability:
                chosen.append(item)
    # Now and then something that nobody expects, so that the place alone is no answer.
    if rng.random() < STRANGER:
        chosen.append(rng.choice([item for item in CATEGORIES if item not in chosen]))
    usual = context.often + context.sometimes
    while len(chosen) < FEWEST:
        chosen.append(rng.choice([item for item in usual if item not in chosen]))
    rng.shuffle(chosen)
    return chosen[:MOST]


def _weighted_index(weights: tuple[float, ...], rng: random.Random) -> int:
    """An index drawn with the given probabilities."""
    # rng.choices would do the same, but no Python promises the same draws for ever.
    point = rng.random()
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return index
    return len(weights) - 1


def put(category: str, placed: Sequence[Thing], rng: random.Random) -> Thing | None:
    """One more object on a free spot, smaller if need be.

    Its box meets no other by more than a few pixels. None if the scene is full.
    """
    drawn_size = tuple(SIZES)[_weighted_index(SIZE_WEIGHTS, rng)]
    # A crowded scene gets a smaller object rather than none.
    for size in dict.fromkeys((drawn_size, "medium", "small")):
        side = SIZES[size]
        for _ in range(TRIES):
            left, top = rng.randrange(SIDE - side + 1), rng.randrange(SIDE - side + 1)
            if all(_apart(left, top, side, other) for other in placed):
                return Thing(category, left, top, side, size, rng.random() < 0.5)
    return None


def _apart(left: int, top: int, side: int, other: Thing) -> bool:
    """Whether a box and another object overlap by no more than OVERLAP."""
    return (
        left + side <= other.left + OVERLAP
        or other.left + other.side <= left + OVERLAP
        or top + side <= other.top + OVERLAP
        or other.top + other.side <= top + OVERLAP
    )
