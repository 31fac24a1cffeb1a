"""examples.png: pictures with answers, the most telling ones, whatever the answers hold."""

from __future__ import annotations

from PIL import Image

from bench.data.picture_sheet import GAP, PANEL_WIDTH
from bench.runs.run import Run
from bench.runs.store import RunFolder
from bench.types import Answer, Request, Sample, Score
from reports.examples import write_examples
from tests.conftest import bench, draw
from tests.recorded_runs import RECORD


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
                values = {"correct": correct, "answer": "yes", "label": "yes", "p_yes": None}
                scores.append(Score(name, "all", path.name, values))
                store.append_answers([(requests[-1], Answer(text), None)])
        store.begin(RECORD)
        store.write_results(store.record(), scores, [])
    return Run(store.path), samples, requests


def colour_of(path):
    """The background of a picture that `draw` made: the colour of its upper left corner."""
    with Image.open(path) as image:
        return image.convert("RGB").getpixel((0, 0))


def test_pictures_with_both_right_and_wrong_answers_come_first(tmp_path):
    both, right = [("x", True), ("y", False)], [("x", True), ("y", True)]
    file = write_examples(*run_with(tmp_path, [right, both, right, both]))
    colours = [colour_of(tmp_path / f"{number}.png") for number in (1, 3, 0, 2)]
    with Image.open(file) as sheet:
        assert sheet.width == 2 * PANEL_WIDTH
        columns = []
        for left in (0, PANEL_WIDTH):
            columns.append([sheet.getpixel((left + GAP + 2, y)) for y in range(sheet.height)])
    assert colours[0] in columns[0] and colours[1] in columns[1], "two columns, in the first row"
    assert columns[0].index(colours[0]) < columns[0].index(colours[2])
    assert columns[1].index(colours[1]) < columns[1].index(colours[3])


def test_only_the_false_part_of_an_answer_is_marked(tmp_path):
    """A line of the colour for what is false, as long as the word, and no other."""
    from bench.data.picture_sheet import BAD, Panel, Paragraph, picture_sheet

    picture = draw(tmp_path / "a.png", 0)
    marked = Paragraph("A dog and two forks.", marked=["fork"])
    sheet = picture_sheet("t", "s", [Panel(picture, [marked])])
    plain = picture_sheet("t", "s", [Panel(picture, [Paragraph("A dog and two forks.")])])
    of_the_mark = [x for x in range(sheet.width) if BAD in column_of(sheet, x)]
    assert 20 < of_the_mark[-1] - of_the_mark[0] < 60, "one word of five letters"
    assert not any(BAD in column_of(plain, x) for x in range(plain.width))


def column_of(image, x):
    return {image.getpixel((x, y)) for y in range(image.height)}


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
