"""Real models' answers give the published figures, to the last digit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.conftest import bench, metrics, run_of


def run(tmp_path: Path, shared: Path, suite: str, answers: str, *more: str, code: int = 0) -> dict:
    model = f"replay:{shared / 'outputs' / answers}"
    done = bench(
        "run",
        "--model",
        model,
        "--suite",
        suite,
        "--data",
        shared,
        "--out",
        tmp_path,
        "--json",
        *more,
    )
    assert done.returncode == code, done.stderr
    return metrics(run_of(done))


def test_pope_of_llava_13b_is_what_its_model_zoo_publishes(tmp_path, shared):
    """LLaVA-1.5-13B's answer archive, random split of 2910 rows; tp/fp/tn/fn as counted by the
    official script."""
    measured = run(tmp_path, shared, "pope-2910", "pope_llava-v1.5-13b/answers.jsonl")
    counts = {
        "adversarial": (1182, 117, 1383, 318),
        "popular": (1182, 59, 1441, 318),
        "random": (1182, 31, 1379, 318),
    }
    for subset, (tp, fp, tn, fn) in counts.items():
        expected = {
            "accuracy": (tp + tn) / (tp + fp + tn + fn),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "yes_ratio": (tp + fp) / (tp + fp + tn + fn),
        }
        for name, value in expected.items():
            row = measured[name, subset]
            assert row["value"] == pytest.approx(value, abs=1e-12), (name, subset)
            assert row["low"] < row["value"] < row["high"]
            assert (row["n"], row["unscored"]) == (tp + fp + tn + fn, 0)
        assert measured["unparsed", subset]["value"] == 0
    published = {
        ("accuracy", "popular"): 0.874333,
        ("f1", "random"): 0.871360,
        ("f1", "adversarial"): 0.844587,
    }
    for key, value in published.items():
        assert round(measured[key]["value"], 6) == value
    assert round(100 * measured["f1", "mean"]["value"], 1) == 85.9
    assert ("auc", "all") not in measured, "recorded answers have no probabilities"


def test_pope_with_3000_random_rows_says_which_answers_are_missing(tmp_path, shared):
    model = f"replay:{shared}/outputs/pope_llava-v1.5-13b/answers.jsonl"
    done = bench(
        "run", "--model", model, "--suite", "pope", "--data", shared, "--out", tmp_path, "--json"
    )
    assert done.returncode == 3
    assert "90 unscored: no recorded answer" in done.stderr
    measured = metrics(run_of(done))
    assert (measured["accuracy", "random"]["n"], measured["accuracy", "random"]["unscored"]) == (
        2910,
        90,
    )
    assert round(measured["f1", "popular"]["value"], 6) == 0.862459


# Counted under RePOPE's labels, rows matched on image and question to the letter: TP, FP, TN, FN.
REPOPE = {
    "random": (1002, 49, 1375, 127),
    "popular": (1009, 64, 1458, 155),
    "adversarial": (1009, 104, 1367, 149),
}


def test_pope_answers_are_scored_under_corrected_labels(tmp_path, shared):
    """Without a model.

    The archive asks some questions with a slip of the pen ("imange"), and its random part is
    another draw. The figures leave these out, but for 5 that another part has; the bench knows the
    slip, and takes no other part's row.
    """
    archive = shared / "outputs" / "pope_llava-v1.5-13b"
    written = set()
    for line in (archive / "questions.jsonl").read_text().splitlines():
        row = json.loads(line)
        written.add((row["category"], row["image"], row["text"].split("\n")[0]))
    text_of = {}
    for subset in REPOPE:
        file = shared / "pope" / "repope" / f"coco_repope_{subset}.json"
        for row in map(json.loads, file.read_text().splitlines()):
            text_of[f"{subset}/{row['question_id']}"] = (subset, row["image"], row["text"])
    run(tmp_path, shared, "repope", f"{archive.name}/answers.jsonl", code=3)
    counts = {subset: [0, 0, 0, 0] for subset in REPOPE}
    for line in (tmp_path / "repope" / "scores.jsonl").read_text().splitlines():
        score = json.loads(line)
        if score["unscored"] or text_of[score["sample"]] not in written:
            continue
        values = score["values"]
        said, label = values["answer"] == "yes", values["label"] == "yes"
        cells = [(True, True), (True, False), (False, False), (False, True)]
        counts[score["subset"]][cells.index((said, label))] += 1
    assert counts["popular"] == list(REPOPE["popular"])
    assert counts["adversarial"] == list(REPOPE["adversarial"])
    of_other_parts = [a - b for a, b in zip(REPOPE["random"], counts["random"], strict=True)]
    assert sum(of_other_parts) == 5 and min(of_other_parts) >= 0
    done = bench("score", tmp_path / "repope", "--as", "pope")
    assert done.returncode == 2 and "bench run --model replay:" in done.stderr


def test_mmhal_of_llava_onevision_is_what_the_official_scorer_printed(tmp_path, shared):
    folder = shared / "outputs" / "mmhal_llava-onevision-0.5b"
    judge = ("--judge", f"replay:{folder / 'reviews.txt'}")
    measured = run(tmp_path, shared, "mmhal", f"{folder.name}/responses.json", *judge)
    assert round(measured["score", "all"]["value"], 4) == 2.0833
    assert measured["hallucination_rate", "all"]["value"] == 0.625
    types = "attribute adversarial comparison counting relation environment holistic other".split()
    by_type = [round(measured["score", name]["value"], 2) for name in types]
    assert by_type == [2.58, 1.50, 2.58, 1.17, 2.17, 2.00, 2.17, 2.50]
    assert measured["unrated", "all"]["value"] == 0
    low, high = (measured["score", "all"][end] for end in ("low", "high"))
    assert low < 2.0833 < high and high - low > 0.5, "96 questions do not buy a narrow interval"


@pytest.mark.parametrize(
    ("file", "chair_s", "chair_i", "recall"),
    [
        ("beam-search-eval-chair-300_answer.json", 0.24333, 0.067599, 0.621593),
        ("sampling-decoding-eval-chair-300_answer.json", 0.29000, 0.097028, 0.603774),
    ],
)
class TestChair:
    def test_raw_captions_agree_with_the_official_rows(
        self, tmp_path, shared, file, chair_s, chair_i, recall
    ):
        """Own lemmas from raw captions: at least 97 % of captions, and within one point overall."""
        measured = run(tmp_path, shared, "chair", f"chair_objhal/{file}")
        for name, value in (("chair_s", chair_s), ("chair_i", chair_i), ("recall", recall)):
            assert measured[name, "all"]["value"] == pytest.approx(value, abs=0.01)
        rows = json.loads((shared / "outputs" / "chair_objhal" / file).read_text())["sentences"]
        scores = [
            json.loads(line)
            for line in (tmp_path / "chair" / "scores.jsonl").read_text().splitlines()
        ]
        mine = {int(score["sample"][-16:-4]): set(score["values"]["mentioned"]) for score in scores}
        agreeing = sum(mine[row["image_id"]] == set(row["mscoco_generated_words"]) for row in rows)
        assert agreeing >= 0.97 * len(rows) == 291

    def test_the_rule_on_recorded_words_is_exact(self, shared, file, chair_s, chair_i, recall):
        from bench.benchmarks.chair import SYNONYMS, caption_values
        from bench.language.object_mentions import categories_in, read_synonyms

        synonyms = read_synonyms((shared / SYNONYMS).read_text())
        rows = json.loads((shared / "outputs" / "chair_objhal" / file).read_text())["sentences"]
        values = []
        for row in rows:
            measured = categories_in(row["words"], synonyms)
            assert measured == row["mscoco_generated_words"]
            values.append(caption_values(measured, row["mscoco_gt_words"]))
        hallucinated = sum(len(v["hallucinated"]) for v in values)
        assert round(hallucinated / sum(len(v["mentioned"]) for v in values), 6) == chair_i
        assert round(sum(v["any_hallucination"] for v in values) / len(values), 5) == chair_s
        assert (
            round(sum(v["found"] for v in values) / sum(v["objects"] for v in values), 6) == recall
        )


def test_chair_of_llava_7b_from_its_recorded_objects(shared):
    """The metric's arithmetic on another tool's matches: its published CHAIRs, CHAIRi and recall.
    The metric's arithmetic on another tool's matches: its published CHAIRs, CHAIRi and recall."""
    from bench.benchmarks.chair import CHAIR, caption_values
    from bench.types import Score

    rows = json.loads(
        (shared / "outputs" / "chair_llava-1.5-7b" / "chair_seed1_predictions.json").read_text()
    )
    scores = [
        Score(
            row["image"],
            "all",
            row["image"],
            caption_values(row["mentioned_objects"], row["gt_objects"])
            | {"length": len(row["model_answer"].split())},
        )
        for row in rows
    ]
    measured = {metric.name: metric.value for metric in CHAIR.metrics(scores)}
    assert measured.pop("chair_i_once") > 0
    assert measured == pytest.approx(
        {
            "chair_s": 0.44,
            "chair_i": 0.17152542372881355,
            "recall": 0.7332854061826024,
            "length": 76.746,
        }
    )


def test_every_number_of_the_data_folder_is_counted(shared):
    """`bench data check` on the official files: 9,000 rows are 5,127 questions about 500 images."""
    done = bench("data", "check", shared, "--suite", "pope,mmhal,amber")
    assert (
        "pope: 9000 samples (random 3000, popular 3000, adversarial 3000), 5127 distinct, 500 images"
        in done.stdout
    )
    assert "mmhal: 96 samples" in done.stdout and "84 of 96 images are missing" in done.stdout
    assert "generative:relation-only 1004" in done.stdout or "generative 1004" in done.stdout
    assert done.returncode == 2, "the photographs are not there"
    assert "officially" not in done.stdout and "not asked about" not in done.stdout


def test_a_rescored_run_gives_the_same_metrics(tmp_path, shared):
    before = run(tmp_path, shared, "pope-2910", "pope_llava-v1.5-13b/answers.jsonl")
    (tmp_path / "pope-2910" / "metrics.json").unlink()
    done = bench("score", tmp_path / "pope-2910", "--json")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "pope-2910") == before
    assert not any(math.isnan(row["value"]) for row in before.values() if row["value"] is not None)
