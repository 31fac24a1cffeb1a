"""POPE's own sampling, on its own objects and on anybody's."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from bench.data.pope_questions import build, read_objects
from bench.errors import DataError
from tests.conftest import OBJECTS, bench


def negatives(rows) -> dict[str, list[str]]:
    objects: dict[str, list[str]] = {}
    for row in rows:
        if row["label"] == "no":
            objects.setdefault(row["image"], []).append(
                row["text"].removesuffix(" in the image?").split(" ", 3)[3]
            )
    return objects


def test_official_negatives_come_out_of_the_official_objects(shared):
    folder = shared / "pope" / "coco"
    images, skipped = read_objects(folder / "coco_ground_truth_objects.jsonl")
    built = build(images, seed=0)
    assert (len(images), skipped) == (500, 0)
    for subset, at_least in (("popular", 1500), ("adversarial", 1497)):
        official = [
            json.loads(line)
            for line in (folder / f"coco_pope_{subset}.json").read_text().splitlines()
        ]
        theirs, ours = negatives(official), negatives(built[subset])
        assert sum(len(set(theirs[name]) & set(ours[name])) for name in theirs) >= at_least
        positives = [(row["image"], row["text"]) for row in official if row["label"] == "yes"]
        assert positives == [
            (row["image"], row["text"]) for row in built[subset] if row["label"] == "yes"
        ]


def test_every_subset_is_balanced_and_truthful(tmp_path):
    images = list(OBJECTS.items())
    for rows in build(images, seed=3).values():
        assert Counter(row["label"] for row in rows) == {"yes": 15, "no": 15}
        assert [row["question_id"] for row in rows] == list(range(1, 31))
        for row in rows:
            item = row["text"].removesuffix(" in the image?").split(" ", 3)[3]
            assert (item in OBJECTS[row["image"]]) == (row["label"] == "yes")
        assert len({(row["image"], row["text"]) for row in rows}) == 30, "no question twice"
    assert "Is there an oven in the image?" in {row["text"] for row in build(images, 0)["popular"]}


def test_only_random_negatives_depend_on_the_seed():
    one, other = (build(list(OBJECTS.items()), seed) for seed in (0, 1))
    assert one["popular"] == other["popular"] and one["random"] != other["random"]
    assert one == build(list(OBJECTS.items()), 0)


def test_the_result_is_a_data_folder(pictures):
    done = bench("data", "check", pictures)
    assert done.returncode == 0, done.stdout
    assert "pope: 90 samples (random 30, popular 30, adversarial 30)" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"image": "a.png", "objects": ["x"]}', "no image with 3 objects"),
        ('{"image": "a.png", "objects": "cup"}', "objects of 1 is 'cup'"),
        ('{"image": "a.png"}', "has no objects"),
        ('{"image": "a.png", "objects": ["x", "y', "truncated or corrupt"),
        ('{"a.png": ["x", "y", "z"]}', "every object there is"),
        ("", "empty"),
    ],
)
def test_bad_object_lists_are_clear_errors(tmp_path, content, words):
    file = tmp_path / "objects.json"
    file.write_text(content)
    with pytest.raises(DataError, match=words):
        build(read_objects(file)[0], 0)


def test_questions_that_are_there_already_are_not_overwritten(pictures, tmp_path):
    objects = pictures / "objects.json"
    words = ("data", "pope", "--objects", objects, "--out", tmp_path)
    assert bench(*words).returncode == 0
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.json")}
    assert len(before) == 3
    assert bench(*words).returncode == 0, "the same ones may be made again"
    done = bench(*words, "--seed", 1)
    assert done.returncode == 2
    assert "coco_pope_random.json is there already" in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.json")} == before
