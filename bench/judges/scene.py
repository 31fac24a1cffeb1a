"""`scene`: the oracle judge of the built-in world.

It knows what every picture shows and reads what an answer claims. The rule: an answer is cut into
clauses. In each, objects are found as CHAIR finds them, with the numbers and sizes before them
("two small dogs", "the dog is large"), positions between two of them, the leftmost object, and the
kind of place; a clause with no, not, none or without denies its objects instead. A claim is false
if the scene contradicts it: an object that is not there, a wrong number, a wrong size of the only
one of a kind, a wrong position, another place, a denial of what is there. Any false claim is a
hallucination. How informative an answer is depends on the share of the reference that it gives: all
of it, some, or nothing. The rating is MMHal-Bench's:

    without a hallucination   6 all, in a sentence   5 all, in a word or two   4 some   3 nothing
    with a hallucination      2 all                  1 some                    0 nothing
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.errors import JudgeError
from bench.language.english import (
    COUNTS,
    article,
    numbered,
    plural,
    question_about,
    question_about_number,
)
from bench.language.object_mentions import categories_in, chair_words, mentions_in, read_synonyms
from bench.language.scope import DENIALS
from bench.metrics.claim_reviews import CheckedClaim, review_of
from bench.metrics.ratings import SENTENCE, rating_by_facts
from bench.scenes.facts import relation, scene_of, singles, synonym_lines
from bench.scenes.world import CONTEXTS, Scene
from bench.types import Answer, Sample, Verdict

VERSION = "1"
CLAUSE = re.compile(r"[.;!?\n]|, but |, and there ")
SIZES = {
    "small": "small",
    "little": "small",
    "tiny": "small",
    "large": "large",
    "big": "large",
    "huge": "large",
}
LARGER = frozenset({"larger", "bigger", "large", "big"})
SMALLER = frozenset({"smaller", "small"})
POSITIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "beneath": "below",
}
PLACES = tuple(context.name for context in CONTEXTS)
SYNONYMS = read_synonyms(synonym_lines())
COPULAS = frozenset({"be", "look", "appear", "is", "are"})
NEGATIVE_ANSWERS = frozenset({*DENIALS, "nowhere"})
ZERO = frozenset({"no", "none", "0", "zero"})
WINDOW = 3  # words before or after an object in which its number or size may stand
EXTREME = "leftmost"
Claim = tuple[Any, ...]  # its kind, then what it says
Mentions = Sequence[tuple[int, str]]  # (index of the word, category)

# The claims of a reference that each type of question asks for.
ESSENTIAL = {
    "attribute": ("sizes",),
    "adversarial": ("denied",),
    "comparison": ("larger",),
    "counting": ("counts",),
    "relation": ("positions",),
    "environment": ("places",),
    "holistic": ("objects", "counts", "places"),
    "other": ("leftmost",),
}


@dataclass
class Claims:
    """What an answer says, in sets that a scene makes true or false.

    Args:
        objects: Categories said to be there.
        denied: Categories said not to be there.
        counts: (category, number).
        sizes: (category, size).
        larger: (category, category that it is larger than).
        positions: (category, relation, category that it is seen from).
        leftmost: Categories said to be the leftmost object.
        places: Kinds of place.
    """

    objects: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    counts: set[tuple[str, int]] = field(default_factory=set)
    sizes: set[tuple[str, str]] = field(default_factory=set)
    larger: set[tuple[str, str]] = field(default_factory=set)
    positions: set[tuple[str, str, str]] = field(default_factory=set)
    leftmost: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def all(self) -> set[Claim]:
        """Every claim, tagged with its kind."""
        claims: set[Claim] = set()
        for kind, members in vars(self).items():
            for member in members:
                parts = member if isinstance(member, tuple) else (member,)
                claims.add((kind, *parts))
        return claims


class SceneJudge:
    """Rates answers by the facts of the scene that the image's name stands for.

    Raises JudgeError for other images.
    """

    OPTIONS = frozenset[str]()

    def __init__(self, spec: str, options: Mapping[str, Any]) -> None:
        if spec:
            raise JudgeError(
                f"scene:{spec} is not a judge.",
                "The oracle takes no argument.",
                "Write --judge scene.",
            )

    def describe(self) -> dict[str, Any]:
        """The rule's version."""
        return {"kind": "scene", "version": VERSION}

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """All verdicts in one batch."""
        yield [(sample, review(sample, answer)) for sample, answer in items]


