"""AMBER: hallucination in descriptions and in yes/no questions, without a judge.

Paper: Wang et al., arXiv 2311.07397. Reference scorer: junyangwang0410/AMBER inference.py, followed
bug for bug: Cog is the share of annotated likely hallucinations that were named (the paper defines
it over what was named); "no" is the positive class of precision and recall; F1 is computed from
rounded percentages plus an epsilon; of answers to questions it knows exactly "Yes" and "No". Its
authors took of open models the likelier of both words (their issue 2), which is
`accuracy_likelier`; `accuracy_read` takes an answer by the word that it begins with.

The script finds nouns with NLTK and forgives near-synonyms with spaCy's en_core_web_lg; both need
downloads. Without spaCy's vectors the relation.json rule runs on NLTK's nouns (the variant
"nltk-relation-only"), without NLTK on our own ("relation-only"), in subsets of these names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from bench.benchmarks.scoring import (
    clusters_of,
    count,
    equals,
    mean_of,
    metric,
    scored,
    values_of,
)
from bench.errors import DataError
from bench.files import check_types, parse_json, read_rows, read_text
from bench.language import nltk_words
from bench.language.object_mentions import nouns
from bench.metrics.paired import FunctionOfSums, mean_of_value, quotient
from bench.metrics.yes_no import confusion_terms, first_word, yes_probability
from bench.stats import Floats, estimates_of_sums, ratio, ratios
from bench.types import Answer, Better, Data, Figure, Metric, Sample, Score, Values, Verdict

QUERY = {"id": str | int, "image": str, "query": str}
ANNOTATION = {"id": str | int, "type": str, "truth": str | list[str]}
KINDS = {  # the annotations' types of questions, and our subsets
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
GROUPS = {  # what the script reports, and the subsets it is over
    "discriminative": ("existence", "state", "number", "action", "relation"),
    "existence": ("existence",),
    "attribute": ("state", "number", "action"),
    "state": ("state",),
    "number": ("number",),
    "action": ("action",),
    "relation": ("relation",),
}
# What the script adds to the denominator of F1, differently in its two branches.
EPSILON = {"existence": 0.001}
LIKELIER = 0.5  # P(yes) above which "Yes" is the likelier word
CAVEATS = {
    "official": (),
    "nltk-relation-only": ("AMBER's rule without word vectors, not the official one",),
    "relation-only": ("AMBER's rule without word vectors and NLTK, not the official one",),
}
DEFAULT_EPSILON = 0.0001
SIMILAR_FROM = 0.8  # cosine of spaCy's vectors from which two nouns count as the same
Similar = Callable[[str, str], bool]


@dataclass(frozen=True)
class Naming:
    """How nouns are found in a description, and when two of them count as the same."""

    name: str
    nouns: Callable[[str, frozenset[str]], list[str]]
    similar: Similar


def relation_only() -> Naming:
    """Our own nouns, and no likeness beyond relation.json."""
    return Naming("relation-only", nouns, lambda noun, word: False)


def nltk_relation_only() -> Naming:
    """NLTK's nouns, and no likeness beyond relation.json."""
    return Naming("nltk-relation-only", nltk_words.nouns, lambda noun, word: False)


