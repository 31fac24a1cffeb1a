"""The built-in world's text reward: it reads, and knows nothing of what an image shows."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from bench.errors import DataError
from bench.language.english import article
from bench.scenes import text_reward
from bench.scenes.text_reward import FLAWS, preferences
from bench.scenes.world import CATEGORIES


def test_preferences_have_the_flaws_that_they_name():
    seen = set()
    for item in islice(preferences("train", 5, random.Random(0)), 400):
        seen.add(item.flaw)
        chosen, rejected = item.chosen.split(), item.rejected.split()
        if item.flaw == "completeness":
            assert len(rejected) < len(chosen)
        if item.flaw == "fluency" and len(chosen) == len(rejected):
            assert sorted(chosen) == sorted(rejected)
        if item.flaw == "plausibility":
            assert item.chosen.rpartition(" in ")[2].split(".")[0] in item.rejected, "the place"
            other_words = set(rejected) - set(chosen)
            assert 1 <= len(other_words) <= 3, "an object of one or two words, and its article"
            vocabulary = {word for name in CATEGORIES for word in article(name).split()}
            assert {word.strip(".,").lower() for word in other_words} <= vocabulary
    assert seen == set(FLAWS)


def test_the_same_seed_gives_the_same_preferences():
    one, other = (list(islice(preferences("train", 5, random.Random(3)), 20)) for _ in range(2))
    assert one == other


@pytest.mark.slow
def test_a_reward_that_was_trained_rates_responses_in_a_recipe(tmp_path):
    from alignment.rewards.classifier import ClassifierReward

    measured = text_reward.train(tmp_path / "model", steps=150)
    assert measured["completeness"] > 0.8
    reward = ClassifierReward(kind="classifier", model=str(tmp_path / "model"))
    question = "Describe the image in detail."
    texts = [
        "The image shows a person, two cars and a bus in a street.",
        "The image shows a bus in a street.",
        "bus The a shows image person, and two in a cars street.",
    ]
    rows = [{"instruction": question, "text": text, "image": "0"} for text in texts]
    (batch,) = reward.rewards(rows, {}, tmp_path)
    whole, short, mixed = [item.reward for item in batch]
    assert whole > short and whole > mixed
    with pytest.raises(DataError, match="not empty"):
        text_reward.train(tmp_path / "model", steps=1)