def review(sample: Sample, answer: Answer) -> Verdict:
    """The oracle's review of one answer: its claims, each true or false, and the rating."""
    try:
        scene = scene_of(sample.image)
    except ValueError as error:
        raise JudgeError(
            "The scene judge knows only the built-in world.",
            f"{error}",
            "Use another --judge, or --data scenes.",
        ) from error
    # The oracle lists objects as it reads them.
    if "judge_task" in sample.metadata:
        return Verdict(json.dumps(sorted(read(answer.text, sample).objects)))
    # Reference and answer are read by the same rule, so its weaknesses cancel.
    claims = read(answer.text, sample).all()
    checked = [_checked(claim, scene, answer.text) for claim in sorted(claims, key=str)]
    any_false = not all(claim.holds for claim in checked)
    wanted = essential(read(str(sample.reference), sample), sample.subset)
    given = wanted & claims
    rating = rating_by_facts(any_false, len(given), len(wanted), len(answer.text.split()))
    share = f"Gives {len(given)} of {len(wanted)} facts of the reference."
    return Verdict(f"{review_of(checked, rating)}\n{share}")


def _checked(claim: Claim, scene: Scene, text: str) -> CheckedClaim:
    """A claim as a question, with what the scene says and the words that make it."""
    question, subject = _in_words(claim)
    # Of an object the word as it stands in the answer.
    if plural(subject) in text.lower():
        subject = plural(subject)
    is_so, is_denied = holds(claim, scene), claim[0] == "denied"
    return CheckedClaim(is_so, float(is_so != is_denied), is_denied, question, subject)


def _in_words(claim: Claim) -> tuple[str, str]:
    """The question that a claim answers with yes (with no if it denies), and its words."""
    kind, *terms = claim
    name = terms[0]
    if kind in ("objects", "denied"):
        return question_about(name), name
    if kind == "counts":
        number = terms[1]
        return question_about_number(name, number), numbered(name, number)
    if kind == "sizes":
        return f"Is the {name} {terms[1]}?", terms[1]
    if kind == "larger":
        return f"Is the {name} larger than the {terms[1]}?", "larger"
    if kind == "positions":
        _, relation_to, other = terms
        words = [word for word in relation_to.split() if word in POSITIONS]
        return f"Is the {name} {relation_to} the {other}?", words[0]
    if kind == "leftmost":
        return f"Is the {name} the leftmost object?", name
    return f"Does the image show {article(name)}?", name


