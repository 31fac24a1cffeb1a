"""AMBER: hallucination in descriptions and in yes/no questions, without a judge (Wang et al., arXiv 2311.07397).

Reference scorer: junyangwang0410/AMBER inference.py, followed bug for bug: Cog is the share of annotated likely
hallucinations that were named (the paper defines it over what was named); "no" is the positive class of
precision and recall; F1 is computed from rounded percentages plus an epsilon. The script finds nouns with NLTK and
forgives near-synonyms with spaCy's en_core_web_lg; both need downloads. Where they are not installed,
the relation.json rule alone runs on our own nouns, as the variant "relation-only", in subsets of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from bench.benchmarks.common import count, metric, read_rows
from bench.errors import DataError
from bench.metrics.object_mentions import nouns
from bench.metrics.yes_no import confusion_terms
from bench.stats import Floats, bootstrap_sums, clustered_mean, labels, ratio
from bench.types import Answer, Better, Data, Metric, Sample, Score, Verdict

KINDS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
GROUPS = {
    "discriminative": ("existence", "state", "number", "action", "relation"),
    "existence": ("existence",),
    "attribute": ("state", "number", "action"),
    "state": ("state",),
    "number": ("number",),
    "action": ("action",),
    "relation": ("relation",),
}
Similar = Callable[[str, str], bool]


@dataclass(frozen=True)
class Naming:
    """How nouns are found in a description and when two of them count as the same."""

    name: str
    nouns: Callable[[str, frozenset[str]], list[str]]
    similar: Similar


def relation_only() -> Naming:
    """Our own nouns, and no likeness beyond relation.json."""
    return Naming("relation-only", nouns, lambda noun, word: False)


@lru_cache(maxsize=1)
def installed_naming() -> Naming:
    """The official naming where NLTK, its data, spaCy and en_core_web_lg are installed, else `relation_only`."""
    try:
        import nltk
        import spacy
        from nltk.stem import WordNetLemmatizer

        nltk.pos_tag(nltk.word_tokenize("a test"))
        vectors = spacy.load("en_core_web_lg")
        lemmatizer = WordNetLemmatizer()
        lemmatizer.lemmatize("tests")
    except (ImportError, LookupError, OSError):
        return relation_only()

    def official_nouns(text: str, vocabulary: frozenset[str]) -> list[str]:
        tagged = nltk.pos_tag(nltk.word_tokenize(text))
        found = [lemmatizer.lemmatize(word) for word, tag in tagged if tag.startswith("NN")]
        return [noun for noun in found if noun in vocabulary]

    @cache
    def similar(noun: str, word: str) -> bool:
        return bool(vectors(noun).similarity(vectors(word)) > 0.8)

    return Naming("official", official_nouns, similar)


@dataclass(frozen=True)
class Amber:
    """AMBER's generative task, its discriminative one, or both."""

    name: str
    title: str
    generative: bool = True
    discriminative: bool = True
    naming: Callable[[], Naming] = field(default=installed_naming, repr=False)
    images: str = "amber"
    suffix: str = ""
    judged: bool = False

    @property
    def version(self) -> str:
        """Names the variant where descriptions are scored."""
        return f"1-{self.naming().name}" if self.generative else "1"

    def samples(self, data: Data) -> list[Sample]:
        """The official queries with their annotations. Raises DataError where the two do not fit together."""
        annotations = {
            row["id"]: row for row in read_rows(data.file("amber/annotations.json"), ("id", "type", "truth"))
        }
        queries = read_rows(data.file("amber/query_all.json"), ("id", "image", "query"))
        alone = {row["id"] for row in queries} ^ annotations.keys()
        if alone:
            raise DataError(
                f"AMBER's item {min(alone, key=str)} is a query without annotation, or the reverse.",
                f"amber/annotations.json and amber/query_all.json differ in {len(alone)} items.",
                "Restore both from one revision of the source.",
            )
        words = _Words(data)
        samples = []
        for row in queries:
            truth = annotations[row["id"]]
            generative = truth["type"] == "generative"
            if generative and self.generative:
                samples.append(self._description(row, truth, words))
            elif not generative and self.discriminative:
                samples.append(self._question(row, truth))
        return samples

    def _description(self, row: Mapping[str, Any], truth: Mapping[str, Any], words: _Words) -> Sample:
        reference = {"truth": truth["truth"], "hallu": truth["hallu"]}
        metadata = {"words": words}
        subset = "generative" if self.naming().name == "official" else f"generative:{self.naming().name}"
        return Sample(str(row["id"]), row["image"], row["query"], reference, row["image"], subset, metadata)

    def _question(self, row: Mapping[str, Any], truth: Mapping[str, Any]) -> Sample:
        if truth["type"] not in KINDS or truth["truth"] not in ("yes", "no"):
            raise DataError(
                f"AMBER annotation {row['id']} has type {truth['type']!r} and truth {truth['truth']!r}.",
                f"Known types are generative, {', '.join(KINDS)}; truths are yes and no.",
                "Restore amber/annotations.json from its source.",
            )
        return Sample(str(row["id"]), row["image"], row["query"], truth["truth"], row["image"], KINDS[truth["type"]])

    def max_tokens(self, sample: Sample) -> int:
        """512 for descriptions; yes/no questions as in POPE."""
        return 128 if self.yes_no(sample) else 512

    def yes_no(self, sample: Sample) -> bool:
        """The discriminative task."""
        return not sample.subset.startswith("generative")

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """What the official script counts of this answer."""
        if self.yes_no(sample):
            said = discriminative_answer(answer.text)
            values: dict[str, Any] = {"answer": said, "label": sample.reference, "unparsed": said not in ("Yes", "No")}
            values["correct"] = said.lower() == sample.reference
        else:
            named = self.naming().nouns(answer.text, sample.metadata["words"].vocabulary)
            values = describe(named, sample.reference, sample.metadata["words"], self.naming().similar)
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """CHAIR, Cover, Hal and Cog of the descriptions; accuracy, precision, recall and F1 by type of question."""
        described = [score for score in scores if score.subset.startswith("generative")]
        found = _generative(described) if described else []
        for group, subsets in GROUPS.items():
            members = [score for score in scores if score.subset in subsets]
            if members:
                found += _discriminative(group, members)
        return found


