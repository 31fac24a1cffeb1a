"""examples.png: two pictures with answers, the most telling ones, whatever the answers hold."""

from __future__ import annotations

from PIL import Image

from bench.store import RunFolder
from bench.types import Answer, Request, Sample, Score
from reports.examples import write_examples
from tests.conftest import draw


def run_with(tmp_path, said):
    """A run folder over pictures 0, 1, …; `said` has per picture a list of (answer, correct)."""
    store = RunFolder(tmp_path / "run")
    samples, requests, scores = [], [], []
    with store.locked():
        for picture, answers in enumerate(said):
            path = draw(tmp_path / f"{picture}.png", picture)
            for number, (text, correct) in enumerate(answers):
                name = f"{picture}/{number}"
                samples.append(Sample(name, path.name, f"Question {name}?", ["a", "b"], path.name, "all"))
                requests.append(Request(name, path.name, path, "?", "?", 8, False, (name,)))
                scores.append(Score(name, "all", path.name, {"correct": correct}))
                store.append_answers([(requests[-1], Answer(text), None)])
        store.write_results(scores, [])
    return store, samples, requests


def test_pictures_with_both_right_and_wrong_answers_come_first(tmp_path, monkeypatch):
    from reports import examples

    seen = []
    panel = examples._panel
    monkeypatch.setattr(examples, "_panel", lambda path, shown: seen.append(path.name) or panel(path, shown))
    both, right = [("x", True), ("y", False)], [("x", True), ("y", True)]
    file = write_examples(*run_with(tmp_path, [right, both, right, both]))
    assert seen == ["1.png", "3.png"]
    with Image.open(file) as sheet:
        assert sheet.height >= 2 * (examples.SIDE * 60 // 90)


def test_long_hostile_and_strange_answers_are_drawn(tmp_path):
    texts = ["<script>alert(1)</script>" * 90, "\x00\u202e\U0001f600 \ud800", "", "no\nline\nends " * 40]
    assert write_examples(*run_with(tmp_path, [[(text, False) for text in texts]])) is not None


def test_a_run_without_scores_or_pictures_has_none(tmp_path):
    store, samples, requests = run_with(tmp_path, [[("x", True)]])
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert write_examples(store, samples, requests) is None
    store.write_results([], [])
    assert write_examples(store, samples, requests) is None
