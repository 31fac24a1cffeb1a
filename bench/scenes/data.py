"""Scenes laid out as a folder of official files, so that every benchmark runs on them unchanged.

500 images of one split: POPE 3 × 3000 questions by POPE's own sampling, MMHal-style 8 types × 60,
CHAIR, AMBER.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.benchmarks.chair import GROUND_TRUTH, SYNONYMS
from bench.benchmarks.hallusionbench import QUESTIONS as HALLUSION_QUESTIONS
from bench.benchmarks.mmhal import TEMPLATE, TYPES
from bench.benchmarks.objhal import QUESTIONS as OBJHAL_QUESTIONS
from bench.benchmarks.objhal import REFINED_SYNONYMS
from bench.data import pope_questions
from bench.data.hub import cache_root
from bench.errors import DataError, os_reason
from bench.files import folder_of_its_own, lay_out
from bench.language import coco_objects, english
from bench.scenes import facts
from bench.scenes.render import render
from bench.scenes.world import CATEGORIES, SPLITS, Scene, scene
from bench.terminal import note

IMAGES, PER_TYPE = 500, 60
VARIANT_IMAGES = 100  # of POPE on A-OKVQA and GQA
MME_IMAGES = 60
HALLUSION_SETS = 120  # pairs of scenes
OBJHAL_IMAGES = 300  # as many as Object HalBench has
OBJHAL_PROMPTS = (
    "Describe the image in detail.",
    "Please describe this image in detail.",
    "Describe this image.",
    "What does the image show?",
)
LIKELY = 5  # likely hallucinations that AMBER's annotation of a scene lists
HERE = Path(__file__).parent


def official_folder() -> Path:
    """The test split, laid out once per version of the world in the cache."""
    sources = [
        *sorted(HERE.glob("*.py")),
        HERE / "sprites.png",
        Path(pope_questions.__file__),
        Path(english.__file__),
        Path(coco_objects.__file__),
    ]
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in sources]
    version = hashlib.sha256(b"".join(digests)).hexdigest()[:12]
    target = cache_root() / "scenes" / version
    # Any change of the world's code is another world.
    if not target.is_dir():
        build = partial(write, split="test", seed=0, count=IMAGES)
        try:
            lay_out(target, build)
        except OSError as error:
            target = _own_temporary_folder() / "scenes" / version
            note(
                f"{cache_root()} cannot be written ({os_reason(error)}): the scenes are in {target}"
            )
            lay_out(target, build)
    return target


def _own_temporary_folder() -> Path:
    """A folder among the temporary ones that nobody else can write, the same for each command."""
    folder = Path(tempfile.gettempdir()) / f"synth-align-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    is_own = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    return folder if is_own and not state.st_mode & 0o022 else Path(tempfile.mkdtemp())


def write_new(out: Path, split: str, seed: int, count: int) -> list[Scene]:
    """As `write`, into a new or empty folder, or one in which the same command was killed.

    Raises StoreError if it is none of these, DataError on an unknown split or a full disk.
    """
    if split not in SPLITS:
        raise DataError(
            f"There is no split '{split}'.",
            f"Splits are {', '.join(SPLITS)}.",
            "Choose one of them.",
        )
    try:
        with folder_of_its_own(out, f"scenes {split} {seed} {count}", note):
            return write(out, split, seed, count)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written.",
            os_reason(error),
            "Free space or change the permissions.",
        ) from error


def write(out: Path, split: str, seed: int, count: int) -> list[Scene]:
    """Images, facts and official files of `count` scenes of at least three categories."""
    scenes = choose(split, seed, count)
    images = out / "images" / "scenes"
    images.mkdir(parents=True)
    for item in scenes:
        render(item).save(images / item.name)
    _write_lines(out / "facts.jsonl", map(fact_row, scenes))
    objects, rows = [], []
    for item in scenes:
        shown = list(item.counts)
        objects.append((item.name, shown))
        rows.append({"image": item.name, "objects": shown})
    _write_lines(out / "objects.jsonl", rows)
    questions = pope_questions.build(objects, seed)
    pope_questions.write(questions, out)
    # Fewer of the variants: other draws of the negatives about some of the images.
    for number, name in enumerate(("aokvqa", "gqa"), 1):
        variant = pope_questions.build(objects[:VARIANT_IMAGES], seed + number)
        pope_questions.write(variant, out, f"pope/{name}/{name}_pope_seem_{{}}.json")
    # Labels of this world need no correction, so RePOPE is POPE here.
    pope_questions.write(questions, out, "pope/repope/coco_repope_{}.json")
    _write_json(out / TEMPLATE, mmhal_items(scenes, PER_TYPE))
    _write_json(out / GROUND_TRUTH, _chair_ground_truth(scenes))
    (out / SYNONYMS).write_text(facts.synonym_lines(), encoding="utf-8")
    (out / REFINED_SYNONYMS).write_text(facts.synonym_lines(), encoding="utf-8")
    rows = []
    for number, item in enumerate(scenes[:OBJHAL_IMAGES]):
        prompt = OBJHAL_PROMPTS[number % len(OBJHAL_PROMPTS)]
        rows.append({"image_id": item.name, "question": prompt})
    (out / OBJHAL_QUESTIONS).parent.mkdir()
    _write_lines(out / OBJHAL_QUESTIONS, rows)
    _write_mme(out, scenes[:MME_IMAGES])
    _write_hallusionbench(out, scenes)
    _write_amber(out, scenes)
    return scenes


def choose(split: str, seed: int, count: int) -> list[Scene]:
    """The first `count` scenes that show at least the three categories that POPE asks about."""
    chosen: list[Scene] = []
    index = 1
    # A scene with two categories cannot be asked about three.
    while len(chosen) < count:
        item = scene(split, seed, index)
        index += 1
        if len(item.counts) >= pope_questions.PER_IMAGE:
            chosen.append(item)
    return chosen


def fact_row(item: Scene) -> dict[str, Any]:
    """Everything that is true of a scene, as one JSON object; boxes in pixels."""
    things = []
    for thing in item.things:
        things.append(
            {
                "category": thing.category,
                "left": thing.left,
                "top": thing.top,
                "side": thing.side,
                "size": thing.size,
                "mirrored": thing.mirrored,
            }
        )
    return {
        "image": item.name,
        "context": item.context.name,
        "counts": item.counts,
        "things": things,
    }


def mmhal_items(scenes: Sequence[Scene], per_type: int) -> list[dict[str, Any]]:
    """Questions in the official file's form, types in the official order, no question twice.

    There are equally many of each type: `per_type`, or fewer if the scenes do not allow as many.
    """
    rng = random.Random(f"mmhal {scenes[0].split} {scenes[0].seed}")
    by_type: list[list[dict[str, Any]]] = []
    for number, kind in enumerate(TYPES):
        # Each type begins in another part of the scenes, so that few images are asked twice.
        start = number * len(scenes) // len(TYPES)
        items = []
        for item in (*scenes[start:], *scenes[:start]):
            pair = facts.question(kind, item, rng)
            if pair is not None:
                items.append(_mmhal_item(kind, item, *pair))
        by_type.append(items[:per_type])
    # The official scorer takes index mod 8 for the type, so types alternate.
    items = []
    for row in zip(*by_type, strict=False):
        items += row
    return items


def _mmhal_item(kind: str, item: Scene, question: str, reference: str) -> dict[str, Any]:
    contents = [english.counted(name, count) for name, count in item.counts.items()]
    return {
        "question_type": kind,
        "question_topic": item.context.name,
        "image_id": f"{item.name.removesuffix('.png')}/{kind}",
        "image_src": item.name,
        "image_content": contents,
        "question": question,
        "gt_answer": reference,
        "model_answer": "",
    }


def _chair_ground_truth(scenes: Sequence[Scene]) -> dict[str, Any]:
    """The objects of every image by number, in the form of CHAIR's ground truth."""
    index_of = {name: index for index, name in enumerate(CATEGORIES)}
    objects = {}
    for item in scenes:
        objects[str(item.index)] = [index_of[name] for name in item.counts]
    return {"categories": CATEGORIES, "images": objects}


