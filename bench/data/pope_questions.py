"""POPE questions for any images, from lists of the objects they show (arXiv 2305.10355, section 4).

For each of an image's first three objects: one question about it and one about an absent object, which is drawn
at random, or is the most frequent one of the whole set (popular), or the one that most often goes with the object
just asked about (adversarial). Ties go to the object seen first. Where no object is left, one is drawn at random.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks.common import read_rows
from bench.errors import DataError

PER_IMAGE = 3
Images = list[tuple[str, list[str]]]


def read_objects(file: Path) -> tuple[Images, int]:
    """(image, objects) of every image with at least three objects, and how many images had fewer.

    `file` holds {"image", "objects"} items, or one {image: objects} mapping. Ties in co-occurrence depend on the
    order of the images: it is that of the official question file beside `file` where one asks about the same
    images, else that of `file`.
    """
    images = _read(file)
    for other in sorted(file.parent.glob("*_pope_popular.json")):
        order = list(dict.fromkeys(row["image"] for row in read_rows(other, ("image",))))
        if set(order) == images.keys():
            images = {name: images[name] for name in order}
    usable = [(name, objects) for name, objects in images.items() if len(objects) >= PER_IMAGE]
    if not usable:
        raise DataError(
            f"{file} has no image with {PER_IMAGE} objects.",
            f"POPE asks about {PER_IMAGE} objects of every image.",
            "List more objects, or other images.",
        )
    return usable, len(images) - len(usable)


def _read(file: Path) -> dict[str, list[str]]:
    if not file.is_file():
        raise DataError(f"There is no file {file}.", "--objects needs the objects of every image.", "Check the path.")
    text = file.read_text(encoding="utf-8")
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and not {"image", "objects"} & whole.keys():
        items: list[tuple[Any, Any]] = list(whole.items())
    else:
        items = [(row["image"], row["objects"]) for row in read_rows(file, ("image", "objects"))]
    for name, objects in items:
        if not isinstance(objects, list) or not all(isinstance(item, str) and item for item in objects):
            raise DataError(
                f"{file}: the objects of {name} are not a list of names.",
                f"Found {objects!r:.80}.",
                'Write them as ["dog", "car", …].',
            )
    return {str(name): list(dict.fromkeys(objects)) for name, objects in items}


def build(images: Images, seed: int) -> dict[str, list[dict[str, Any]]]:
    """The questions of the three subsets in the official form. Raises DataError where an image lacks absent objects."""
    popularity = Counter(item for _, objects in images for item in objects)
    popular = [item for item, _ in popularity.most_common()]
    together: dict[str, Counter[str]] = {item: Counter() for item in popular}
    for _, objects in images:
        for item in objects:
            together[item].update(other for other in objects if other != item)
    companions = {item: [other for other, _ in seen.most_common()] for item, seen in together.items()}
    chance = random.Random(seed)
    subsets: dict[str, list[dict[str, Any]]] = {"random": [], "popular": [], "adversarial": []}
    for subset, questions in subsets.items():
        for name, objects in images:
            used = set(objects)
            for shown in objects[:PER_IMAGE]:
                candidates = {"random": [], "popular": popular, "adversarial": companions[shown]}[subset]
                absent = _absent(name, candidates, popular, used, chance)
                used.add(absent)
                for item, label in ((shown, "yes"), (absent, "no")):
                    questions.append(_question(len(questions) + 1, name, item, label))
    return subsets


def _absent(name: str, candidates: Sequence[str], vocabulary: Sequence[str], used: set[str], chance: Any) -> str:
    found = next((item for item in candidates if item not in used), None)
    if found is not None:
        return found
    left = [item for item in vocabulary if item not in used]
    if not left:
        raise DataError(
            f"{name} shows or was asked about every object there is.",
            f"POPE needs {PER_IMAGE} objects that an image does not show.",
            "Add images with other objects.",
        )
    return str(chance.choice(left))


def _question(number: int, image: str, item: str, label: str) -> dict[str, Any]:
    return {"question_id": number, "image": image, "text": question_about(item), "label": label}


def question_about(item: str) -> str:
    """POPE's question whether an object is there."""
    return f"Is there {'an' if item[0] in 'aeiou' else 'a'} {item} in the image?"


def write(subsets: dict[str, list[dict[str, Any]]], out: Path) -> list[Path]:
    """Writes the subsets as official files under `out`/pope/coco, so that `--data out` reads them."""
    folder = out / "pope" / "coco"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for subset, questions in subsets.items():
        files.append(folder / f"coco_pope_{subset}.json")
        files[-1].write_text("".join(json.dumps(question) + "\n" for question in questions), encoding="utf-8")
    return files
