"""HallusionBench and MME's hallucination part, against second readings of their scripts."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from bench.benchmarks.hallusionbench import HALLUSION_BENCH, QUESTIONS
from bench.benchmarks.mme import MME, TASKS
from bench.data.folder import Folder
from bench.errors import DataError
from bench.metrics.paired import paired
from bench.types import Answer

HALLUSION_ROW = {
    "category": "VD",
    "subcategory": "figure",
    "visual_input": "1",
    "set_id": "0",
    "figure_id": "0",
    "question_id": "0",
    "question": "Is it?",
    "gt_answer": "1",
    "filename": "./hallusion_bench/VD/figure/0_0.png",
}


def hallusion_rows(rng):
    """Sets of up to three versions of a figure with up to three questions, and some without."""
    rows = []
    for category in ("VD", "VS"):
        for number in range(12):
            for figure in range(rng.randint(1, 3)):
                for question in range(rng.randint(1, 3)):
                    rows.append(
                        HALLUSION_ROW
                        | {
                            "category": category,
                            "subcategory": rng.choice(["map", "chart"]) if number % 2 else "map",
                            "visual_input": "0" if category == "VS" and figure == 0 else "1",
                            "set_id": str(number),
                            "figure_id": str(figure),
                            "question_id": str(question),
                            "gt_answer": rng.choice("01"),
                        }
                    )
    unique = {}
    for row in rows:
        names = ("category", "subcategory", "set_id", "figure_id", "question_id")
        unique[tuple(row[name] for name in names)] = row
    return list(unique.values())


def by_script(rows, answers):
    """aAcc, fAcc and qAcc in percent, from the counting dictionaries of the official utils.py."""
    figures, pairs, right, total = {}, {}, 0, 0
    for row in rows:
        if row["visual_input"] == "0":
            continue
        figure = "_".join([row["category"], row["subcategory"], row["set_id"], row["figure_id"]])
        pair = "_".join([row["category"], row["subcategory"], row["set_id"], row["question_id"]])
        correct = int(answers[f"{figure}_{row['question_id']}"] == row["gt_answer"])
        for table, name in ((figures, figure), (pairs, pair)):
            c, t = table.get(name, (0, 0))
            table[name] = (c + correct, t + 1)
        right += correct
        total += 1

    def whole(table):
        return sum(c == t for c, t in table.values()) / len(table)

    return right / total, whole(figures), whole(pairs)


def test_hallusionbench_counts_questions_figures_and_pairs_as_its_script(tmp_path):
    rng = random.Random(0)
    rows = hallusion_rows(rng)
    file = tmp_path / QUESTIONS
    file.parent.mkdir()
    file.write_text(json.dumps(rows))
    samples = HALLUSION_BENCH.samples(Folder(tmp_path))
    said, answers, scores = {}, {}, []
    for sample in samples:
        yes = rng.random() < 0.8 if sample.reference == "yes" else rng.random() < 0.2
        said[sample.id] = "1" if yes else "0"
        answers[sample.id] = "Yes, it is." if yes else "no"
        scores.append(HALLUSION_BENCH.score(sample, Answer(answers[sample.id]), None))
    measured = {(m.name, m.subset): m.value for m in HALLUSION_BENCH.metrics(scores)}
    for subset, part in (("all", rows), ("VD", [r for r in rows if r["category"] == "VD"])):
        expected = by_script(part, said)
        found = [measured[name, subset] for name in ("aacc", "facc", "qacc")]
        assert found == pytest.approx(expected)
    assert 0.1 < measured["qacc", "all"] < measured["aacc", "all"] < 1
    unreadable = HALLUSION_BENCH.score(samples[0], Answer("Yes and no."), None)
    assert unreadable.values["unparsed"] and not unreadable.values["correct"]
    # Two models are compared by the same statistic, paired by set of figures.
    better = [HALLUSION_BENCH.score(s, Answer(s.reference), None) for s in samples]
    for figure in HALLUSION_BENCH.figures:
        row = paired(figure, {s.sample: s for s in scores}, {s.sample: s for s in better})
        assert row.second.value == 1
        assert row.difference.value == pytest.approx(1 - measured[figure.metric, "all"])


def test_a_figure_lies_where_the_release_has_it(tmp_path):
    other = {"category": "VS", "subcategory": "map"}
    other["filename"] = "./hallusion_bench/VS/map/0_0.png"
    rows = [HALLUSION_ROW, HALLUSION_ROW | other]
    file = tmp_path / QUESTIONS
    file.parent.mkdir()
    file.write_text(json.dumps(rows))
    for folder, colour in (("VD/figure", "red"), ("VS/map", "blue")):
        (tmp_path / "images" / "hallusion_bench" / folder).mkdir(parents=True)
        place = tmp_path / "images" / "hallusion_bench" / folder / "0_0.png"
        Image.new("RGB", (8, 8), colour).save(place)
    data = Folder(tmp_path)
    found = [data.image(s.image, "hallusionbench") for s in HALLUSION_BENCH.samples(data)]
    assert [path.parent.name for path in found] == ["figure", "map"]
    assert data.image("VS/chart/0_0.png", "hallusionbench") is None, "never another one's"


def test_a_row_that_is_not_as_published_is_told(tmp_path):
    file = tmp_path / QUESTIONS
    file.parent.mkdir()
    file.write_text(json.dumps([HALLUSION_ROW | {"gt_answer": "yes"}]))
    with pytest.raises(DataError, match="the answer 'yes'"):
        HALLUSION_BENCH.samples(Folder(tmp_path))


def test_mme_scores_are_those_of_its_calculation(tmp_path):
    """acc + acc_plus in percent, over pairs of lines, from the control flow of calculation.py."""
    rng = random.Random(1)
    for task in TASKS:
        folder = tmp_path / "mme" / task
        folder.mkdir(parents=True)
        for number in range(15):
            text = f"Is it {task}? Please answer yes or no.\tYes\nIs it not?\tNo\n"
            (folder / f"{number:04d}.txt").write_text(text)
    samples = MME.samples(Folder(tmp_path))
    assert len(samples) == 4 * 15 * 2
    texts = ["Yes", "No", "yes.", "No, there is not", "Unsure", "I see no dog", "Ye"]
    answers = {sample.id: rng.choice(texts) for sample in samples}
    scores = [MME.score(sample, Answer(answers[sample.id]), None) for sample in samples]
    measured = {(m.name, m.subset): m for m in MME.metrics(scores)}
    total = 0.0
    for task in TASKS:
        right = plus = 0
        for number in range(15):
            marks = []
            for line, label in ((1, "yes"), (2, "no")):
                text = answers[f"{task}/{number:04d}/{line}"].lower()
                read = text if text in ("yes", "no") else "other"
                if read == "other":
                    read = "yes" if "yes" in text[:4] else "no" if "no" in text[:4] else "other"
                marks.append(read == label)
            right += sum(marks)
            plus += all(marks)
        score = 100 * right / 30 + 100 * plus / 15
        assert measured["score", task].value == pytest.approx(score)
        total += score
    assert measured["score", "all"].value == pytest.approx(total)
    assert measured["score", "all"].caveats == ()


def test_mme_without_a_task_says_so_and_garbage_is_told(tmp_path):
    folder = tmp_path / "mme" / "count"
    folder.mkdir(parents=True)
    (folder / "1.txt").write_text("Is it?\tYes\nIs it not?\tNo\n")
    samples = MME.samples(Folder(tmp_path))
    scores = [MME.score(sample, Answer("Yes"), None) for sample in samples]
    (whole,) = [m for m in MME.metrics(scores) if (m.name, m.subset) == ("score", "all")]
    assert whole.value == 50 and whole.caveats == ("without MME's existence, position, color",)
    (folder / "2.txt").write_text("Is it? Yes\n")
    with pytest.raises(DataError, match="two lines of a question"):
        MME.samples(Folder(tmp_path))
    with pytest.raises(DataError, match="has no question of MME"):
        MME.samples(Folder(tmp_path / "nothing"))