@lru_cache(maxsize=1)
def installed_naming() -> Naming:
    """The official naming if all it needs is installed, else the nearest to it."""
    if nltk_words.what_is_missing():
        return relation_only()
    try:
        import spacy

        vectors = spacy.load("en_core_web_lg")
    except (ImportError, OSError):
        return nltk_relation_only()

    # Two vectors for each of thousands of nouns; the same pairs come back again and again.
    @cache
    def similar(noun: str, word: str) -> bool:
        return bool(vectors(noun).similarity(vectors(word)) > SIMILAR_FROM)

    return Naming("official", nltk_words.nouns, similar)


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
        """Names the variant of the rule if descriptions are scored."""
        return f"2-{self.naming().name}" if self.generative else "2"

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        declared: list[Figure] = []
        if self.generative:
            declared += GENERATIVE_FIGURES
        if self.discriminative:
            declared += DISCRIMINATIVE_FIGURES
        return tuple(declared)

    def samples(self, data: Data) -> list[Sample]:
        """The official queries with their annotations.

        Raises DataError if the two do not fit together.
        """
        annotations_file = data.file("amber/annotations.json")
        annotations = {}
        for row in read_rows(annotations_file, ANNOTATION):
            annotations[row["id"]] = row
        queries = read_rows(data.file("amber/query_all.json"), QUERY)
        unmatched = {row["id"] for row in queries} ^ annotations.keys()
        if unmatched:
            raise DataError(
                f"AMBER's item {min(unmatched, key=str)} is a query without annotation, "
                "or the reverse.",
                "amber/annotations.json and amber/query_all.json differ in "
                f"{len(unmatched)} items.",
                "Restore both from one revision of the source.",
            )
        words = Words(data)
        samples = []
        for row in queries:
            annotation = annotations[row["id"]]
            is_description = annotation["type"] == "generative"
            if is_description and self.generative:
                samples.append(self._description(row, annotation, words))
            elif not is_description and self.discriminative:
                samples.append(_question(row, annotation))
        return samples

    def _description(
        self, row: Mapping[str, Any], annotation: Mapping[str, Any], words: Words
    ) -> Sample:
        reference = {"truth": annotation["truth"], "hallu": annotation.get("hallu")}
        if not all(isinstance(words, list) for words in reference.values()):
            raise DataError(
                f"AMBER annotation {row['id']} of a description has no lists of objects.",
                "It needs the lists truth and hallu.",
                "Restore amber/annotations.json from its source.",
            )
        rule = self.naming().name
        subset = "generative" if rule == "official" else f"generative:{rule}"
        image = row["image"]
        return Sample(
            str(row["id"]), image, row["query"], reference, image, subset, {"words": words}
        )

    def max_tokens(self, sample: Sample) -> int:
        """512 for descriptions; yes/no questions as in POPE."""
        return 128 if self.yes_no(sample) else 512

    def yes_no(self, sample: Sample) -> bool:
        """The discriminative task."""
        return not sample.subset.startswith("generative")

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """What the official script counts of this answer."""
        values: dict[str, Any]
        if self.yes_no(sample):
            values = question_values(answer, sample.reference)
        else:
            words: Words = sample.metadata["words"]
            naming = self.naming()
            named = naming.nouns(answer.text, words.vocabulary)
            values = describe(named, sample.reference, words, naming.similar)
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """CHAIR, Cover, Hal and Cog of descriptions; accuracy, precision, recall, F1 by type."""
        rows = []
        described = []
        for score in scores:
            if score.subset.startswith("generative"):
                described.append(score)
        if described:
            rows += _generative_metrics(described, CAVEATS[self.naming().name])
        for group, subsets in GROUPS.items():
            members = []
            for score in scores:
                if score.subset in subsets:
                    members.append(score)
            if members:
                rows += _discriminative_metrics(group, members)
        return rows


def _question(row: Mapping[str, Any], annotation: Mapping[str, Any]) -> Sample:
    kind, truth = annotation["type"], annotation["truth"]
    if kind not in KINDS or truth not in ("yes", "no"):
        raise DataError(
            f"AMBER annotation {row['id']} has type {kind!r} and truth {truth!r}.",
            f"Known types are generative, {', '.join(KINDS)}; truths are yes and no.",
            "Restore amber/annotations.json from its source.",
        )
    image = row["image"]
    return Sample(str(row["id"]), image, row["query"], truth, image, KINDS[kind])


class Words:
    """relation.json and safe_words.txt.

    `vocabulary` is every noun that counts, `relation` the words that stand for an object, `safe`
    the words that are never held against a model.
    """

    def __init__(self, data: Data) -> None:
        path = data.file("amber/relation.json")
        try:
            self.relation: dict[str, list[str]] = parse_json(read_text(path))
        except ValueError as error:
            raise DataError(
                f"{path} is truncated or corrupt.",
                f"{error}.",
                "Restore the file from its source.",
            ) from error
        check_types(dict[str, list[str]], self.relation, path)
        self.vocabulary = frozenset(self.relation).union(*self.relation.values())
        safe_words = read_text(data.file("amber/safe_words.txt"))
        # Split as the script does, so an empty last line is a safe word too.
        self.safe = frozenset(safe_words.split("\n"))

    def accepted(self, annotated: Sequence[str]) -> list[tuple[str, int]]:
        """(word, index of the annotated object that it stands for), in the script's order.

        Related words come before the objects themselves; the first match counts.
        """
        related = []
        for index, item in enumerate(annotated):
            for word in self.relation.get(item, ()):
                related.append((word, index))
        return related + [(item, index) for index, item in enumerate(annotated)]


