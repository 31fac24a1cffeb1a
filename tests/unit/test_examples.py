"""examples.png: two pictures with answers, the most telling ones, whatever the answers hold."""

from __future__ import annotations

from PIL import Image

from bench.runs.run import Run
from bench.runs.store import RunFolder
from bench.types import Answer, Request, Sample, Score
from reports.examples import MARGIN, write_examples
from tests.conftest import bench, draw


def run_with(tmp_path, answers_by_image):
    """A run folder over pictures 0, 1, …; `said` has per picture a list of (answer, correct)."""
    store = RunFolder(tmp_path / "run")
    samples, requests, scores = [], [], []
    with store.locked():
        for image_index, answers in enumerate(answers_by_image):
            path = draw(tmp_path / f"{image_index}.png", image_index)
            for number, (text, correct) in enumerate(answers):
                name = f"{image_index}/{number}"
                samples.append(
                    Sample(name, path.name, f"Question {name}?", ["a", "b"], path.name, "all")
                )
                requests.append(Request(name, path.name, path, "?", "?", 8, False, (name,)))
                scores.append(Score(name, "all", path.name, {"correct": correct}))
                store.append_answers([(requests[-1], Answer(text), None)])
        store.begin({"judge": None})
        store.write_results(store.record(), scores, [])
    return Run(store.path), samples, requests


def colour_of(path):
    """The background of a picture that `draw` made: the colour of its upper left corner."""
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((0, 0))


def test_pictures_with_both_right_and_wrong_answers_come_first(tmp_path):
    both, right = [("x", True), ("y", False)], [("x", True), ("y", True)]
    file = write_examples(*run_with(tmp_path, [right, both, right, both]))
    with Image.open(file) as sheet:
        column = [sheet.getpixel((MARGIN + 2, y)) for y in range(sheet.height)]
    first, second = colour_of(tmp_path / "1.png"), colour_of(tmp_path / "3.png")
    assert column.index(first) < column.index(second)
    assert colour_of(tmp_path / "0.png") not in column
    assert colour_of(tmp_path / "2.png") not in column


def test_long_hostile_and_strange_answers_are_drawn(tmp_path):
    texts = [
        "<script>alert(1)</script>" * 90,
        "\x00\u202e\U0001f600 \ud800",
        "",
        "no\nline\nends " * 40,
    ]
    assert write_examples(*run_with(tmp_path, [[(text, False) for text in texts]])) is not None


def test_a_run_without_scores_or_pictures_has_none(tmp_path):
    run, samples, requests = run_with(tmp_path, [[("x", True)]])
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert write_examples(run, samples, requests) is None
    run.store.write_results(run.record, [], [])
    assert write_examples(Run(run.folder), samples, requests) is None


def test_pictures_that_cannot_be_written_cost_no_figures(tmp_path):
    (tmp_path / "pope" / "examples.png").mkdir(parents=True)
    words = ("--suite", "pope", "--data", "scenes", "--limit", 6, "--out", tmp_path)
    done = bench("run", "--model", "llava-tiny", *words)
    assert done.returncode == 0, done.stderr
    assert "pope: no pictures:" in done.stderr and "accuracy" in done.stdout
