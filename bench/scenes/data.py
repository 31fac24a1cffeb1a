"""Scenes laid out as a folder of official files, so that every benchmark runs on them unchanged.

500 pictures of one split: POPE 3 × 3000 questions by POPE's own sampling, MMHal-style 8 types × 60, CHAIR, AMBER.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks.chair import GROUND_TRUTH, SYNONYMS
from bench.benchmarks.mmhal import TEMPLATE, TYPES
from bench.data import pope_questions
from bench.data.hub import cache_root
from bench.errors import DataError, os_reason
from bench.scenes import facts
from bench.scenes.render import picture
from bench.scenes.world import CATEGORIES, SPLITS, Scene, scene

IMAGES, PER_TYPE = 500, 60


def official_folder() -> Path:
    """The test split, laid out once per version of the world in the cache."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), here / "sprites.png", Path(pope_questions.__file__)]
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in sources)).hexdigest()[:12]
    target = cache_root() / "scenes" / digest
    if not target.is_dir():
        unfinished = target.with_name(f"{digest}.{os.getpid()}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished, "test", 0, IMAGES)
        try:
            unfinished.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(unfinished)
    return target


def write_new(out: Path, split: str, seed: int, count: int) -> list[Scene]:
    """As `write`, into a new or empty folder. Raises DataError where it is not, on a bad split or a full disk."""
    if split not in SPLITS:
        raise DataError(f"There is no split '{split}'.", f"Splits are {', '.join(SPLITS)}.", "Choose one of them.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty.", "Scenes are written into a folder of their own.", "Name a new folder.")
    try:
        return write(out, split, seed, count)
    except OSError as error:
        raise DataError(f"{out} cannot be written.", os_reason(error), "Free space or mend the permissions.") from error


def write(out: Path, split: str, seed: int, count: int) -> list[Scene]:
    """Pictures, facts and official files of `count` scenes of at least three categories under `out`."""
    chosen = choose(split, seed, count)
    (out / "images" / "scenes").mkdir(parents=True)
    for item in chosen:
        picture(item).save(out / "images" / "scenes" / item.name)
    _lines(out / "facts.jsonl", [fact_row(item) for item in chosen])
    objects = [(item.name, list(item.counts)) for item in chosen]
    _lines(out / "objects.jsonl", [{"image": name, "objects": shown} for name, shown in objects])
    pope_questions.write(pope_questions.build(objects, seed), out)
    _json(out / TEMPLATE, mmhal_items(chosen, PER_TYPE))
    index = {name: number for number, name in enumerate(CATEGORIES)}
    present = {str(item.index): [index[name] for name in item.counts] for item in chosen}
    _json(out / GROUND_TRUTH, {"categories": CATEGORIES, "images": present})
    (out / SYNONYMS).write_text(facts.synonym_lines(), encoding="utf-8")
    _amber(out, chosen)
    return chosen


def choose(split: str, seed: int, count: int) -> list[Scene]:
    """The first `count` scenes that show at least the three categories which POPE asks about."""
    chosen: list[Scene] = []
    index = 1
    while len(chosen) < count:
        item = scene(split, seed, index)
        index += 1
        if len(item.counts) >= pope_questions.PER_IMAGE:
            chosen.append(item)
    return chosen


def fact_row(item: Scene) -> dict[str, Any]:
    """Everything that is true of a scene, as one JSON object; boxes in pixels."""
    things = [
        {"category": t.category, "left": t.left, "top": t.top, "side": t.side, "size": t.size, "mirrored": t.mirrored}
        for t in item.things
    ]
    return {"image": item.name, "context": item.context.name, "counts": item.counts, "things": things}


def mmhal_items(chosen: Sequence[Scene], per_type: int) -> list[dict[str, Any]]:
    """Questions in the official file's form, types in the official order (index mod 8), no question twice.

    Equally many of each type: `per_type`, or fewer where the scenes do not allow as many.
    """
    chance = random.Random(f"mmhal {chosen[0].split} {chosen[0].seed}")
    made: list[list[tuple[Scene, str, str]]] = []
    for place, kind in enumerate(TYPES):
        start = place * len(chosen) // len(TYPES)  # another part of the scenes for each type
        asked = [(item, facts.question(kind, item, chance)) for item in (*chosen[start:], *chosen[:start])]
        made.append([(item, *pair) for item, pair in asked if pair is not None][:per_type])
    rows = zip(*made, strict=False)  # as many of each type as the rarest has
    return [_mmhal_item(kind, *asked) for row in rows for kind, asked in zip(TYPES, row, strict=True)]


def _mmhal_item(kind: str, item: Scene, question: str, reference: str) -> dict[str, Any]:
    return {
        "question_type": kind,
        "question_topic": item.context.name,
        "image_id": f"{item.name.removesuffix('.png')}/{kind}",
        "image_src": item.name,
        "image_content": [facts.counted(name, count) for name, count in item.counts.items()],
        "question": question,
        "gt_answer": reference,
        "model_answer": "",
    }


def _amber(out: Path, chosen: Sequence[Scene]) -> None:
    """Descriptions of all scenes, then yes/no questions of every type about each, half of them with yes."""
    queries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def add(item: Scene, query: str, kind: str, truth: Any, **more: Any) -> None:
        queries.append({"id": len(queries) + 1, "image": item.name, "query": query})
        annotations.append({"id": len(annotations) + 1, "type": kind, "truth": truth, **more})

    for item in chosen:
        shown = list(dict.fromkeys(map(facts.noun, item.counts)))
        likely = [name for name in dict.fromkeys(map(facts.noun, facts.companions(item))) if name not in shown]
        add(item, "Describe this image.", "generative", shown, hallu=likely[:5])
    chance = random.Random(f"amber {chosen[0].split} {chosen[0].seed}")
    for kind in facts.YES_NO_KINDS:
        for item in chosen:
            for truth in ("yes", "no"):
                query = facts.yes_no_question(kind, item, truth, chance)
                if query is not None:
                    add(item, query, kind, truth)
    _json(out / "amber" / "query_all.json", queries)
    _json(out / "amber" / "annotations.json", annotations)
    _json(out / "amber" / "relation.json", facts.noun_relations())
    (out / "amber" / "safe_words.txt").write_text("")


def _json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _lines(file: Path, rows: Sequence[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
