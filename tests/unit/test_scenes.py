"""The built-in world: the same everywhere, apart by split, true to its facts, and judged by them.
The built-in world: the same everywhere, apart by split, true to its facts, and judged by them."""

from __future__ import annotations

import hashlib
import json
import os
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bench.benchmarks.mmhal import MMHAL, TYPES
from bench.errors import DataError, JudgeError
from bench.judges.scene import review
from bench.metrics.ratings import official_rating
from bench.scenes import facts
from bench.scenes.data import fact_row, write, write_new
from bench.scenes.render import render
from bench.scenes.world import (
    CATEGORIES,
    CONTEXTS,
    SIDE,
    SPLITS,
    Context,
    Scene,
    Thing,
    scene,
    scenes,
)
from bench.types import Answer, Sample
from tests.conftest import ROOT, bench, bench_process, metrics

COCO = Path(ROOT.parent / "shared" / "data" / "chair" / "synonyms_LisaAnne.txt")


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def test_two_processes_make_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed, start in (("one", 5, bench), ("two", 5, bench_process), ("other", 6, bench)):
        done = start("data", "scenes", "--out", tmp_path / name, "--n", 40, "--seed", seed)
        assert done.returncode == 0, done.stderr
    one, two, other = (fingerprint(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other


def test_the_world_has_not_moved():
    """Numbers on scenes mean something only as long as the scenes stay; a new world needs a new
    model too."""
    first = ("train", "validation", "test")  # `final` came later and moved none of them
    rows = [json.dumps(fact_row(item)) for split in first for item in scenes(split, 0, 20)]
    assert hashlib.sha256("".join(rows).encode()).hexdigest()[:16] == "6c32d4a4045ab21e"


def test_splits_share_no_scene():
    seen = [{str(fact_row(item)["things"]) for item in scenes(split, 0, 400)} for split in SPLITS]
    assert all(len(a) > 390 for a in seen)
    for one, other in combinations(seen, 2):
        assert not one & other
    with pytest.raises(ValueError, match="no split"):
        scene("tset", 0, 1)


def test_objects_lie_inside_and_hardly_overlap():
    for item in scenes("train", 0, 300):
        assert 2 <= len(item.counts) <= 6 and all(1 <= n <= 3 for n in item.counts.values())
        boxes = [(t.left, t.top, t.left + t.side, t.top + t.side) for t in item.things]
        assert all(min(box) >= 0 and max(box) <= SIDE for box in boxes)
        for i, (left, top, right, bottom) in enumerate(boxes):
            for x, y, x2, y2 in boxes[:i]:
                assert min(right, x2) - max(left, x) <= 2 or min(bottom, y2) - max(top, y) <= 2


def test_objects_go_together_as_their_contexts_have_it():
    """The usual company of a place is there far more often than chance, and every category turns
    up somewhere."""
    drawn_scenes = list(scenes("train", 1, 4000))
    assert {name for item in drawn_scenes for name in item.counts} == set(CATEGORIES) and len(
        CATEGORIES
    ) >= 60
    for context in CONTEXTS:
        inside = [item for item in drawn_scenes if item.context == context]
        outside = [item for item in drawn_scenes if item.context != context]
        for name in context.often:
            here = sum(name in item.counts for item in inside) / len(inside)
            elsewhere = sum(name in item.counts for item in outside) / len(outside)
            assert here > 0.5 > 2 * elsewhere or name == "person"


def test_categories_are_cocos(shared):
    words = {line.split(", ")[0].strip() for line in COCO.read_text().splitlines()}
    assert set(CATEGORIES) <= words


def test_every_object_can_be_seen():
    """Taking an object away changes pixels inside its box, many of them, and none outside."""
    for item in scenes("test", 0, 100):
        for thing in item.things:
            others = tuple(other for other in item.things if other != thing)
            bare = Scene(item.split, item.seed, item.index, item.context, others)
            changed = np.any(np.asarray(render(item)) != np.asarray(render(bare)), axis=2)
            inside = changed[
                thing.top : thing.top + thing.side, thing.left : thing.left + thing.side
            ]
            assert inside.sum() == changed.sum() > thing.side, (item.name, thing)


def things(*placed: tuple[str, int, int, str]) -> tuple[Thing, ...]:
    sides = {"small": 22, "medium": 30, "large": 42}
    return tuple(
        Thing(name, left, top, sides[size], size, False) for name, left, top, size in placed
    )


KITCHEN = Scene(
    "test",
    0,
    7,
    next(c for c in CONTEXTS if c.name == "kitchen"),
    things(
        ("cat", 0, 0, "large"),
        ("bowl", 84, 6, "small"),
        ("spoon", 10, 80, "small"),
        ("spoon", 90, 90, "small"),
        ("wine glass", 50, 90, "medium"),
    ),
)

SIZE = ("attribute", "Is the cat in the image small or large?", "The cat is large.")
ABSENT = ("adversarial", "Where in the image is the knife?", "There is no knife in the image.")
LARGER = (
    "comparison",
    "Which is larger in the image, the bowl or the cat?",
    "The cat is larger than the bowl.",
)
COUNT = (
    "counting",
    "How many spoons are there in the image?",
    "There are two spoons in the image.",
)
SIDE_BY_SIDE = (
    "relation",
    "Is the cat to the left or to the right of the bowl?",
    "The cat is to the left of the bowl.",
)
PLACE = ("environment", "What kind of place does the image show?", "The image shows a kitchen.")
WHOLE = ("holistic", "Describe the image in detail.", facts.description(KITCHEN))
LEFTMOST = ("other", "What is the leftmost object in the image?", "The leftmost object is a cat.")
TABLE = [
    (SIZE, "The cat is large.", 6),
    (SIZE, "Large", 5),
    (SIZE, "The big cat.", 6),
    (SIZE, "The cat is small.", 0),
    (SIZE, "small", 0),
    (SIZE, "I do not know.", 3),
    (SIZE, "The cat is large and a dog is near.", 2),
    (SIZE, "", 3),
    (ABSENT, "There is no knife here.", 6),
    (ABSENT, "Nowhere", 5),
    (ABSENT, "The knife is on the left.", 0),
    (ABSENT, "The cat has it.", 3),
    (ABSENT, "There is no knife, but there is a banana.", 2),
    (LARGER, "The cat", 5),
    (LARGER, "The bowl is smaller than the cat.", 6),
    (LARGER, "The bowl is larger than the cat.", 0),
    (COUNT, "2", 5),
    (COUNT, "There are two spoons.", 6),
    (COUNT, "There are three spoons.", 0),
    (COUNT, "None", 0),
    (COUNT, "There are some spoons.", 3),
    (SIDE_BY_SIDE, "Left.", 5),
    (SIDE_BY_SIDE, "The cat is to the right of the bowl.", 0),
    (SIDE_BY_SIDE, "It is on the left of the bowl, the cat.", 3),
    (PLACE, "A kitchen", 5),
    (PLACE, "It is a street.", 0),
    (WHOLE, facts.description(KITCHEN), 6),
    (WHOLE, "A cat and a bowl are in a kitchen.", 4),
    (WHOLE, "A cat and a dog are in a kitchen.", 1),
    (WHOLE, "What a lovely picture!", 3),
    (WHOLE, facts.description(KITCHEN) + " A man eats.", 2),
    (LEFTMOST, "A cat", 5),
    (LEFTMOST, "The leftmost object is a bowl.", 0),
    (LEFTMOST, "A wine glass.", 0),
]


@pytest.mark.parametrize(("asked", "answer", "rating"), TABLE)
def test_the_oracle_rates_hand_written_answers(monkeypatch, asked, answer, rating):
    kind, question, reference = asked
    monkeypatch.setattr("bench.judges.scene.scene_of", lambda name: KITCHEN)
    verdict = review(Sample("1", KITCHEN.name, question, reference, "c", kind), Answer(answer))
    assert official_rating(verdict.text) == rating, verdict.text


def test_the_oracle_says_in_plain_words_what_is_false(monkeypatch):
    monkeypatch.setattr("bench.judges.scene.scene_of", lambda name: KITCHEN)
    kind, question, reference = WHOLE
    sample = Sample("1", KITCHEN.name, question, reference, "c", kind)
    text = "There are three knives. There is no bowl. The cat is to the right of the bowl."
    answer = Answer(text)
    verdict = review(sample, answer)
    false = {line for line in verdict.text.splitlines() if line.startswith("false |")}
    assert false == {
        "false | 0.000 | Is there a knife in the image? | knives",
        "false | 0.000 | Are there three knives in the image? | three knives",
        "false | 1.000 | not Is there a bowl in the image? | bowl",
        "false | 0.000 | Is the cat to the right of the bowl? | right",
    }
    values = MMHAL.score(sample, answer, verdict).values
    assert set(values["false_claims"]) == {"knives", "three knives", "bowl", "right"}


def test_the_oracle_judges_scenes_alone():
    with pytest.raises(JudgeError, match="only the built-in world"):
        review(Sample("1", "photo.jpg", "q", "r", "c", "other"), Answer("x"))


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write(folder, "test", 0, 120)
    return folder


def answers_file(folder: Path, path: Path, answer) -> Path:
    """Recorded answers of an answerer that knows the official files: answer(kind, row, scene)."""
    rows = []
    for subset in ("random", "popular", "adversarial"):
        for row in map(
            json.loads,
            (folder / "pope" / "coco" / f"coco_pope_{subset}.json").read_text().splitlines(),
        ):
            rows.append(
                {
                    "image": row["image"],
                    "question": row["text"],
                    "text": answer("yes_no", row["label"], None),
                }
            )
    for row in json.loads((folder / "mmhal" / "mmhal-bench_answer_template.json").read_text()):
        rows.append(
            {
                "image": row["image_src"],
                "question": row["question"],
                "text": answer("open", row["gt_answer"], None),
            }
        )
    truth = json.loads((folder / "amber" / "annotations.json").read_text())
    for row, known in zip(
        json.loads((folder / "amber" / "query_all.json").read_text()), truth, strict=True
    ):
        if known["type"] != "generative":
            rows.append(
                {
                    "image": row["image"],
                    "question": row["query"],
                    "text": answer("yes_no", known["truth"], None),
                }
            )
    for name in {row["image"] for row in rows}:
        for question in ("Please describe this image in detail.", "Describe this image."):
            rows.append(
                {
                    "image": name,
                    "question": question,
                    "text": answer("caption", None, facts.scene_of(name)),
                }
            )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def results(small_world, tmp_path, answer) -> dict:
    file = answers_file(small_world, tmp_path / "answers.jsonl", answer)
    asked = (
        "--suite",
        "pope,mmhal,chair,amber",
        "--data",
        small_world,
        "--judge",
        "scene",
        "--json",
    )
    done = bench("run", "--model", f"replay:{file}", *asked, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    return {name: metrics(tmp_path / "runs" / name) for name in ("pope", "mmhal", "chair", "amber")}


def test_an_oracle_is_perfect_everywhere(small_world, tmp_path):
    def oracle(kind, truth, scene):
        return (
            facts.description(scene)
            if kind == "caption"
            else truth.capitalize()
            if kind == "yes_no"
            else truth
        )

    measured = results(small_world, tmp_path, oracle)
    assert (
        measured["pope"]["accuracy", "all"]["value"] == 1 == measured["pope"]["f1", "mean"]["value"]
    )
    assert (
        measured["mmhal"]["score", "all"]["value"] == 6
        and measured["mmhal"]["hallucination_rate", "all"]["value"] == 0
    )
    assert (
        measured["chair"]["chair_s", "all"]["value"]
        == 0
        == measured["chair"]["chair_i", "all"]["value"]
    )
    assert measured["chair"]["recall", "all"]["value"] == 1
    described = {
        name: row["value"]
        for (name, subset), row in measured["amber"].items()
        if subset.startswith("generative")
    }
    assert described == {"chair": 0, "cover": 1, "hal": 0, "cog": 0}
    assert measured["amber"]["accuracy", "discriminative"]["value"] == 1


def test_always_yes_is_half_right_with_full_recall(small_world, tmp_path):
    measured = results(small_world, tmp_path, lambda kind, truth, scene: "Yes")
    for subset in ("random", "popular", "adversarial", "all"):
        row = {
            name: measured["pope"][name, subset]["value"]
            for name in ("accuracy", "precision", "recall", "yes_ratio")
        }
        assert row == {"accuracy": 0.5, "precision": 0.5, "recall": 1, "yes_ratio": 1}
    assert measured["amber"]["recall", "discriminative"]["value"] == 0, (
        "no is AMBER's positive class"
    )
    assert measured["mmhal"]["score", "all"]["value"] == 3, (
        "it claims nothing false and says nothing"
    )


def test_a_random_answerer_is_at_chance(small_world, tmp_path):
    rng = random.Random(0)
    measured = results(small_world, tmp_path, lambda kind, truth, scene: rng.choice(["Yes", "No"]))
    row = measured["pope"]["accuracy", "all"]
    assert row["low"] <= 0.5 <= row["high"]
    row = measured["amber"]["accuracy", "discriminative"]
    assert row["low"] <= 0.5 <= row["high"]


def test_the_official_files_hold_what_was_asked_for(small_world, tmp_path):
    rows = json.loads((small_world / "mmhal" / "mmhal-bench_answer_template.json").read_text())
    assert [row["question_type"] for row in rows] == list(TYPES) * (len(rows) // 8) and len(
        rows
    ) >= 240
    assert len({(row["image_src"], row["question"]) for row in rows}) == len(rows)
    done = bench("data", "check", small_world)
    assert done.returncode == 0, done.stdout
    assert "pope: 2160 samples (random 720, popular 720, adversarial 720)" in done.stdout
    out = tmp_path / "new"
    done = bench(
        "data",
        "scenes",
        "--out",
        out,
        "--n",
        "12",
        "--split",
        "train",
        "--preview",
        tmp_path / "sheet.png",
    )
    assert done.returncode == 0 and (tmp_path / "sheet.png").stat().st_size > 10_000, done.stderr
    assert (
        len(list((out / "images").rglob("*.png")))
        == 12
        == len((out / "facts.jsonl").read_text().splitlines())
    )
    again = bench("data", "scenes", "--out", out)
    assert again.returncode == 2 and "is not empty" in again.stderr
    with pytest.raises(DataError, match="no split"):
        write_new(tmp_path / "x", "tset", 0, 3)


def test_names_bring_back_their_scenes():
    for item in scenes("validation", 3, 5):
        assert facts.scene_of(item.name) == item
    assert isinstance(facts.scene_of("scene_test_0_000001.png").context, Context)
    with pytest.raises(ValueError, match="not the picture of a scene"):
        facts.scene_of("scene_test_0.png")


def test_a_home_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/proc/nowhere")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    words = ("--suite", "pope", "--data", "scenes", "--limit", "2", "--out", tmp_path / "out")
    done = bench("run", "--model", "llava-tiny", *words)
    assert done.returncode == 0, done.stderr
    assert "/proc/nowhere/synth-align cannot be written" in done.stderr
    assert str(tmp_path / f"synth-align-{os.getuid()}") in done.stderr
