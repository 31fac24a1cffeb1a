"""Object HalBench on recorded outputs: the rule's figures, and the matching of listed objects."""

from __future__ import annotations

import json

import pytest

from bench.benchmarks.chair import BUILT_IN
from bench.benchmarks.objhal import (
    JUDGED,
    QUESTIONS,
    REFINED_SYNONYMS,
    ObjectHalBench,
    coco_names,
    image_name,
    listed_objects,
    read_refined,
)
from bench.data.folder import Folder
from bench.types import Answer, Verdict
from tests.conftest import bench, metrics, run_of
from tests.loopback_chat import chat_server, completion

FILES = ("beam-search-eval-chair-300_answer.json", "sampling-decoding-eval-chair-300_answer.json")
PROMPT = "Please describe the image in detail."


@pytest.fixture
def folder(shared, tmp_path):
    """A data folder with the 300 images in the official form; its questions were not recorded."""
    rows = json.loads((shared / "outputs" / "chair_objhal" / FILES[0]).read_text())["sentences"]
    data = tmp_path / "data"
    (data / "objhal").mkdir(parents=True)
    (data / "chair").symlink_to(shared / "chair")
    lines = [json.dumps({"image_id": row["image_id"], "question": PROMPT}) + "\n" for row in rows]
    (data / QUESTIONS).write_text("".join(lines))
    return data


def answers_of(shared, file, out):
    rows = json.loads((shared / "outputs" / "chair_objhal" / file).read_text())["sentences"]
    lines = []
    for row in rows:
        answer = {"image": image_name(row["image_id"]), "question": PROMPT, "text": row["caption"]}
        lines.append(json.dumps(answer) + "\n")
    out.write_text("".join(lines))
    return out


