"""POPE questions for any images, from lists of the objects they show (arXiv 2305.10355, section 4).

For each of an image's first three objects there is one question about it and one about an absent
object. The absent one is drawn at random, or is the most frequent object of the whole set
(popular), or the one that most often goes with the object just asked about (adversarial). Ties go
to the object seen first. If no object is left, one is drawn at random.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import DataError
from bench.files import cannot_write, parse_json, read_rows, read_text, write_data
from bench.language.english import question_about

PER_IMAGE = 3
Images = list[tuple[str, list[str]]]
Questions = list[dict[str, Any]]


def read_objects(file: Path) -> tuple[Images, int]:
    """The images with at least three objects, and how many images had fewer.

    Ties in co-occurrence depend on the order of the images. It is that of the official question
    file beside `file` if one asks about the same images, else that of `file`.

    Args:
        file: {"image", "objects"} items, or one {image: objects} mapping.
    """
    objects_of = _read(file)
    # With the official order, 1497 of POPE's 1500 adversarial negatives come out.
    for official in sorted(file.parent.glob("*_pope_popular.json")):
        order = dict.fromkeys(row["image"] for row in read_rows(official, {"image": str}))
        if order.keys() == objects_of.keys():
            objects_of = {name: objects_of[name] for name in order}
    usable = []
    for name, shown in objects_of.items():
        if len(shown) >= PER_IMAGE:
            usable.append((name, shown))
    if not usable:
        raise DataError(
            f"{file} has no image with {PER_IMAGE} objects.",
            f"POPE asks about {PER_IMAGE} objects of every image.",
            "List more objects, or other images.",
        )
    return usable, len(objects_of) - len(usable)


def _read(file: Path) -> dict[str, list[str]]:
    if not file.is_file():
        raise DataError(
            f"There is no file {file}.",
            "--objects needs the objects of every image.",
            "Check the path.",
        )
    text = read_text(file)
    try:
        whole = parse_json(text)
    except ValueError:  # JSON lines
        whole = None
    items: list[tuple[Any, Any]]
    if isinstance(whole, dict) and not {"image", "objects"} & whole.keys():
        items = list(whole.items())
    else:
        rows = read_rows(file, {"image": str, "objects": list})
        items = [(row["image"], row["objects"]) for row in rows]
    objects_of = {}
    for name, shown in items:
        is_list = isinstance(shown, list)
        if not is_list or not all(isinstance(item, str) and item for item in shown):
            raise DataError(
                f"{file}: the objects of {name} are not a list of names.",
                f"Found {shown!r:.80}.",
                'Write them as ["dog", "car", …].',
            )
        objects_of[str(name)] = list(dict.fromkeys(shown))
    return objects_of


def build(images: Images, seed: int) -> dict[str, Questions]:
    """The questions of the three subsets in the official form.

    Raises DataError if an image lacks absent objects.
    """
    popularity = Counter(item for _, shown in images for item in shown)
    popular = [item for item, _ in popularity.most_common()]
    companions = _companions(images, popular)
    # Only the random subset, and a subset that runs out of objects, draws.
    rng = random.Random(seed)
    subsets: dict[str, Questions] = {"random": [], "popular": [], "adversarial": []}
    for subset, questions in subsets.items():
        for name, shown in images:
            used = set(shown)
            for present in shown[:PER_IMAGE]:
                candidates: Sequence[str] = ()
                if subset == "popular":
                    candidates = popular
                elif subset == "adversarial":
                    candidates = companions[present]
                absent = _absent(name, candidates, popular, used, rng)
                used.add(absent)  # no object is asked about twice
                questions.append(_question(len(questions) + 1, name, present, "yes"))
                questions.append(_question(len(questions) + 1, name, absent, "no"))
    return subsets


def _companions(images: Images, popular: Sequence[str]) -> dict[str, list[str]]:
    """For each object, those that are shown with it, the most frequent first."""
    together: dict[str, Counter[str]] = {item: Counter() for item in popular}
    for _, shown in images:
        for item in shown:
            together[item].update(other for other in shown if other != item)
    companions = {}
    for item, seen_with in together.items():
        companions[item] = [other for other, _ in seen_with.most_common()]
    return companions


def _absent(
    image: str,
    candidates: Sequence[str],
    vocabulary: Sequence[str],
    used: set[str],
    rng: random.Random,
) -> str:
    """The first candidate that is neither shown nor asked about, else any such object."""
    for item in candidates:
        if item not in used:
            return item
    unused = [item for item in vocabulary if item not in used]
    if not unused:
        raise DataError(
            f"{image} shows or was asked about every object there is.",
            f"POPE needs {PER_IMAGE} objects that an image does not show.",
            "Add images with other objects.",
        )
    return rng.choice(unused)


def _question(number: int, image: str, item: str, label: str) -> dict[str, Any]:
    text = question_about(item)
    return {"question_id": number, "image": image, "text": text, "label": label}


def write(
    subsets: Mapping[str, Questions], out: Path, pattern: str = "pope/coco/coco_pope_{}.json"
) -> list[Path]:
    """Writes the subsets as official files for `--data out`.

    Args:
        subsets: The questions.
        out: The data folder.
        pattern: Where a subset's file lies in it.

    Raises:
        DataError: Other questions are there.
    """
    files = []
    for subset, questions in subsets.items():
        file = out / pattern.format(subset)
        try:
            write_data(file, "".join(json.dumps(question) + "\n" for question in questions))
        except OSError as error:
            raise cannot_write(file, error) from error
        files.append(file)
    return files
