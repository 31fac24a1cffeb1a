"""What a response claims about the objects of an image, as yes/no questions that a vision-language model can answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.data.pope_questions import question_about
from bench.judges.scene import COUNTS, DENIALS
from bench.metrics.object_mentions import chair_mentions, chair_words
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
    claims that there are dogs, and their number; "a dog" is at least one.
    """
    asserted: dict[Claim, None] = {}
    denied: dict[Claim, None] = {}
    for clause in CLAUSE.split(text):
        words = chair_words(clause)
        if DENIALS & {*words}:
            denied.update((Claim(name, denied=True), None) for name in chair_mentions(clause, synonyms))
        else:
            asserted.update(dict.fromkeys(_asserted(words, synonyms)))
    first = re.match(r"\s*(yes|no)\b", text.lower())
    if first:
        yes = first[1] == "yes"
        about = [Claim(name, denied=not yes) for name in chair_mentions(instruction, synonyms)]
        (asserted if yes else denied).update(dict.fromkeys(about))
    there = {claim.object for claim in asserted}
    return [*asserted, *(claim for claim in denied if claim.object not in there)]


def _asserted(words: Sequence[str], synonyms: Mapping[str, str]) -> list[Claim]:
    made = []
    start = 0
    for place, word in enumerate(words):
        if word not in synonyms or (word == "seat" and "toilet" in words):
            continue
        made.append(Claim(synonyms[word]))
        numbers = [COUNTS[near] for near in words[max(start, place - BEFORE) : place] if near in COUNTS]
        made += [Claim(synonyms[word], numbers[-1])] if numbers else []
        start = place + 1
    return made
