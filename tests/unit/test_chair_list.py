"""CHAIR's fixed list, the length of answers and the wording of its question."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from bench.benchmarks.chair import CHAIR, listed_images
from bench.data.folder import Folder
from bench.errors import DataError
from bench.runs.runner import prepare, read_samples
from bench.types import Answer, Sample
from leaderboards.compare import CompareError, compare
from tests.conftest import bench, draw, metrics
from tests.recorded_runs import pope_run, sealed

VAL2014 = 40504  # images


@pytest.fixture
def coco(shared, tmp_path):
    """A data folder with CHAIR's files; `images` makes pictures of such names."""
    (tmp_path / "chair").symlink_to(shared / "chair")
    folder = tmp_path / "images" / "coco"
    folder.mkdir(parents=True)
    content = draw(tmp_path / "one.jpg", 0).read_bytes()

    def images(names):
        for name in names:
            (folder / name).write_bytes(content)
        return Folder(tmp_path)

    return images


def test_the_list_is_drawn_by_the_rule_that_is_stated():
    numbers = [str(int(name[-16:-4])) for name in listed_images()]
    assert len(set(numbers)) == 500
    greatest = max(hashlib.sha256(number.encode()).digest() for number in numbers)
    # 500 of 40,504 equally spread digests lie below 1.23 % of the range.
    assert int.from_bytes(greatest[:4], "big") / 2**32 == pytest.approx(500 / VAL2014, rel=0.15)


def test_the_list_is_asked_also_where_some_images_are_missing(coco):
    listed = sorted(listed_images())
    data = coco([*listed[:300], "COCO_val2014_000000000042.jpg"])
    samples = CHAIR.samples(data)
    assert [sample.image for sample in samples] == listed
    questions = prepare(CHAIR, data, samples, "", CHAIR.max_tokens)
    assert sum(request.path is None for request in questions.requests) == 200, "told as missing"


def test_other_images_are_asked_about_and_told(coco):
    names = ["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg"]
    samples = read_samples(CHAIR, coco(names))
    assert [sample.image for sample in samples] == names
    scores = [CHAIR.score(sample, Answer("A dog."), None) for sample in samples]
    for metric in CHAIR.metrics(scores):
        assert "2 images that are not on the list of 500" in metric.caveats
    seeds = [replace(score, sample=f"{score.sample}#seed{n}") for n in range(3) for score in scores]
    assert CHAIR.metrics(seeds)[0].caveats == CHAIR.metrics(scores)[0].caveats


def test_the_list_itself_needs_no_caveat(shared):
    image = min(listed_images())
    sample = Sample(image, image, "What?", [], image, "all", {"synonyms": {}})
    for name in (image, f"{image}#seed1"):
        score = replace(CHAIR.score(sample, Answer("A dog."), None), sample=name)
        assert not any("list of 500" in text for m in CHAIR.metrics([score]) for text in m.caveats)


def test_recorded_answers_keep_their_own_images(coco, tmp_path):
    coco(sorted(listed_images()))
    recorded = ("COCO_val2014_000000000042.jpg",)
    (sample,) = CHAIR.samples(Folder(tmp_path, recorded=recorded))
    assert sample.image == recorded[0]


def test_runs_on_other_lists_are_not_compared(tmp_path):
    runs = []
    for name, first in (("a", 0), ("b", 5), ("part", 0)):
        run = pope_run(tmp_path / name, [1] * 10)
        rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
        for row in rows:
            number = int(row["sample"].split("/")[1]) + first
            row["sample"] = f"random/{number}"
        kept = rows[:4] if name == "part" else rows
        (run / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        runs.append(sealed(run))
    with pytest.raises(CompareError, match="random: 5 only in one, 5 in the other"):
        compare(runs[0], [runs[1]])
    (forced,) = compare(runs[0], [runs[1]], force=True)
    assert forced.differs and forced.matched == 5
    (part,) = compare(runs[0], [runs[2]])
    assert part.matched == 4, "a part of a list is no other list"


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """llava-tiny's captions of six scenes: as usual, at most 4 tokens, and by another question."""
    root = tmp_path_factory.mktemp("captions")
    protocol = root / "shorter.yaml"
    protocol.write_text("base: native\nquestion:\n  chair: What is in the image?\n")
    more = {"usual": (), "short": ("--max-tokens", 4), "worded": ("--protocol", protocol)}
    for name, options in more.items():
        done = bench(
            "run", "--model", "llava-tiny", "--suite", "chair", "--data", "scenes",
            "--limit", 6, "--out", root / name, *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return root


def test_the_length_of_answers_is_recorded_told_and_compared(captions):
    record = json.loads((captions / "short" / "chair" / "run.json").read_text())
    usual = json.loads((captions / "usual" / "chair" / "run.json").read_text())
    assert record["prompt"]["max_tokens"] == [4] and usual["prompt"]["max_tokens"] == [512]
    lines = (captions / "short" / "chair" / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["tokens"] for line in lines} == {4}
    for row in metrics(captions / "short" / "chair").values():
        assert "answers of at most 4 tokens" in row["caveats"]
    with pytest.raises(CompareError, match=r"prompt\.max_tokens"):
        compare(captions / "usual", [captions / "short"])


def test_another_question_is_recorded_told_and_compared(captions):
    record = json.loads((captions / "worded" / "chair" / "run.json").read_text())
    assert record["prompt"]["question"] == "What is in the image?"
    lines = (captions / "worded" / "chair" / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"What is in the image?"}
    assert bench("score", captions / "worded").returncode == 0, "the same questions are found again"
    for row in metrics(captions / "worded" / "chair").values():
        assert "asked by a question of the protocol's own" in row["caveats"]
    with pytest.raises(CompareError, match=r"prompt\.question"):
        compare(captions / "usual", [captions / "worded"])


def test_what_cannot_be_shortened_or_reworded_is_told(captions, pictures):
    answers = captions / "usual" / "chair" / "answers.jsonl"
    done = bench(
        "run", "--model", f"replay:{answers}", "--suite", "chair", "--data", "scenes",
        "--max-tokens", 64,
    )  # fmt: skip
    assert done.returncode == 2 and "do nothing for recorded answers" in done.stderr
    from bench.benchmarks.pope import COCO

    data = Folder(pictures)
    with pytest.raises(DataError, match="It asks more than one"):
        prepare(COCO, data, COCO.samples(data), "", COCO.max_tokens, question="What?")
