"""COCO's 80 categories with words for them, for claims about photographs.

CHAIR has its own, longer list, which its licence keeps out of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OBJECTS: dict[str, tuple[str, ...]] = {
    "person": ("man", "woman", "people", "boy", "girl", "child"),
    "bicycle": ("bike",),
    "car": (),
    "motorcycle": ("motorbike",),
    "airplane": ("plane", "aircraft"),
    "bus": (),
    "train": (),
    "truck": ("lorry",),
    "boat": ("sailboat",),
    "traffic light": (),
    "fire hydrant": ("hydrant",),
    "stop sign": (),
    "parking meter": (),
    "bench": (),
    "bird": (),
    "cat": ("kitten",),
    "dog": ("puppy",),
    "horse": ("pony",),
    "sheep": ("lamb",),
    "cow": ("bull",),
    "elephant": (),
    "bear": (),
    "zebra": (),
    "giraffe": (),
    "backpack": ("rucksack",),
    "umbrella": (),
    "handbag": ("purse",),
    "tie": (),
    "suitcase": ("luggage",),
    "frisbee": (),
    "skis": ("ski",),
    "snowboard": (),
    "sports ball": ("ball", "football"),
    "kite": (),
    "baseball bat": (),
    "baseball glove": (),
    "skateboard": (),
    "surfboard": (),
    "tennis racket": (),
    "bottle": (),
    "wine glass": (),
    "cup": ("mug",),
    "fork": (),
    "knife": (),
    "spoon": (),
    "bowl": (),
    "banana": (),
    "apple": (),
    "sandwich": (),
    "orange": (),
    "broccoli": (),
    "carrot": (),
    "hot dog": (),
    "pizza": (),
    "donut": ("doughnut",),
    "cake": (),
    "chair": (),
    "couch": ("sofa",),
    "potted plant": ("houseplant", "plant"),
    "bed": (),
    "dining table": ("table",),
    "toilet": (),
    "tv": ("television",),
    "laptop": (),
    "mouse": (),
    "remote": (),
    "keyboard": (),
    "cell phone": ("phone", "smartphone"),
    "microwave": (),
    "oven": (),
    "toaster": (),
    "sink": (),
    "refrigerator": ("fridge",),
    "book": (),
    "clock": (),
    "vase": ("vas",),  # what CHAIR's lemmatiser makes of "vases"
    "scissors": (),
    "teddy bear": ("teddy",),
    "hair drier": ("hairdryer",),
    "toothbrush": (),
}


# What captions of photographs call them besides; nothing in the built-in world is called so. Only
# words of which a question about the category is the right one: a desk is no dining table.
IN_PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "person": (
        *("kid", "toddler", "teenager", "individual", "guy", "lady", "gentleman", "player"),
        *("athlete", "rider", "skier", "snowboarder", "skateboarder", "surfer", "cyclist"),
        *("passenger", "spectator", "onlooker", "bystander", "visitor", "tourist", "chef"),
        *("worker", "waiter", "bride", "groom", "musician", "catcher", "umpire"),
    ),
    "car": ("sedan", "suv", "taxi"),
    "airplane": ("airliner", "jet"),
    "train": ("locomotive",),
    "boat": ("canoe", "kayak", "yacht", "ferry"),
    "bird": ("duck", "goose", "swan", "gull", "seagull", "pigeon", "parrot", "owl", "eagle"),
    "cow": ("cattle",),
    "chair": ("armchair",),
    "cell phone": ("cellphone",),
    "oven": ("stove",),
}


def synonym_lines(more: Mapping[str, Sequence[str]] | None = None) -> str:
    """The categories in the form of CHAIR's list.

    Args:
        more: More words, by category.
    """
    lines = []
    for name, words in OBJECTS.items():
        lines.append(", ".join([name, *words, *(more or {}).get(name, ())]))
    return "\n".join(lines)
