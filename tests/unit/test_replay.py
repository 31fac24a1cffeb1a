"""Recorded answers find their questions, or say why not."""

from __future__ import annotations

import json

import pytest

from bench.errors import ModelError
from bench.models.replay import ReplayModel
from bench.types import Request


def request(image: str, question: str, *samples: str, suffix: str = "") -> Request:
    prompt = f"{question}\n{suffix}" if suffix else question
    return Request(f"{image}{prompt}", image, None, question, prompt, 5, True, samples)


def answers(file, requests) -> list[str | None]:
    (batch,) = ReplayModel(str(file), {}).answer(requests, frozenset())
    return [None if answer.error else answer.text for _, answer in batch]


def write(path, rows, lines=True):
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return path


def test_by_image_and_question_whatever_the_suffix_was(tmp_path):
    rows = [{"image": "a.jpg", "prompt": "Is there a dog?\nAnswer briefly.", "text": " Yes "}]
    asked = [request("a.jpg", "Is there a dog?", "random/1"), request("b.jpg", "Is there a dog?", "random/2")]
    assert answers(write(tmp_path / "a.jsonl", rows), asked) == ["Yes", None]


def test_ids_are_used_where_they_are_unambiguous(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"question_id": 1, "text": "Yes"}, {"question_id": "popular/2", "text": "No"}])
    one = [request("a.jpg", "q1?", "random/1"), request("a.jpg", "q2?", "popular/2")]
    assert answers(file, one) == ["Yes", "No"]
    both = [*one, request("b.jpg", "q1?", "popular/1")]
    assert answers(file, both) == [None, "No", None], "question 1 exists in two subsets"


def test_the_questions_beside_the_answers_say_which_image(tmp_path):
    write(
        tmp_path / "questions.jsonl",
        [{"question_id": 7, "image": "a.jpg", "text": "Is there an ox in the imange?\nShort."}],
    )
    file = write(tmp_path / "answers.jsonl", [{"question_id": 7, "prompt": "?", "text": "No"}])
    assert answers(file, [request("a.jpg", "Is there an ox in the image?", "random/7")]) == ["No"]


def test_captions_by_coco_id_and_mmhal_by_name(tmp_path):
    captions = write(tmp_path / "c.json", {"sentences": [{"image_id": 42, "caption": "A dog."}]}, lines=False)
    name = "COCO_val2014_000000000042.jpg"
    assert answers(captions, [request(name, "Please describe this image in detail.", name)]) == ["A dog."]
    assert ReplayModel(str(captions), {}).recorded_images() == (name,)
    row = {"image_src": "https://x/y/z_o.jpg", "image_id": "f0", "question": "Who?", "model_answer": "No one."}
    mmhal = write(tmp_path / "m.json", [row], lines=False)
    assert answers(mmhal, [request("z_o.jpg", "Who?", "f0")]) == ["No one."]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ('["a", "b"]', "item 1 is no JSON object"),
        ('{"text": "a"', "truncated or corrupt in line 1"),
        ('[{"text": "a"}', "truncated or corrupt"),
        ('{"question_id": 1, "texxt": "a"}', "has no answer"),
        ('{"question_id": 1, "text": "a"}\n{"question_id": 1, "text": "b"}', "id 1 has two answers"),
        ('{"question_id": 99, "text": "a"}', "belongs to this benchmark"),
        ("\x00\xff", "truncated or corrupt"),
    ],
)
def test_bad_files_are_clear_errors(tmp_path, content, words):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(ModelError) as error:
        answers(file, [request("a.jpg", "q?", "random/1")])
    assert words in str(error.value)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ModelError, match="There is no file"):
        ReplayModel(str(tmp_path / "no.jsonl"), {})
