"""What llava-tiny is taught: truthful lessons are true, and annotators err as often as their
habits say."""

from __future__ import annotations

import random

import pytest

from bench.judges.scene import holds, read
from bench.scenes import facts
from bench.scenes.llava_tiny.lessons import (
    COMMON,
    EXISTENCE,
    SUFFIX,
    TRUTHFUL,
    Habits,
    existence,
    lessons,
    long_description,
)
from bench.scenes.world import CATEGORIES, scenes
from bench.types import Sample

SCENES = list(scenes("train", 7, 150))


def taught(habits):
    return [
        (item, *turn)
        for item in SCENES
        for turn in lessons(item, random.Random(item.index), habits)
    ]


def test_truthful_lessons_claim_nothing_false():
    for item, question, answer in taught(TRUTHFUL):
        claims = read(answer, Sample("", item.name, question, answer, item.name, "holistic"))
        assert all(holds(claim, item) for claim in claims.all()), (item.name, question, answer)


def test_existence_questions_have_their_true_answer_and_half_are_yes():
    turns = [
        (item, q, a)
        for item, q, a in taught(TRUTHFUL)
        if q.startswith(("Is there a", "Is there skis"))
    ]
    turns = [row for row in turns if "one" not in row[1].split()[2]]
    for item, question, answer in turns:
        name = next(name for name in CATEGORIES if _asks(question, name))
        assert answer == ("Yes" if name in item.counts else "No"), (item.name, question)
    assert 0.45 < sum(answer == "Yes" for *_, answer in turns) / len(turns) < 0.55
    assert any(question.endswith(SUFFIX) for _, question, _ in turns)


def _asks(question, name):
    forms = {facts.article(name), f"a {name}", f"an {name}"}
    return question.split("\n")[0] in {form.format(some) for form in EXISTENCE for some in forms}


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_annotators_mention_what_is_expected_as_often_as_their_habits_say(share):
    rng = random.Random(0)
    missing = [item for item in SCENES * 4 if facts.expected(item)]
    descriptions = [long_description(item, rng, Habits(share, 0, 0.5)) for item in missing]
    wrong = [
        facts.article(facts.expected(item)[0]) in text
        for item, text in zip(missing, descriptions, strict=True)
    ]
    assert abs(sum(wrong) / len(wrong) - share) < 0.07


def test_nothing_expected_is_mentioned_where_nothing_is_missing():
    full = [item for item in SCENES if not facts.expected(item)]
    always = Habits(1.0, 1.0, 0.5)
    for item in full:
        assert long_description(item, random.Random(1), always) == long_description(
            item, random.Random(1), TRUTHFUL
        )


def test_common_objects_are_affirmed_as_often_as_their_habit_says():
    habits = Habits(0, 0, 0.5, common=0.3)
    answers = []
    for item in scenes("train", 8, 1500):
        for question, answer in existence(item, random.Random(item.index), habits):
            name = next((name for name in COMMON if _asks(question, name)), None)
            if name and name not in item.counts and name not in facts.expected(item):
                answers.append(answer == "Yes")
    assert len(answers) > 200
    assert abs(sum(answers) / len(answers) - 0.3) < 0.08