@pytest.mark.parametrize(
    ("file", "chair_s", "chair_i", "recall"),
    [(FILES[0], 0.24333, 0.067599, 0.621593), (FILES[1], 0.29000, 0.097028, 0.603774)],
)
def test_the_rule_gives_the_recorded_figures(
    shared, folder, tmp_path, monkeypatch, file, chair_s, chair_i, recall
):
    """With NLTK to the last digit (tox -e official), else within a point."""
    file = answers_of(shared, file, tmp_path / "answers.jsonl")
    done = bench(
        "run", "--model", f"replay:{file}", "--suite", "objhal-rule", "--data", folder, "--out",
        tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = metrics(run_of(done))
    tolerance = 1e-5 if "official" in json.loads((run_of(done) / "run.json").read_text())[
        "benchmark"
    ]["version"] else 0.01  # fmt: skip
    assert measured["chair_s_all", "all"]["value"] == pytest.approx(chair_s, abs=tolerance)
    assert measured["chair_i", "all"]["value"] == pytest.approx(chair_i, abs=tolerance)
    assert measured["recall", "all"]["value"] == pytest.approx(recall, abs=tolerance)
    assert measured["chair_s", "all"]["value"] >= measured["chair_s_all", "all"]["value"]
    right, wrong = measured["correct_i", "all"], measured["chair_i", "all"]
    assert right["value"] == pytest.approx(1 - chair_i, abs=tolerance)
    assert (right["low"], right["high"]) == pytest.approx((1 - wrong["high"], 1 - wrong["low"]))


def test_a_judge_lists_objects_and_short_answers_name_none(shared, folder, tmp_path):
    """A server lists what the answer says; what it gets is our request, and garbage is unscored."""
    rows = [json.loads(line) for line in (folder / QUESTIONS).read_text().splitlines()][:4]
    (folder / QUESTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    truth = json.loads((shared / "chair" / "coco2014_chair_gt__wordnet_pos_lemma.json").read_text())
    there = [truth["categories"][i] for i in truth["images"][str(rows[0]["image_id"])]]
    texts = [
        f"There are {there[0]}s, {there[1]}s and a large elephant in it.",
        "A brown dog.",
        "I can see nothing of note in this picture.",
        "Here is something that the judge cannot list at all.",
    ]
    file = tmp_path / "answers.jsonl"
    lines = []
    for row, text in zip(rows, texts, strict=True):
        answer = {"image": image_name(row["image_id"]), "question": PROMPT, "text": text}
        lines.append(json.dumps(answer) + "\n")
    file.write_text("".join(lines))

    def judge(number, body):
        prompt = body["messages"][0]["content"]
        assert PROMPT in prompt and "JSON list" in prompt
        if "cannot list" in prompt:
            return completion("There is a dog.")
        if "of note" in prompt:
            return completion("[]")
        return completion(f'Objects:\n["{there[0]}", "{there[1]}", "elephant", "elephant"]')

    with chat_server(judge) as (url, _):
        done = bench(
            "run", "--model", f"replay:{file}", "--suite", "objhal", "--data", folder, "--out",
            tmp_path / "out", "--judge", f"openai:judge@{url}", "--json",
        )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "the review is no JSON list of objects" in done.stderr
    measured = metrics(run_of(done))
    # Of three scored responses one names objects, and one of its three is not there.
    assert measured["chair_s", "all"]["value"] == 1
    assert measured["chair_s_all", "all"]["value"] == pytest.approx(1 / 3)
    assert measured["chair_i", "all"]["value"] == pytest.approx(1 / 3)
    assert measured["correct_s", "all"]["value"] == 0
    assert measured["correct_i", "all"]["value"] == pytest.approx(2 / 3)
    assert measured["recall", "all"]["unscored"] == 1
    verdicts = (run_of(done) / "verdicts.jsonl").read_text().splitlines()
    assert len(verdicts) == 3, "the one that cannot be read is asked for again"


def test_a_template_of_the_users_own_must_be_of_the_kind(shared, folder, tmp_path):
    file = answers_of(shared, FILES[0], tmp_path / "answers.jsonl")
    rating = tmp_path / "rating.txt"
    rating.write_text("{image_contents} {question} {reference} {answer}")
    own = tmp_path / "own.txt"
    own.write_text("Objects in: {answer} (asked: {question})? JSON list.")
    with chat_server(lambda number, body: completion('["dog"]')) as (url, seen):
        command = (
            "run", "--model", f"replay:{file}", "--suite", "objhal", "--data", folder, "--limit", "3",
            "--judge", f"openai:judge@{url}", "--judge-template",
        )  # fmt: skip
        done = bench(*command, rating, "--out", tmp_path / "rating")
        assert done.returncode == 2 and "{question} and {answer} alone" in done.stderr
        done = bench(*command, own, "--out", tmp_path / "own")
        assert done.returncode == 0, done.stderr
    assert seen[-1]["messages"][0]["content"].startswith("Objects in: ")


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (["dog", "Dogs", "puppies"], ["dog", "puppy"]),
        (["red double-decker bus", "stop signs"], ["bus", "stop sign"]),
        (["coffee table", "kitchen table", "remote control"], ["coffee table", "remote control"]),
        (["baby elephant", "toilet seat", "sky"], ["elephant", "toilet"]),
        (["hot dogs", "wine glasses"], ["hot dog", "wine glass"]),
        ([], []),
    ],
)
def test_listed_objects_are_matched_as_the_script_matches_them(shared, listed, names):
    """Each word once; a compound that is not in the list ("kitchen table") stands for nothing."""
    synonyms = read_refined((shared / REFINED_SYNONYMS).read_text())
    assert coco_names(listed, synonyms) == names


def test_lists_are_read_in_every_usual_form():
    assert listed_objects('```json\n["dog"]\n```') == ["dog"]
    assert listed_objects('I found:\n["dog", 3]') == ["dog"]
    assert listed_objects('{"objects": ["dog"]}') == ["dog"]
    assert listed_objects("no objects") is None
    assert listed_objects("[" * 100_000) is None


def test_an_unjudged_answer_is_unscored_and_a_short_one_is_not(shared, folder):
    benchmark = ObjectHalBench("objhal", "Object HalBench", True, wording=lambda: BUILT_IN)
    sample = benchmark.samples(Folder(folder))[0]
    assert benchmark.score(sample, Answer("A large brown dog."), None).unscored == "not judged"
    short = benchmark.score(sample, Answer("A dog."), None)
    assert short.unscored is None and short.values["mentioned"] == []
    judged = JUDGED.score(sample, Answer("A large brown dog."), Verdict('["dog"]'))
    assert judged.values["mentioned"] == ["dog"]