def _write_mme(out: Path, scenes: Sequence[Scene]) -> None:
    """Two questions about each image, one with yes: existence, count, position.

    Nothing here has a colour of its own, so that task is missing.
    """
    for number, item in enumerate(scenes):
        shown = list(item.counts)
        absent = [name for name in CATEGORIES if name not in item.counts]
        category, count = next(iter(item.counts.items()))
        tasks = {
            "existence": [
                (english.question_about(shown[number % len(shown)]), "Yes"),
                (english.question_about(absent[7 * number % len(absent)]), "No"),
            ],
            "count": [
                (english.question_about_number(category, count), "Yes"),
                (english.question_about_number(category, count + 1), "No"),
            ],
        }
        things = facts.singles(item)
        for first, second in pairwise(things):
            relation = facts.relation(first, second)
            if relation is not None:
                words = f"Is the {first.category} {{}} the {second.category} in the image?"
                opposite = facts.OPPOSITE_RELATION[relation]
                tasks["position"] = [
                    (words.format(relation), "Yes"),
                    (words.format(opposite), "No"),
                ]
                break
        for task, questions in tasks.items():
            file = out / "mme" / task / f"{item.name.removesuffix('.png')}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{question}\t{answer}\n" for question, answer in questions]
            file.write_text("".join(lines), encoding="utf-8")


