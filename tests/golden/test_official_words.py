"""CHAIR and AMBER with NLTK 3.9.1 are the official scorers: to the word, and to the last digit.

`tox -e official` runs these with NLTK; they need its data from the shared folder.
"""

from __future__ import annotations

import json

import pytest

from bench.benchmarks.amber import Amber, nltk_relation_only, relation_only
from bench.benchmarks.chair import BUILT_IN, OFFICIAL, SYNONYMS
from bench.data.folder import Folder
from bench.language import nltk_words
from bench.language.object_mentions import categories_in, read_synonyms
from bench.types import Answer
from tests.conftest import bench_process, metrics, run_of

FILES = ("beam-search-eval-chair-300_answer.json", "sampling-decoding-eval-chair-300_answer.json")


@pytest.fixture(autouse=True)
def nltk_data(shared, monkeypatch):
    nltk = pytest.importorskip("nltk", reason="needs NLTK: tox -e official")
    folder = str(shared / "nltk_data")
    monkeypatch.setattr(nltk.data, "path", [folder])
    monkeypatch.setenv("NLTK_DATA", folder)
    assert nltk_words.what_is_missing() is None


def rows_of(shared, file):
    return json.loads((shared / "outputs" / "chair_objhal" / file).read_text())["sentences"]


@pytest.mark.parametrize("file", FILES)
def test_every_caption_has_the_official_words(shared, file):
    synonyms = read_synonyms((shared / SYNONYMS).read_text())
    for row in rows_of(shared, file):
        words = OFFICIAL.words(row["caption"])
        assert words == row["words"]
        assert categories_in(words, synonyms) == row["mscoco_generated_words"]


@pytest.mark.parametrize(
    ("file", "chair_s", "chair_i", "recall"),
    [
        (f"chair_objhal/{FILES[0]}", 0.24333, 0.067599, 0.621593),
        (f"chair_objhal/{FILES[1]}", 0.29, 0.097028, 0.603774),
        ("chair_llava-1.5-7b/chair_seed1_predictions.json", 0.416, 0.13399, 0.70267),
    ],
)
def test_a_run_gives_the_official_figures(tmp_path, shared, file, chair_s, chair_i, recall):
    done = bench_process(
        "run",
        "--model",
        f"replay:{shared / 'outputs' / file}",
        "--suite",
        "chair",
        "--data",
        shared,
        "--out",
        tmp_path,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    measured = metrics(run_of(done))
    expected = {"chair_s": chair_s, "chair_i": chair_i, "recall": recall}
    for name, value in expected.items():
        digits = len(str(value)) - 2
        assert round(measured[name, "all"]["value"], digits) == value, name
        assert not any("lemmatiser" in text for text in measured[name, "all"]["caveats"])
    record = json.loads((tmp_path / "chair" / "run.json").read_text())
    assert record["benchmark"]["version"] == "2-official"


def test_each_object_counts_once_beside_the_official_figure(tmp_path, shared):
    file = shared / "outputs" / "chair_objhal" / FILES[0]
    done = bench_process(
        "run", "--model", f"replay:{file}", "--suite", "chair", "--data", shared, "--out",
        tmp_path, "--json",
    )  # fmt: skip
    rows = rows_of(shared, FILES[0])
    named = sum(len(set(row["mscoco_generated_words"])) for row in rows)
    true = sum(len({*row["mscoco_generated_words"]} & {*row["mscoco_gt_words"]}) for row in rows)
    measured = metrics(run_of(done))["chair_i_once", "all"]["value"]
    assert measured == pytest.approx(1 - true / named)


def test_the_built_in_words_differ_on_few_captions(shared):
    """The men of chair.py are no people: WordNet has a noun of that form."""
    assert OFFICIAL.words("Two men.")[1] == BUILT_IN.words("Two men.")[1] == "men"
    synonyms = read_synonyms((shared / SYNONYMS).read_text())
    differing = captions = 0
    for file in FILES:
        for row in rows_of(shared, file):
            captions += 1
            mine = categories_in(BUILT_IN.words(row["caption"]), synonyms)
            differing += sorted(mine) != sorted(row["mscoco_generated_words"])
    assert captions == 600 and differing <= 12


def test_amber_names_the_rule_that_it_has(shared):
    """With NLTK, without spaCy's vectors: nouns as officially, likeness by relation.json alone."""
    benchmark = Amber("amber-generative", "AMBER", discriminative=False, naming=nltk_relation_only)
    assert benchmark.version == "2-nltk-relation-only"
    sample = benchmark.samples(Folder(shared))[0]
    assert sample.subset == "generative:nltk-relation-only"
    score = benchmark.score(sample, Answer("A man can sit on a light blue table."), None)
    assert score.values["named"] == ["man", "table"]
    (chair, *_) = benchmark.metrics([score])
    assert chair.caveats == ("AMBER's rule without word vectors, not the official one",)
    # NLTK's tagger takes every can for a modal verb, and so does the built-in rule.
    for naming in (relation_only(), nltk_relation_only()):
        assert naming.nouns("They can see a can.", frozenset({"can"})) == []
