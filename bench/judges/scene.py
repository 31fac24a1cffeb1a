"""`scene`: the oracle judge of the built-in world. It knows what every picture shows and reads what an answer claims.

The rule. An answer is cut into clauses. In each, objects are found as CHAIR finds them, with the numbers and sizes
before them ("two small dogs", "the dog is large"), positions between two of them, the leftmost object, and the kind of
place; a clause with no, not, none or without denies its objects instead. A claim is false if the scene contradicts it:
an object that is not there, a wrong number, a wrong size of the only one of a kind, a wrong position, another place, a
denial of what is there. Any false claim is a hallucination. How informative an answer is depends on the share of the
reference that it gives: all of it, some, or nothing. The rating is MMHal-Bench's:

    without a hallucination   6 all, in a sentence   5 all, in a word or two   4 some   3 nothing
    with a hallucination      2 all                  1 some                    0 nothing
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.errors import JudgeError
from bench.metrics.object_mentions import categories_in, chair_words, mentions_in, read_synonyms
from bench.scenes.facts import NUMBERS, relation, scene_of, singles, synonym_lines
from bench.scenes.world import CONTEXTS, Scene
from bench.types import Answer, Sample, Verdict

VERSION = "1"
DENIALS = frozenset({"no", "not", "none", "without", "nothing", "neither", "n't", "cannot", "never"})
SIZES = {"small": "small", "little": "small", "tiny": "small", "large": "large", "big": "large", "huge": "large"}
COUNTS = {word: number for number, word in enumerate(NUMBERS) if number} | {str(n): n for n in range(1, 10)}
POSITIONS = {"left": "to the left of", "right": "to the right of", "above": "above", "over": "above", "below": "below",
             "under": "below", "beneath": "below"}  # fmt: skip
PLACES = {context.name: context.name for context in CONTEXTS}
SYNONYMS = read_synonyms(synonym_lines())
SENTENCE = 3  # words from which an answer counts as a sentence
EXTREME = "leftmost"


@dataclass
class Claims:
    """What an answer says, in sets that a scene makes true or false; `denied` are objects said to be absent."""

    objects: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    counts: set[tuple[str, int]] = field(default_factory=set)
    sizes: set[tuple[str, str]] = field(default_factory=set)
    larger: set[tuple[str, str]] = field(default_factory=set)
    positions: set[tuple[str, str, str]] = field(default_factory=set)
    leftmost: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def all(self) -> set[tuple[Any, ...]]:
        """Every claim, tagged with its kind."""
        names = ("objects", "denied", "counts", "sizes", "larger", "positions", "leftmost", "places")
        return {
            (name, *(item if isinstance(item, tuple) else (item,))) for name in names for item in getattr(self, name)
        }


class SceneJudge:
    """Rates answers by the facts of the scene that the image's name stands for. Raises JudgeError for other images."""

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        if spec:
            raise JudgeError(f"scene:{spec} is no judge.", "The oracle takes no argument.", "Write --judge scene.")

    def describe(self) -> dict[str, Any]:
        """The rule's version."""
        return {"kind": "scene", "version": VERSION}

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """All verdicts in one batch."""
        yield [(sample, review(sample, answer)) for sample, answer in items]


def review(sample: Sample, answer: Answer) -> Verdict:
    """The oracle's review of one answer, with its reasons and the rating on a line of its own."""
    try:
        scene = scene_of(sample.image)
    except ValueError as error:
        raise JudgeError(
            "The scene judge knows the built-in world alone.", f"{error}", "Use another --judge, or --data scenes."
        ) from error
    claims, wanted = read(answer.text, sample), read(str(sample.reference), sample)
    false = sorted(map(str, (claim for claim in claims.all() if not holds(claim, scene))))
    asked = essential(wanted, sample.subset)
    given = asked & claims.all()
    rating = rate(bool(false), len(given), len(asked), len(answer.text.split()))
    said = f"False: {'; '.join(false)}." if false else "Nothing false."
    return Verdict(f"{said} Gives {len(given)} of {len(asked)} facts of the reference.\nRating: {rating}")


def rate(hallucinates: bool, given: int, asked: int, words: int) -> int:
    """The rating from whether anything is false, how many of the reference's facts are given, and the length."""
    level = 0 if given == 0 else 1 if given < asked else 2
    if hallucinates:
        return level
    return 3 + level + (level == 2 and words >= SENTENCE)


def essential(wanted: Claims, kind: str) -> set[tuple[Any, ...]]:
    """The facts of a reference that its question asks for."""
    asked = {
        "attribute": ("sizes",),
        "adversarial": ("denied",),
        "comparison": ("larger",),
        "counting": ("counts",),
        "relation": ("positions",),
        "environment": ("places",),
        "holistic": ("objects", "counts", "places"),
        "other": ("leftmost",),
    }[kind]
    return {claim for claim in wanted.all() if claim[0] in asked}