def describe(
    named: Sequence[str], reference: Mapping[str, Sequence[str]], words: Words, similar: Similar
) -> dict[str, Any]:
    """The script's counts for one description.

    Args:
        named: The description's nouns.
        reference: `truth`, the objects that are there, and `hallu`, likely hallucinations.
        words: What stands for what.
        similar: Whether two nouns count as the same.
    """
    truth, likely = words.accepted(reference["truth"]), words.accepted(reference["hallu"])
    covered: set[int] = set()  # indices of objects that were named
    imagined: set[int] = set()  # indices of likely hallucinations that were named
    hallucinated = []
    for noun in named:
        if noun in words.safe:
            continue
        exact = _first(truth, noun, _equal)
        if exact is not None:
            covered.add(exact)
            continue
        # The script looks for an equal and for a similar hallucination; each may add one.
        for same in (_equal, similar):
            hallucination = _first(likely, noun, same)
            if hallucination is not None:
                imagined.add(hallucination)
        near = _first(truth, noun, similar)
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


def _first(accepted: Sequence[tuple[str, int]], noun: str, same: Similar) -> int | None:
    """The index that the first accepted word stands for which is the same as `noun`."""
    for word, index in accepted:
        if same(noun, word):
            return index
    return None


def _equal(noun: str, word: str) -> bool:
    return noun == word


def question_values(answer: Answer, label: str) -> dict[str, Any]:
    """What counts of one answer to a question.

    Args:
        answer: The model's.
        label: "yes" or "no".
    """
    text = answer.text.strip()
    is_known = text in ("Yes", "No")
    read = first_word(text)
    values: dict[str, Any] = {
        "answer": text,
        "label": label,
        "unparsed": not is_known,
        "readable": read is not None and not is_known,
        "correct": text == label.capitalize(),
        "correct_read": read == label,
    }
    p_yes = yes_probability(answer.p_yes, answer.p_no)
    if p_yes is not None:
        values["p_yes"] = p_yes
        values["correct_likelier"] = (p_yes > LIKELIER) == (label == "yes")
    return values


def _chair_terms(values: Values) -> tuple[float, float]:
    return len(values["hallucinated"]), len(values["named"])


def _cover_terms(values: Values) -> tuple[float, float]:
    return values["covered"], values["objects"]


def _cog_terms(values: Values) -> tuple[float, float]:
    return values["imagined"], values["likely"]


def _generative_metrics(scores: Sequence[Score], caveats: tuple[str, ...]) -> list[Metric]:
    with_values = scored(scores)
    terms = np.zeros((len(with_values), 6))
    for row, score in enumerate(with_values):
        values = score.values
        terms[row] = (*_chair_terms(values), *_cover_terms(values), *_cog_terms(values))
    chair, cover, cog = estimates_of_sums(terms, clusters_of(with_values), ratios)
    subset = scores[0].subset
    return [
        metric(CHAIR, subset, chair, scores, caveats),
        metric(COVER, subset, cover, scores, caveats),
        metric(HAL, subset, mean_of(scores, "any_hallucination"), scores, caveats),
        metric(COG, subset, cog, scores, caveats),
    ]


def _confusion_with_no_positive(values: Values) -> Sequence[float]:
    """(tp, fp, tn, fn) of one question; "no" is the positive class, as in the script."""
    said_no = np.array([float(values["answer"] == "No")])
    is_no = np.array([float(values["label"] == "no")])
    terms: Sequence[float] = confusion_terms(said_no, is_no)[0].tolist()
    return terms


def _precision_recall_f1(sums: Floats, epsilon: float, digits: int | None = None) -> Floats:
    """(B, 4) sums of (tp, fp, tn, fn) → (B, 3).

    The script prints percentages with one decimal and computes F1 of what it printed, which is
    `digits` 3; without them F1 is smooth.
    """
    tp, fp, _, fn = sums.T
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp + fn)
    p, r = precision, recall
    if digits is not None:
        p, r = np.round(precision, digits), np.round(recall, digits)
    return np.stack([precision, recall, 2 * p * r / (p + r + epsilon)], axis=1)