class _Words:
    """relation.json and safe_words.txt: the vocabulary, what goes for what, and what is never held against a model."""

    def __init__(self, data: Data) -> None:
        import json

        path = data.file("amber/relation.json")
        try:
            self.relation: dict[str, list[str]] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path} is truncated or corrupt.", f"{error}.", "Restore the file from its source."
            ) from error
        self.vocabulary = frozenset(self.relation).union(*self.relation.values())
        self.safe = frozenset(data.file("amber/safe_words.txt").read_text(encoding="utf-8").split("\n"))

    def accepted(self, annotated: Sequence[str]) -> list[tuple[str, int]]:
        """(word, index of the annotated object it stands for), related words first, as the script has them."""
        related = [(word, i) for i, item in enumerate(annotated) for word in self.relation.get(item, ())]
        return related + [(item, i) for i, item in enumerate(annotated)]


def describe(
    named: Sequence[str], reference: Mapping[str, Sequence[str]], words: _Words, similar: Similar
) -> dict[str, Any]:
    """The script's counts for one description whose nouns are `named`."""
    truth, likely = words.accepted(reference["truth"]), words.accepted(reference["hallu"])
    covered: set[int] = set()
    imagined: set[int] = set()
    hallucinated = []
    for noun in named:
        if noun in words.safe:
            continue
        exact = next((i for word, i in truth if word == noun), None)
        if exact is not None:
            covered.add(exact)
            continue
        for same in (lambda word, noun=noun: word == noun, lambda word, noun=noun: similar(noun, word)):
            imagined.update([i for word, i in likely if same(word)][:1])
        near = next((i for word, i in truth if similar(noun, word)), None)
        if near is not None:
            covered.add(near)
        else:
            hallucinated.append(noun)
    return {
        "named": list(named),
        "hallucinated": hallucinated,
        "any_hallucination": bool(hallucinated),
        "correct": not hallucinated,
        "covered": len(covered),
        "objects": len(reference["truth"]),
        "imagined": len(imagined),
        "likely": len(reference["hallu"]),
    }


def discriminative_answer(text: str) -> str:
    """ "Yes" or "No" where the answer begins with it, else the answer as it is, which the script calls wrong."""
    first = text.strip().split(maxsplit=1)[0].strip(".,!;:\"'*").capitalize() if text.strip() else ""
    return first if first in ("Yes", "No") else text.strip()


def _generative(scores: Sequence[Score]) -> list[Metric]:
    scored = [score for score in scores if score.unscored is None]
    values = [score.values for score in scored]
    columns = ("covered", "objects", "imagined", "likely")
    counted = [[len(v["hallucinated"]), len(v["named"]), *(v[name] for name in columns)] for v in values]
    clusters = labels([score.cluster for score in scored])

    def ratios(sums: Floats) -> Floats:
        return np.stack([ratio(sums[:, i], sums[:, i + 1]) for i in (0, 2, 4)], axis=1)

    chair, cover, cog = bootstrap_sums(np.array(counted, dtype=float).reshape(-1, 6), clusters, ratios)
    hal = clustered_mean(np.array([float(v["any_hallucination"]) for v in values]), clusters, (0, 1))
    named: list[tuple[str, Any, Better]] = [
        ("chair", chair, "lower"),
        ("cover", cover, "higher"),
        ("hal", hal, "lower"),
        ("cog", cog, "lower"),
    ]
    return [metric(name, scores[0].subset, estimate, scores, better) for name, estimate, better in named]


def _discriminative(group: str, scores: Sequence[Score]) -> list[Metric]:
    scored = [score for score in scores if score.unscored is None]
    said_no = np.array([float(score.values["answer"] == "No") for score in scored])
    is_no = np.array([float(score.values["label"] == "no") for score in scored])
    clusters = labels([score.cluster for score in scored])
    epsilon = 0.001 if group == "existence" else 0.0001

    def statistic(sums: Floats) -> Floats:
        tp, fp, _, fn = sums.T
        precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
        p, r = np.round(precision, 3), np.round(recall, 3)
        return np.stack([precision, recall, 2 * p * r / (p + r + epsilon)], axis=1)

    estimates = bootstrap_sums(confusion_terms(said_no, is_no), clusters, statistic)
    correct = clustered_mean(np.array([float(score.values["correct"]) for score in scored]), clusters, (0, 1))
    named = zip(("accuracy", "precision", "recall", "f1"), (correct, *estimates), strict=True)
    unparsed = sum(score.values["unparsed"] for score in scored)
    return [metric(name, group, estimate, scores, "higher") for name, estimate in named] + [
        count("unparsed", group, unparsed, scores)
    ]


AMBER = Amber("amber", "AMBER")
GENERATIVE = Amber("amber-generative", "AMBER, generative", discriminative=False)
DISCRIMINATIVE = Amber("amber-discriminative", "AMBER, discriminative", generative=False)