def holds(claim: tuple[Any, ...], scene: Scene) -> bool:
    """Whether the scene bears a claim out. What a picture cannot settle counts as borne out."""
    kind, *said = claim
    there = scene.counts
    only = {thing.category: thing for thing in singles(scene)}
    if kind == "objects":
        return said[0] in there
    if kind == "denied":
        return said[0] not in there
    if kind == "counts":
        return bool(there.get(said[0], 0) == said[1])
    if kind == "sizes":
        return said[0] not in only or only[said[0]].size in (said[1], "medium")
    if kind == "larger":
        return not {*said} <= only.keys() or bool(only[said[0]].side > only[said[1]].side)
    if kind == "positions":
        if not {said[0], said[2]} <= only.keys():
            return True
        clear = relation(only[said[0]], only[said[2]])
        return clear in (said[1], None)
    if kind == "leftmost":
        return str(said[0]) == min(scene.things, key=lambda thing: thing.centre[0]).category
    return bool(said[0] == scene.context.name)


def read(text: str, sample: Sample) -> Claims:
    """The claims of an answer. A bare word answers the question it was given to: "large", "two", "left", "dog"."""
    claims = Claims()
    for clause in re.split(r"[.;!?\n]|, but |, and there ", text.lower()):
        _read_clause(clause, claims)
    _read_bare(text, sample, claims)
    return claims


def _read_clause(clause: str, claims: Claims) -> None:
    words = chair_words(clause)
    found = mentions_in(words, SYNONYMS)
    if DENIALS & {*words}:
        claims.denied.update(name for _, name in found)
        return
    claims.objects.update(name for _, name in found)
    claims.places.update(name for name in PLACES if re.search(rf"\b{name}\b", clause))
    _read_numbers(words, found, claims)
    _read_pairs(words, found, claims)


def _read_numbers(words: Sequence[str], found: Sequence[tuple[int, str]], claims: Claims) -> None:
    """Numbers and sizes right before an object, and "the dog is large". "A dog" is at least one."""
    start = 0
    for place, name in found:
        before = words[max(start, place - 3) : place]
        claims.counts.update((name, COUNTS[word]) for word in before if word in COUNTS)
        claims.sizes.update((name, SIZES[word]) for word in before if word in SIZES)
        after = words[place + 1 : place + 4]
        if after and after[0] in ("be", "look", "appear", "is", "are"):
            claims.sizes.update((name, SIZES[word]) for word in after if word in SIZES)
        start = place + 1


def _read_pairs(words: Sequence[str], found: Sequence[tuple[int, str]], claims: Claims) -> None:
    """Positions between neighbours, "larger than", "the leftmost object is"."""
    if EXTREME in words:
        claims.leftmost.update(name for _, name in found[:1])
    for (one, first), (other, second) in pairwise(found):
        between = words[one + 1 : other]
        if first == second or "and" in between:
            continue
        if {"larger", "bigger", "large", "big"} & {*between} and "than" in between:
            claims.larger.add((first, second))
        elif {"smaller", "small"} & {*between} and "than" in between:
            claims.larger.add((second, first))
        else:
            claims.positions.update((first, POSITIONS[word], second) for word in between if word in POSITIONS)


def _read_bare(text: str, sample: Sample, claims: Claims) -> None:
    """Answers of a word or two, read as an answer to the question."""
    words = chair_words(re.sub(r"[^\w\s]", " ", text.lower()))
    if not words or len(words) > SENTENCE:
        return
    asked = chair_words(sample.question.lower())
    named = categories_in(asked, SYNONYMS)
    kind = sample.subset
    if kind == "attribute" and named:
        claims.sizes.update((named[0], SIZES[word]) for word in words if word in SIZES)
    elif kind == "counting" and named:
        claims.counts.update((named[0], COUNTS[word]) for word in words if word in COUNTS)
        claims.denied.update(named[:1] if {"no", "none", "0", "zero"} & {*words} else [])
    elif kind == "relation" and len(named) > 1:
        claims.positions.update((named[0], POSITIONS[word], named[1]) for word in words if word in POSITIONS)
    elif kind == "comparison" and len(named) > 1:
        chosen = [SYNONYMS[word] for word in words if SYNONYMS.get(word) in named]
        claims.larger.update((name, other) for name in chosen[:1] for other in named if other != name)
    elif kind == "adversarial" and {*DENIALS, "nowhere"} & {*words}:
        claims.denied.update(named[:1])
    elif kind == "other":
        claims.leftmost.update(categories_in(words, SYNONYMS)[:1])
