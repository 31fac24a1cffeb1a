"""The built-in world's CLIP is one of transformers', which the reward loads."""

from __future__ import annotations

import pytest

from alignment.rewards.clip import ClipReward
from alignment.rows import ImageFile
from bench.errors import DataError
from bench.scenes import image_text
from bench.scenes.render import render
from bench.scenes.world import scene


def test_a_small_one_is_loaded_by_the_reward_and_reads_whole_sentences(tmp_path):
    folder = tmp_path / "model"
    assert 0 <= image_text.train(folder, steps=2, pictures=8, checked=20) <= 1
    item = scene("validation", 0, 3)
    render(item).save(tmp_path / "0.png")
    reward = ClipReward(kind="clip", model=str(folder))
    texts = ["There is a dog.", "There is a dog. There is a cat.", "There is a cat."]
    rows = [{"instruction": "?", "text": text, "image": "0"} for text in texts]
    (batch,) = reward.rewards(rows, {"0": ImageFile(tmp_path / "0.png", "0")}, tmp_path)
    dog, both, cat = [rated.reward for rated in batch]
    assert both == pytest.approx((dog + cat) / 2) and dog != cat
    with pytest.raises(DataError, match="not empty"):
        image_text.train(folder, steps=1)
