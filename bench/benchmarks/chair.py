"""CHAIR: which objects of a caption are not in the image (Rohrbach et al., arXiv 1809.02156).

Reference scorer: LisaAnne/Hallucination chair.py in its form with part-of-speech tags, as OPERA and
others use it; the first form singularised words without tags and lies 0.2 points apart. With NLTK
3.9.1 and its data words are read as officially, else by a built-in rule under its own name.

CHAIRi = hallucinated mentions / mentions, CHAIRs = captions with a hallucination / captions,
recall = objects mentioned / objects there, all counted over the whole set; `chair_i_once` is CHAIRi
with each object once a caption. Ground truth: the objects of segmentations and reference captions
of COCO 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench.benchmarks.scoring import clusters_of, mean_of, metric, scored
from bench.errors import DataError
from bench.files import check_types, parse_json, read_text
from bench.language import nltk_words
from bench.language.object_mentions import categories_in, chair_words, read_synonyms
from bench.metrics.paired import FunctionOfSums, mean_of_value, quotient
from bench.metrics.seeds import question_of
from bench.stats import estimates_of_sums, ratios
from bench.types import Answer, Data, Figure, Metric, Sample, Score, Values, Verdict

GROUND_TRUTH = "chair/coco2014_chair_gt__wordnet_pos_lemma.json"
SYNONYMS = "chair/synonyms_LisaAnne.txt"
# 500 numbers of COCO's val2014, those whose decimal digits have the smallest sha256.
LIST = Path(__file__).with_name("chair_images.txt")
LEAST_DIGITS = 6  # of the number in a file's name: COCO's have twelve
QUESTION = "Please describe this image in detail."


@dataclass(frozen=True)
class Wording:
    """How a caption's words are read.

    Args:
        name: What the benchmark's version calls it.
        words: From a caption to its lemmas.
        caveats: What a reader must know beside a figure.
    """

    name: str
    words: Callable[[str], list[str]]
    caveats: tuple[str, ...] = ()


OFFICIAL = Wording("official", nltk_words.chair_words)
BUILT_IN = Wording("built-in", chair_words, ("words by the built-in lemmatiser, not by NLTK's",))


@lru_cache(maxsize=1)
def installed_wording() -> Wording:
    """The official one if all it needs is installed."""
    return BUILT_IN if nltk_words.what_is_missing() else OFFICIAL


@dataclass(frozen=True)
class Chair:
    """CHAIR on a fixed list of 500 images of COCO's val2014.

    There is no official list: papers draw one at random and seldom say which. Recorded answers are
    scored on their own images, and if fewer than half of the list are at hand, all that are.
    """

    name: str = "chair"
    title: str = "CHAIR"
    images: str = "coco"
    suffix: str = ""
    judged: bool = False
    wording: Callable[[], Wording] = field(default=installed_wording, repr=False)

    @property
    def version(self) -> str:
        """Names the rule by which words are read."""
        return f"2-{self.wording().name}"

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return (CHAIR_S, CHAIR_I, CHAIR_I_ONCE, RECALL, LENGTH)

    def samples(self, data: Data) -> list[Sample]:
        """One sample for each image that has ground truth.

        Raises DataError if there is none.
        """
        objects_of = ground_truth(data)
        metadata = {"synonyms": read_synonyms(read_text(data.file(SYNONYMS)))}
        samples = []
        for name in self._images_of(data):
            number = image_number(name)
            if number in objects_of:
                reference = sorted(objects_of[number])
                samples.append(Sample(name, name, QUESTION, reference, name, "all", metadata))
        if not samples:
            raise DataError(
                "CHAIR found no COCO image with ground truth.",
                f"{data.label} has ground truth for {len(objects_of)} images, and none of them "
                "lies in its images folder.",
                "Put COCO val2014 images under DIR/images/coco, or pass their folder with "
                "--images.",
            )
        return samples

    def _images_of(self, data: Data) -> Sequence[str]:
        at_hand = data.image_names(self.images)
        if data.recorded is not None:
            return at_hand
        listed = listed_images()
        listed_at_hand = listed & set(at_hand)
        return sorted(listed) if 2 * len(listed_at_hand) >= len(listed) else at_hand

    def max_tokens(self, sample: Sample) -> int:
        """512, as in the common evaluations."""
        return 512

    def yes_no(self, sample: Sample) -> bool:
        """Captions."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The objects mentioned, and those of them that are not there."""
        # Read from the raw caption, as the official script reads a model's output.
        words = self.wording().words(answer.text)
        mentioned = categories_in(words, sample.metadata["synonyms"])
        values = caption_values(mentioned, sample.reference)
        values["length"] = len(answer.text.split())
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """CHAIRi, also with each object once a caption, CHAIRs, recall and the mean length."""
        with_values = scored(scores)
        terms = np.zeros((len(with_values), 6))
        for row, score in enumerate(with_values):
            values = score.values
            once = _chair_i_once_terms(values)
            terms[row] = (*_chair_i_terms(values), *once, *_recall_terms(values))
        chair_i, once_each, recall = estimates_of_sums(terms, clusters_of(with_values), ratios)
        of_the_list = _list_caveat(scores)
        caveats = self.wording().caveats + of_the_list
        return [
            metric(CHAIR_I, "all", chair_i, scores, caveats),
            metric(CHAIR_I_ONCE, "all", once_each, scores, caveats),
            metric(CHAIR_S, "all", mean_of(scores, "any_hallucination"), scores, caveats),
            metric(RECALL, "all", recall, scores, caveats),
            metric(LENGTH, "all", mean_of(scores, "length", None), scores, of_the_list),
        ]


