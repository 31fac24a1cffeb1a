"""CHAIR's ground truth from COCO's annotations: objects of segmentations and of reference captions.

Reference: get_annotations of LisaAnne/Hallucination chair.py (arXiv 1809.02156), over train2014 and
val2014.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.benchmarks.chair import GROUND_TRUTH, SYNONYMS, installed_wording
from bench.errors import DataError, os_reason
from bench.files import parse_json, read_text, write_data
from bench.language.object_mentions import categories_in, read_synonyms

SPLITS = ("train", "val")
YEAR = 2014


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
        content = _read(file, ("images", "annotations", "categories"))
        try:
            for image in content["images"]:
                objects_of.setdefault(image["id"], set())
            category_of = {row["id"]: row["name"] for row in content["categories"]}
            for row in content["annotations"]:
                name = category_of[row["category_id"]]
                objects_of.setdefault(row["image_id"], set()).add(synonyms.get(name, name))
        except (KeyError, TypeError) as error:
            raise _no_coco(file, f"{type(error).__name__}: {error}") from error
    for split in SPLITS:
        content = _read(coco / f"captions_{split}2014.json", ("annotations",))
        for row in content["annotations"]:
            named = categories_in(wording.words(row["caption"]), synonyms)
            objects_of.setdefault(row["image_id"], set()).update(named)
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


def _read(file: Path, fields: tuple[str, ...]) -> Mapping[str, Any]:
    """One of COCO's annotation files."""
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
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
    if not isinstance(content, dict):
        raise _no_coco(file, "it is no object")
    info = content.get("info")
    year = info.get("year") if isinstance(info, dict) else None
    if year not in (None, YEAR):
        raise _no_coco(file, f"it is of {year}")
    for field in fields:
        if not isinstance(content.get(field), list):
            raise _no_coco(file, f"it has no list of {field}")
    wanted = {"image_id", "caption"} if fields == ("annotations",) else {"image_id", "category_id"}
    for row in content["annotations"]:
        if not isinstance(row, dict) or not wanted <= row.keys():
            raise _no_coco(file, f"an annotation has no {' and '.join(sorted(wanted))}")
    annotations: Mapping[str, Any] = content
    return annotations


def _no_coco(file: Path, reason: str) -> DataError:
    return DataError(
        f"{file} is not COCO's annotation file of {YEAR}.",
        f"{reason[0].upper()}{reason[1:]}.",
        "Unpack annotations_trainval2014.zip of the COCO site and give its folder.",
    )