def essential(reference: Claims, kind: str) -> set[Claim]:
    """The facts of a reference that a question of this type asks for."""
    return {claim for claim in reference.all() if claim[0] in ESSENTIAL[kind]}


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether the scene bears a claim out. What a picture cannot settle counts as borne out."""
    kind, *terms = claim
    subject = terms[0]
    counts = scene.counts
    # Size and position are told of single objects only: which of two dogs is meant?
    single = {thing.category: thing for thing in singles(scene)}
    if kind == "objects":
        return subject in counts
    if kind == "denied":
        return subject not in counts
    if kind == "counts":
        return bool(counts.get(subject, 0) == terms[1])
    if kind == "sizes":
        return subject not in single or single[subject].size in (terms[1], "medium")
    if kind == "larger":
        if not {*terms} <= single.keys():
            return True
        return bool(single[subject].side > single[terms[1]].side)
    if kind == "positions":
        # Where neither is clearly left of or above the other, both answers stand.
        if not {subject, terms[2]} <= single.keys():
            return True
        return relation(single[subject], single[terms[2]]) in (terms[1], None)
    if kind == "leftmost":
        return str(subject) == min(scene.things, key=lambda thing: thing.centre[0]).category
    return bool(subject == scene.context.name)


def read(text: str, sample: Sample) -> Claims:
    """The claims of an answer.

    A bare word answers the question it was given to: "large", "two", "left", "dog".
    """
    claims = Claims()
    for clause in CLAUSE.split(text.lower()):
        _read_clause(clause, claims)
    _read_bare_answer(text, sample, claims)
    return claims


def _read_clause(clause: str, claims: Claims) -> None:
    words = chair_words(clause)
    mentions = mentions_in(words, SYNONYMS)
    names = [name for _, name in mentions]
    if not DENIALS.isdisjoint(words):
        claims.denied.update(names)
        return
    claims.objects.update(names)
    for phrase in PLACES:
        if re.search(rf"\b{phrase}\b", clause):
            claims.places.add(phrase)
    _read_numbers_and_sizes(words, mentions, claims)
    _read_relations(words, mentions, claims)


def _read_numbers_and_sizes(words: Sequence[str], mentions: Mentions, claims: Claims) -> None:
    """Numbers and sizes right before an object, and "the dog is large". "A dog" is at least one."""
    start = 0
    for index, name in mentions:
        before = words[max(start, index - WINDOW) : index]
        claims.counts.update((name, COUNTS[word]) for word in before if word in COUNTS)
        claims.sizes.update((name, SIZES[word]) for word in before if word in SIZES)
        after = words[index + 1 : index + 1 + WINDOW]
        if after and after[0] in COPULAS:
            claims.sizes.update((name, SIZES[word]) for word in after if word in SIZES)
        start = index + 1


def _read_relations(words: Sequence[str], mentions: Mentions, claims: Claims) -> None:
    """Positions between neighbours, "larger than", "the leftmost object is"."""
    if EXTREME in words:
        claims.leftmost.update(name for _, name in mentions[:1])
    for (index, first), (next_index, second) in pairwise(mentions):
        between = words[index + 1 : next_index]
        # "A dog and a cat to the left" relates neither to the other.
        if first == second or "and" in between:
            continue
        compares = "than" in between
        if compares and not LARGER.isdisjoint(between):
            claims.larger.add((first, second))
        elif compares and not SMALLER.isdisjoint(between):
            claims.larger.add((second, first))
        else:
            for word in between:
                if word in POSITIONS:
                    claims.positions.add((first, POSITIONS[word], second))


def _read_bare_answer(text: str, sample: Sample, claims: Claims) -> None:
    """Answers of up to three words, read as an answer to the question."""
    # "Two." and "two" are one answer.
    words = chair_words(re.sub(r"[^\w\s]", " ", text.lower()))
    if not words or len(words) > SENTENCE:
        return
    asked_objects = categories_in(chair_words(sample.question.lower()), SYNONYMS)
    kind = sample.subset
    if kind == "attribute" and asked_objects:
        claims.sizes.update((asked_objects[0], SIZES[word]) for word in words if word in SIZES)
    elif kind == "counting" and asked_objects:
        claims.counts.update((asked_objects[0], COUNTS[word]) for word in words if word in COUNTS)
        if not ZERO.isdisjoint(words):
            claims.denied.add(asked_objects[0])
    elif kind == "relation" and len(asked_objects) > 1:
        for word in words:
            if word in POSITIONS:
                claims.positions.add((asked_objects[0], POSITIONS[word], asked_objects[1]))
    elif kind == "comparison" and len(asked_objects) > 1:
        chosen = [SYNONYMS[word] for word in words if SYNONYMS.get(word) in asked_objects]
        # "The dog" to "which is larger, the dog or the cat?" says that the cat is smaller.
        for other in asked_objects:
            if chosen and other != chosen[0]:
                claims.larger.add((chosen[0], other))
    elif kind == "adversarial" and not NEGATIVE_ANSWERS.isdisjoint(words):
        claims.denied.update(asked_objects[:1])
    elif kind == "other":
        claims.leftmost.update(categories_in(words, SYNONYMS)[:1])
