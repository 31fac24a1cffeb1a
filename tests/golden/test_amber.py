"""AMBER on its real annotations, against a second reading of the official script's rules."""

from __future__ import annotations

import json
import random

import pytest

from bench.benchmarks.amber import Amber, Naming, question_values, relation_only
from bench.data.folder import Folder
from bench.language.object_mentions import nouns
from bench.types import Answer


def near(noun: str, word: str) -> bool:
    """A likeness for the test: the same first three letters (spaCy's vectors are a download)."""
    return noun[:3] == word[:3]


def split_nouns(text: str, vocabulary: frozenset[str]) -> list[str]:
    return [word for word in text.split() if word in vocabulary]


def second_reading(responses, shared, similar):
    """CHAIR, Cover, Hal and Cog in percent, written down from inference.py's control flow: flags
    over flat lists."""
    relation = json.loads((shared / "amber" / "relation.json").read_text())
    safe = (shared / "amber" / "safe_words.txt").read_text().split("\n")
    truth = {
        row["id"]: row for row in json.loads((shared / "amber" / "annotations.json").read_text())
    }
    vocabulary = set(relation) | {word for words in relation.values() for word in words}
    sums = dict.fromkeys(
        ("flagged", "named", "cover", "objects", "cog", "likely", "clean", "all"), 0
    )
    for number, text in responses.items():
        named = [word for word in text.split() if word in vocabulary]
        lists = {}
        for kind in ("truth", "hallu"):
            annotated = truth[number][kind]
            words, owner = [], []
            for index, item in enumerate(annotated):
                words += relation[item]
                owner += [index] * len(relation[item])
            lists[kind] = (
                words + annotated,
                owner + list(range(len(annotated))),
                [0] * len(annotated),
            )
        flags = [0] * len(named)
        for noun_index, noun in enumerate(named):
            if noun in safe:
                continue
            words, owner, hit = lists["truth"]
            if noun in words:
                hit[owner[words.index(noun)]] = 1
                continue
            words, owner, hit = lists["hallu"]
            if noun in words:
                hit[owner[words.index(noun)]] = 1
            for index, word in enumerate(words):
                if similar(noun, word):
                    hit[owner[index]] = 1
                    break
            words, owner, hit = lists["truth"]
            for index, word in enumerate(words):
                if similar(noun, word):
                    hit[owner[index]] = 1
                    break
            else:
                flags[noun_index] = 1
        sums["flagged"] += sum(flags)
        sums["named"] += len(flags)
        sums["cover"] += sum(lists["truth"][2])
        sums["objects"] += len(lists["truth"][2])
        sums["cog"] += sum(lists["hallu"][2])
        sums["likely"] += len(lists["hallu"][2])
        sums["clean"] += not any(flags)
        sums["all"] += 1
    return {
        "chair": round(100 * sums["flagged"] / (sums["named"] + 0.001), 1),
        "cover": round(100 * sums["cover"] / (sums["objects"] + 0.001), 1),
        "hal": round(100 - 100 * sums["clean"] / (sums["all"] + 0.001), 1),
        "cog": round(100 * sums["cog"] / (sums["likely"] + 0.001), 1),
    }


@pytest.mark.parametrize("similar", [near, lambda noun, word: False])
def test_descriptions_give_the_scripts_figures(shared, similar):
    naming = Naming("official", split_nouns, similar)
    benchmark = Amber("amber", "AMBER", naming=lambda: naming)
    samples = [s for s in benchmark.samples(Folder(shared)) if s.subset == "generative"]
    assert len(samples) == 1004
    rng = random.Random(0)
    vocabulary = sorted(samples[0].metadata["words"].vocabulary)
    responses, scores = {}, []
    for sample in samples:
        about = [
            *sample.reference["truth"],
            *sample.reference["hallu"],
            *rng.sample(vocabulary, 4),
            "orange",
            "zzz",
        ]
        text = " ".join(rng.choices(about, k=rng.randint(0, 12)))
        responses[int(sample.id)] = text
        scores.append(benchmark.score(sample, Answer(text), None))
    measured = {metric.name: round(100 * metric.value, 1) for metric in benchmark.metrics(scores)}
    assert measured == second_reading(responses, shared, similar)
    assert 5 < measured["chair"] < 95 and 5 < measured["cog"] < 95, "the check would be empty"


