"""What a response claims about the objects of an image, as yes/no questions that a vision-language model can answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.data.pope_questions import question_about
from bench.judges.scene import COUNTS, DENIALS
from bench.metrics.object_mentions import chair_mentions, chair_words, mentions_in
from bench.scenes.facts import NUMBERS, plural

CLAUSE = re.compile(r"[.;!?\n]|, but ")
BEFORE = 3  # words in which an object's number may stand


class Claim(NamedTuple):
    """An object that is there or not, or there in a number; `number` is None for "at least one"."""

    object: str
    number: int | None = None
    denied: bool = False

    @property
    def question(self) -> str:
        """The question whose answer is yes where the claim holds, or, for a denial, no."""
        if self.number is None:
            return question_about(self.object)
        if self.number == 1:
            return f"Is there one {self.object} in the image?"
        return f"Are there {NUMBERS[self.number]} {plural(self.object)} in the image?"


def claims_of(text: str, instruction: str, synonyms: Mapping[str, str]) -> list[Claim]:
    """The distinct claims of a response.

    A clause with no, not, none … denies its objects; a bare yes or no is about those of the instruction. "Two dogs"
    claims that there are dogs, and their number, the largest where several are told; "a dog" is at least one.
    """
    asserted: dict[str, int] = {}  # object → the number that was told of it, 0 for none
    denied: dict[Claim, None] = {}
    for clause in CLAUSE.split(text):
        words = chair_words(clause)
        if DENIALS & {*words}:
            denied.update((Claim(name, denied=True), None) for name in chair_mentions(clause, synonyms))
        else:
            _assert(words, synonyms, asserted)
    first = re.match(r"\s*(yes|no)\b", text.lower())
    if first:
        for name in chair_mentions(instruction, synonyms):
            if first[1] == "yes":
                asserted.setdefault(name, 0)
            else:
                denied[Claim(name, denied=True)] = None
    made = []
    for name, number in asserted.items():
        made.append(Claim(name))
        if number:
            made.append(Claim(name, number))
    return [*made, *(claim for claim in denied if claim.object not in asserted)]


def _assert(words: Sequence[str], synonyms: Mapping[str, str], asserted: dict[str, int]) -> None:
    start = 0
    for place, name in mentions_in(words, synonyms):
        before = words[max(start, place - BEFORE) : place]
        told = next((COUNTS[word] for word in reversed(before) if word in COUNTS), 0)
        asserted[name] = max(asserted.get(name, 0), told)
        start = place + 1