def _discriminative_metrics(group: str, scores: Sequence[Score]) -> list[Metric]:
    with_values = scored(scores)
    # "No" is the positive class: the script counts how well absent things are denied.
    said_no = equals(with_values, "answer", "No")
    is_no = equals(with_values, "label", "no")
    clusters = clusters_of(with_values)
    epsilon = EPSILON.get(group, DEFAULT_EPSILON)
    precision, recall, f1 = estimates_of_sums(
        confusion_terms(said_no, is_no),
        clusters,
        partial(_precision_recall_f1, epsilon=epsilon),
        reported=partial(_precision_recall_f1, epsilon=epsilon, digits=3),
    )
    unparsed = int(values_of(with_values, "unparsed").sum())
    readable = int(values_of(with_values, "readable").sum())
    caveats: tuple[str, ...] = ()
    if readable:
        caveats = (
            f"{readable} of {len(with_values)} answers begin with Yes or No and are neither to the "
            "script: see accuracy_read",
        )
    rows = [
        metric(ACCURACY, group, mean_of(scores, "correct"), scores, caveats),
        metric(PRECISION, group, precision, scores, caveats),
        metric(RECALL, group, recall, scores, caveats),
        metric(F1, group, f1, scores, caveats),
        metric(ACCURACY_READ, group, mean_of(scores, "correct_read"), scores),
    ]
    if with_values and all(has_likelier(score.values) for score in with_values):
        likelier = mean_of(scores, "correct_likelier")
        rows.append(metric(ACCURACY_LIKELIER, group, likelier, scores))
    return [
        *rows,
        count("unparsed", group, unparsed, scores),
        count("readable", group, readable, scores),
    ]


def has_likelier(values: Values) -> bool:
    """Whether P(yes) was recorded."""
    return "correct_likelier" in values


def _is_description(values: Values) -> bool:
    return "covered" in values


def _is_question(values: Values) -> bool:
    return "label" in values


def _generative_figure(metric_name: str, title: str, statistic: Any, **more: Any) -> Figure:
    better: Better = "higher" if metric_name == "cover" else "lower"
    return Figure(
        metric_name, title, better, statistic, subset="generative", over=_is_description, **more
    )


def _question_figure(metric_name: str, title: str, statistic: Any, **more: Any) -> Figure:
    return Figure(
        metric_name,
        title,
        "higher",
        statistic,
        subset="discriminative",
        over=_is_question,
        **more,
    )


def _confusion_statistic(column: int) -> FunctionOfSums:
    """Precision, recall or F1 over all questions."""

    def combine(sums: Floats) -> Floats:
        return np.asarray(_precision_recall_f1(sums, DEFAULT_EPSILON)[:, column])

    def reported(sums: Floats) -> Floats:
        return np.asarray(_precision_recall_f1(sums, DEFAULT_EPSILON, 3)[:, column])

    return FunctionOfSums(_confusion_with_no_positive, combine, reported)


CHAIR = _generative_figure(
    "chair", "AMBER CHAIR", FunctionOfSums(_chair_terms, quotient), heading="AMBER CHAIR"
)
COVER = _generative_figure(
    "cover",
    "AMBER Cover",
    FunctionOfSums(_cover_terms, quotient),
    heading="Cover",
    margin=0.01,
)
HAL = _generative_figure(
    "hal",
    "AMBER hallucination",
    mean_of_value("any_hallucination"),
    heading="Hal",
    margin=0.01,
    beside="cover",
)
COG = _generative_figure("cog", "AMBER Cog", FunctionOfSums(_cog_terms, quotient))
GENERATIVE_FIGURES = (HAL, COVER, CHAIR, COG)

ACCURACY = _question_figure(
    "accuracy",
    "AMBER accuracy",
    mean_of_value("correct"),
    heading="acc",
    margin=0.01,
    by_subset=True,
)
PRECISION = _question_figure("precision", "AMBER precision", _confusion_statistic(0))
RECALL = _question_figure("recall", "AMBER recall", _confusion_statistic(1))
F1 = _question_figure("f1", "AMBER F1", _confusion_statistic(2))
ACCURACY_READ = _question_figure(
    "accuracy_read", "AMBER accuracy as read", mean_of_value("correct_read")
)
ACCURACY_LIKELIER = Figure(
    "accuracy_likelier",
    "AMBER accuracy by the likelier word",
    "higher",
    mean_of_value("correct_likelier"),
    subset="discriminative",
    over=has_likelier,
)
DISCRIMINATIVE_FIGURES = (ACCURACY, PRECISION, RECALL, F1, ACCURACY_READ, ACCURACY_LIKELIER)

AMBER = Amber("amber", "AMBER")
GENERATIVE = Amber("amber-generative", "AMBER, generative", discriminative=False)
DISCRIMINATIVE = Amber("amber-discriminative", "AMBER, discriminative", generative=False)