def test_questions_by_type_with_no_as_the_positive_class(shared):
    benchmark = Amber("amber-discriminative", "AMBER", generative=False)
    samples = benchmark.samples(Folder(shared))
    assert len(samples) == 15220 - 1004
    rng = random.Random(1)
    answers = {sample.id: rng.choice(["Yes", "No", "No.", "yes", "Maybe"]) for sample in samples}
    scores = [benchmark.score(sample, Answer(answers[sample.id]), None) for sample in samples]
    measured = {(m.name, m.subset): m.value for m in benchmark.metrics(scores)}
    kinds = {
        "existence": ("existence",),
        "attribute": ("state", "number", "action"),
        "relation": ("relation",),
    }
    for group, subsets in kinds.items():
        rows = [(answers[s.id], s.reference) for s in samples if s.subset in subsets]
        no, is_no = sum(a == "No" for a, _ in rows), sum(t == "no" for _, t in rows)
        both = sum(a == "No" and t == "no" for a, t in rows)
        p, r = both / no, both / is_no
        assert measured["precision", group] == pytest.approx(p) and measured[
            "recall", group
        ] == pytest.approx(r)
        epsilon = 0.001 if group == "existence" else 0.0001
        p, r = round(100 * p, 1) / 100, round(100 * r, 1) / 100
        assert round(100 * measured["f1", group], 1) == round(
            2 * p * r / (p + r + epsilon) * 100, 1
        )
        right = sum((a == "No" and t == "no") or (a == "Yes" and t == "yes") for a, t in rows)
        assert measured["accuracy", group] == pytest.approx(right / len(rows))
        assert measured["unparsed", group] == sum(a not in ("Yes", "No") for a, _ in rows) > 0
        assert measured["readable", group] == sum(a in ("No.", "yes") for a, _ in rows) > 0
        as_read = sum(a.strip(".").lower() == t for a, t in rows)
        assert measured["accuracy_read", group] == pytest.approx(as_read / len(rows))


@pytest.mark.parametrize(
    ("text", "counts", "as_read"),
    [
        ("Yes", True, True),
        (" Yes\n", True, True),
        ("Yes.", False, True),
        ("yes, there is one", False, True),
        ("Maybe", False, False),
        ("", False, False),
        ("No", False, False),
    ],
)
def test_the_script_knows_exactly_two_answers_and_a_reader_more(text, counts, as_read):
    values = question_values(Answer(text, p_yes=0.2, p_no=0.1), "yes")
    assert (values["correct"], values["correct_read"]) == (counts, as_read)
    assert values["readable"] == (as_read and not counts)
    assert values["correct_likelier"], "the authors' own way: the likelier of both words"
    assert "correct_likelier" not in question_values(Answer(text), "yes")


def test_a_caveat_tells_what_the_script_does_not_know(shared):
    benchmark = Amber("amber-discriminative", "AMBER", generative=False)
    samples = benchmark.samples(Folder(shared))[:40]
    scores = [benchmark.score(sample, Answer("Yes, it is."), None) for sample in samples]
    (row,) = [
        metric
        for metric in benchmark.metrics(scores)
        if (metric.name, metric.subset) == ("accuracy", "discriminative")
    ]
    assert row.value == 0
    assert row.caveats[0].startswith("40 of 40 answers begin with Yes or No")


def test_without_the_official_models_the_variant_has_a_name_of_its_own(shared):
    benchmark = Amber("amber-generative", "AMBER", discriminative=False, naming=relation_only)
    assert benchmark.version == "2-relation-only"
    assert {s.subset for s in benchmark.samples(Folder(shared))} == {"generative:relation-only"}


def test_nouns_are_told_from_verbs_and_capitals():
    vocabulary = {"man", "surf", "wave", "dog", "sky", "light", "People"}
    text = "Men are surfing; the man surfs two waves under a blue sky with dogs. Sky"
    assert nouns(text, vocabulary) == ["man", "wave", "sky", "dog"]
