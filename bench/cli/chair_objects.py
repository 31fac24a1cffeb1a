"""CHAIR's ground truth from COCO's annotations: objects of segmentations and of reference captions.

Reference: get_annotations of LisaAnne/Hallucination chair.py (arXiv 1809.02156), over train2014 and
val2014.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from bench.benchmarks.chair import GROUND_TRUTH, SYNONYMS, installed_wording
from bench.errors import DataError, os_reason
from bench.files import Kind, check_types, parse_json, read_text, write_data
from bench.language.object_mentions import categories_in, read_synonyms

SPLITS = ("train", "val")
YEAR = 2014


class Image(TypedDict):
    """An image of instances_….json."""

    id: int


class Category(TypedDict):
    """One of COCO's 80."""

    id: int
    name: str


class Instance(TypedDict):
    """A segmented object."""

    image_id: int
    category_id: int


class Caption(TypedDict):
    """A reference caption."""

    image_id: int
    caption: str


class Instances(TypedDict):
    """What is read of instances_….json."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Instance]


class Captions(TypedDict):
    """What is read of captions_….json."""

    annotations: list[Caption]


def build(coco: Path, out: Path) -> tuple[Path, int, str]:
    """Writes the ground truth into a data folder.

    Args:
        coco: The folder of instances_… and captions_{train,val}2014.json.
        out: The data folder; it has CHAIR's list of synonyms.

    Returns:
        The file, how many images it covers, and the rule by which captions were read.

    Raises:
        DataError: An annotation file is missing or not COCO's of 2014, there is no list, or another
            ground truth is there.
    """
    list_file = out / SYNONYMS
    if not list_file.is_file():
        raise DataError(
            f"{list_file} is missing.",
            "Objects are told by CHAIR's list of synonyms.",
            f"bench data get chair --out {out}",
        )
    synonyms = read_synonyms(read_text(list_file))
    wording = installed_wording()
    objects_of: dict[int, set[str]] = {}
    for split in SPLITS:
        file = coco / f"instances_{split}2014.json"
        instances = _read(file, Instances)
        for pictured in instances["images"]:
            objects_of.setdefault(pictured["id"], set())
        category_of = {category["id"]: category["name"] for category in instances["categories"]}
        for instance in instances["annotations"]:
            name = category_of.get(instance["category_id"])
            if name is None:
                raise _no_coco(file, f"it has no category {instance['category_id']}")
            objects_of.setdefault(instance["image_id"], set()).add(synonyms.get(name, name))
    for split in SPLITS:
        captions = _read(coco / f"captions_{split}2014.json", Captions)
        for caption in captions["annotations"]:
            named = categories_in(wording.words(caption["caption"]), synonyms)
            objects_of.setdefault(caption["image_id"], set()).update(named)
    categories = sorted(set().union(*objects_of.values()))
    index_of = {category: index for index, category in enumerate(categories)}
    images = {}
    for image in sorted(objects_of):
        images[str(image)] = sorted(index_of[name] for name in objects_of[image])
    truth = {
        "_about": f"COCO 2014, objects of segmentations and captions, {wording.name} words",
        "categories": categories,
        "images": images,
    }
    target = out / GROUND_TRUTH
    write_data(target, json.dumps(truth, separators=(",", ":")))
    return target, len(images), wording.name


def _read(file: Path, kind: type[Kind]) -> Kind:
    """One of COCO's annotation files."""
    try:
        content: Any = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read.",
            f"{os_reason(error)}.",
            "Unpack annotations_trainval2014.zip of the COCO site and give its folder.",
        ) from error
    except ValueError as error:
        raise DataError(
            f"{file} is truncated or corrupt.", f"{error}.", "Unpack it again."
        ) from error
    info = content.get("info") if isinstance(content, dict) else None
    year = info.get("year") if isinstance(info, dict) else None
    if year not in (None, YEAR):
        raise _no_coco(file, f"it is of {year!a}")
    check_types(kind, content, file)
    annotations: Kind = content
    return annotations


def _no_coco(file: Path, reason: str) -> DataError:
    return DataError(
        f"{file} is not COCO's annotation file of {YEAR}.",
        f"{reason[0].upper()}{reason[1:]}.",
        "Unpack annotations_trainval2014.zip of the COCO site and give its folder.",
    )
