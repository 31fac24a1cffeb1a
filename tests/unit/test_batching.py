"""Which requests are computed together, and that several threads may prepare them."""

from __future__ import annotations

import pytest

from bench.models.batching import images_between, plan
from bench.models.hf import READ_AHEAD, HFModel
from bench.types import Request
from tests.conftest import draw
from tests.unit.test_shared_image import answers_of, requests_for


def request(number: int, image: str, yes_no: bool = True, max_tokens: int = 5) -> Request:
    return Request(f"{number}", image, None, "q", "q", max_tokens, yes_no, ())


def test_images_are_split_where_they_have_more_questions_than_fit():
    requests = [request(number, "a.png") for number in range(10)]
    batches = plan(requests, 4)
    assert [[len(group) for group in batch] for batch in batches] == [[4], [4], [2]]
    assert [one.key for batch in batches for group in batch for one in group] == [
        one.key for one in requests
    ]


def test_descriptions_are_batched_over_the_whole_run():
    """As AMBER asks: a description and some questions about each of 1,004 images in turn."""
    requests = []
    for image in range(1004):
        requests.append(request(len(requests), f"{image}.png", False, 512))
        for _ in range(3):
            requests.append(request(len(requests), f"{image}.png"))
    batches = plan(requests, 64)
    descriptions = [batch for batch in batches if not batch[0][0].yes_no]
    assert len(descriptions) == 32  # ⌈1004 / 32⌉
    assert len(batches) - len(descriptions) == 48  # 21 images of three questions in each
    planned = []
    for batch in batches:
        kinds = {(one.yes_no, one.max_tokens) for group in batch for one in group}
        assert len(kinds) == 1
        planned += [int(one.key) for group in batch for one in group]
    assert sorted(planned) == list(range(len(requests)))
    first = [int(batch[0][0].key) for batch in batches]
    assert first == sorted(first)
    assert images_between(batches, 0, len(batches)) == 2 * 1004


@pytest.mark.parametrize("limits", [(5, 9), (9, 5)])
def test_answers_of_other_lengths_are_bounded_apart(tiny, tmp_path, limits):
    path = draw(tmp_path / "a.png", 1)
    text = "Describe this image in detail."
    requests = [
        Request(f"{limit}", path.name, path, text, text, limit, False, ()) for limit in limits
    ]
    answers = answers_of(HFModel(str(tiny("gemma3")), {}), requests)
    for limit in limits:
        answer = answers[f"{limit}"]
        assert answer.tokens == limit or answer.finish == "stop"
    short, long = answers["5"], answers["9"]
    assert long.text.startswith(short.text) and long.tokens > short.tokens


@pytest.mark.parametrize("kind", ["gemma3", "paligemma", "qwen2_5_vl"])
def test_threads_that_prepare_do_not_disturb_each_other(tiny, tmp_path, kind):
    """Six runs: a tokenizer shared by threads has ended most runs with an error."""
    requests = requests_for(tmp_path, images=READ_AHEAD, max_tokens=2)
    model = HFModel(str(tiny(kind)), {})
    model.max_prompts = 8
    first = answers_of(model, requests)
    assert not any(answer.error for answer in first.values())
    for _ in range(5):
        again = answers_of(model, requests)
        assert [again[key].text for key in first] == [first[key].text for key in first]
