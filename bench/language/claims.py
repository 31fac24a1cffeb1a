"""What a response claims about the objects of an image, as yes/no questions.

A vision-language model that sees the image can answer each question, so each claim can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.language.english import COUNTS, NUMBERS, plural, question_about
from bench.language.object_mentions import chair_mentions, chair_words, mentions_in

DENIALS = frozenset("no not none without nothing neither n't cannot never".split())
CLAUSE = re.compile(r"[.;!?\n]|, but ")
NUMBER_WINDOW = 3  # words before an object in which its number may stand
BARE_ANSWER = re.compile(r"\s*(yes|no)\b")


class Claim(NamedTuple):
    """An object that is there or not, or there in a number.

    `number` is None for "at least one".
    """

    object: str
    number: int | None = None
    denied: bool = False

    @property
    def question(self) -> str:
        """The question whose answer is yes if the claim holds, or, for a denial, no."""
        if self.number is None:
            return question_about(self.object)
        if self.number == 1:
            return f"Is there one {self.object} in the image?"
        return f"Are there {NUMBERS[self.number]} {plural(self.object)} in the image?"


def claims_of(text: str, instruction: str, synonyms: Mapping[str, str]) -> list[Claim]:
    """The distinct claims of a response.

    A clause with no, not, none … denies its objects. A bare yes or no is about the objects of the
    instruction. "Two dogs" claims that there are dogs, and their number (the largest one if several
    are told). "A dog" is at least one.

    Args:
        text: The response.
        instruction: What the response answers.
        synonyms: Category by word, as `read_synonyms` returns it.
    """
    numbers: dict[str, int] = {}  # asserted object → the number told of it, 0 for none
    denied: list[str] = []
    # A denial reaches to the end of its clause: "no dog, but a cat" denies the dog only.
    for clause in CLAUSE.split(text):
        words = chair_words(clause)
        if DENIALS.isdisjoint(words):
            _add_assertions(words, synonyms, numbers)
        else:
            denied += chair_mentions(clause, synonyms)
    # "Yes" names nothing itself; it is about what was asked.
    bare = BARE_ANSWER.match(text.lower())
    if bare:
        for name in chair_mentions(instruction, synonyms):
            if bare[1] == "yes":
                numbers.setdefault(name, 0)
            else:
                denied.append(name)
    claims = []
    # That there are dogs is a claim of its own beside their number: it can be right alone.
    for name, number in numbers.items():
        claims.append(Claim(name))
        if number:
            claims.append(Claim(name, number))
    for name in dict.fromkeys(denied):
        # "There is no dog. … The dog …" contradicts itself; what it asserts is what is asked about.
        if name not in numbers:
            claims.append(Claim(name, denied=True))
    return claims


def _add_assertions(
    words: Sequence[str], synonyms: Mapping[str, str], numbers: dict[str, int]
) -> None:
    """Adds the objects of a clause to `numbers`, with the number right before each."""
    start = 0
    for index, name in mentions_in(words, synonyms):
        # The window ends at the object before, whose number is not this one's.
        before = words[max(start, index - NUMBER_WINDOW) : index]
        number = next((COUNTS[word] for word in reversed(before) if word in COUNTS), 0)
        numbers[name] = max(numbers.get(name, 0), number)
        start = index + 1