def _write_hallusionbench(out: Path, scenes: Sequence[Scene]) -> None:
    """Pairs of scenes as a figure and its edited version, two questions about each.

    Each object asked about is in one of the two.
    """
    rows = []
    pairs = zip(scenes[::2], scenes[1::2], strict=False)
    for number, (one, other) in enumerate(pairs):
        only_one = [name for name in one.counts if name not in other.counts]
        only_other = [name for name in other.counts if name not in one.counts]
        if not only_one or not only_other or number >= HALLUSION_SETS:
            continue
        for figure, item in enumerate((one, other)):
            for question, category in enumerate((only_one[0], only_other[0])):
                is_there = category in item.counts
                rows.append(
                    {
                        "category": "VD",
                        "subcategory": "scenes",
                        "visual_input": "1" if figure == 0 else "2",
                        "set_id": str(number),
                        "figure_id": str(figure),
                        "question_id": str(question),
                        "question": english.question_about(category),
                        "gt_answer": "1" if is_there else "0",
                        "filename": item.name,
                    }
                )
    (out / HALLUSION_QUESTIONS).parent.mkdir()
    _write_json(out / HALLUSION_QUESTIONS, rows)


def _write_amber(out: Path, scenes: Sequence[Scene]) -> None:
    """Descriptions of all scenes, then yes/no questions of every type about each, half with yes."""
    queries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def add(item: Scene, query: str, kind: str, truth: Any, **more: Any) -> None:
        number = len(queries) + 1
        queries.append({"id": number, "image": item.name, "query": query})
        annotations.append({"id": number, "type": kind, "truth": truth, **more})

    for item in scenes:
        shown = list(dict.fromkeys(map(facts.noun, item.counts)))
        usual = dict.fromkeys(map(facts.noun, facts.companions(item)))
        likely = []
        for name in usual:
            if name not in shown:
                likely.append(name)
        add(item, "Describe this image.", "generative", shown, hallu=likely[:LIKELY])
    rng = random.Random(f"amber {scenes[0].split} {scenes[0].seed}")
    for kind in facts.YES_NO_KINDS:
        for item in scenes:
            for truth in ("yes", "no"):
                query = facts.yes_no_question(kind, item, truth, rng)
                if query is not None:
                    add(item, query, kind, truth)
    _write_json(out / "amber" / "query_all.json", queries)
    _write_json(out / "amber" / "annotations.json", annotations)
    _write_json(out / "amber" / "relation.json", facts.noun_relations())
    (out / "amber" / "safe_words.txt").write_text("")


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _write_lines(file: Path, rows: Iterable[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