@lru_cache(maxsize=1)
def listed_images() -> frozenset[str]:
    """The files of the fixed list."""
    numbers = LIST.read_text(encoding="ascii").split()
    return frozenset(f"COCO_val2014_{int(number):012d}.jpg" for number in numbers)


def _list_caveat(scores: Sequence[Score]) -> tuple[str, ...]:
    """That other images of COCO were asked about, if they were."""
    images = {question_of(score.sample) for score in scores}
    others = {image for image in images - listed_images() if image.startswith("COCO_")}
    return (f"{len(others):,} images that are not on the list of 500",) if others else ()


def image_number(name: str) -> str:
    """The image that a file's name stands for; empty if it ends in no long number.

    >>> image_number("COCO_val2014_000000000042.jpg"), image_number("0_42.png")
    ('42', '')
    """
    digits = name.rpartition(".")[0].rpartition("_")[2]
    return digits.lstrip("0") if len(digits) >= LEAST_DIGITS else ""


def caption_values(mentioned: Sequence[str], truth: Sequence[str]) -> dict[str, object]:
    """What CHAIR counts of one caption.

    Args:
        mentioned: The categories that it mentions, repeats kept.
        truth: The categories that are in the image.
    """
    # Mentions are counted as often as they are made, objects that are there once.
    there = set(truth)
    hallucinated = []
    for category in mentioned:
        if category not in there:
            hallucinated.append(category)
    return {
        "mentioned": list(mentioned),
        "hallucinated": hallucinated,
        "any_hallucination": bool(hallucinated),
        "correct": not hallucinated,
        "found": len(there & set(mentioned)),
        "objects": len(there),
    }


def _chair_i_terms(values: Values) -> tuple[float, float]:
    return len(values["hallucinated"]), len(values["mentioned"])


def _chair_i_once_terms(values: Values) -> tuple[float, float]:
    return len(set(values["hallucinated"])), len(set(values["mentioned"]))


def _recall_terms(values: Values) -> tuple[float, float]:
    return values["found"], values["objects"]


def ground_truth(data: Data) -> dict[str, list[str]]:
    """The objects of every image, by the image's COCO number.

    Raises DataError if the file is not as published.
    """
    path = data.file(GROUND_TRUTH)
    try:
        content = parse_json(read_text(path))
        parts = {name: content[name] for name in ("categories", "images")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is truncated or corrupt.",
            f"It needs 'categories' and 'images' ({type(error).__name__}: {error}).",
            "Restore the file from its source.",
        ) from error
    categories, images = parts["categories"], parts["images"]
    check_types(list[str], categories, path)
    check_types(dict[str, list[int]], images, path)
    objects_of = {}
    for image, indices in images.items():
        if not all(0 <= index < len(categories) for index in indices):
            raise DataError(
                f"{path} is corrupt.",
                f"Image {image} has an object that is none of {len(categories)} categories.",
                "Restore the file from its source.",
            )
        objects_of[image] = [categories[index] for index in indices]
    return objects_of


CHAIR_S = Figure(
    "chair_s",
    "CHAIRs",
    "lower",
    mean_of_value("any_hallucination"),
    heading="CHAIRs",
    margin=0.01,
    beside="recall",
)
CHAIR_I = Figure(
    "chair_i",
    "CHAIRi",
    "lower",
    FunctionOfSums(_chair_i_terms, quotient),
    heading="CHAIRi",
    margin=0.01,
)
# A caption that goes round in circles names one object a hundred times.
CHAIR_I_ONCE = Figure(
    "chair_i_once",
    "CHAIRi, objects once",
    "lower",
    FunctionOfSums(_chair_i_once_terms, quotient),
)
RECALL = Figure(
    "recall",
    "CHAIR recall",
    "higher",
    FunctionOfSums(_recall_terms, quotient),
    heading="recall",
    margin=0.01,
)
LENGTH = Figure("length", "CHAIR words", "neither", mean_of_value("length"), "amount", bounds=None)

CHAIR = Chair()
