"""What a response claims about an image, as yes/no questions.

A vision-language model that sees the image can answer each question, so each claim can be checked.
Here claims are about objects of a list such as CHAIR's; `noun_phrases.py` needs no list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from bench.language.english import COUNTS, question_about, question_about_number
from bench.language.object_mentions import Word, mentions_in, read_words
from bench.language.scope import DEFINITE, PREPOSITIONS, Stance, sentences, stances

NUMBER_WINDOW = 3  # words before an object in which its number may stand
# "At least two dogs", "more than two": not exactly two.
ROUGHLY = frozenset("least most than about around approximately nearly almost roughly".split())
OTHER_ONES = frozenset({"another", "other", "others"})
BARE_ANSWER = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
VIEW = r"(?:in|on|within) (?:the|this) (?:image|picture|photo|photograph|scene)"
# Questions whose bare answer is about an object being there, and nothing else.
EXISTENCE = (
    re.compile(rf"(?:is|are|was|were) there (?P<what>.+?)(?: {VIEW})?\?", re.IGNORECASE),
    re.compile(
        r"(?:does|do) (?:the|this) (?:image|picture|photo|photograph|scene) "
        r"(?:contain|show|have|include|feature|depict|display) (?P<what>.+?)\?",
        re.IGNORECASE,
    ),
    re.compile(rf"(?:can|do|could) you see (?P<what>.+?)(?: {VIEW})?\?", re.IGNORECASE),
    re.compile(
        rf"(?:is|are) (?P<what>(?:an?|any) .+?) (?:visible|present|shown|seen)?(?: ?{VIEW})?\?",
        re.IGNORECASE,
    ),
)
AROUND_WHAT = re.compile(
    r"^(?:an?|any|some|one|at least one|the) |(?: (?:visible|present|anywhere|shown))+$",
    re.IGNORECASE,
)


class Claim(NamedTuple):
    """Something that a response says is so, or is not so.

    Args:
        question: Its answer is yes if the claim holds, or, for a denial, no.
        subject: The object or words that the claim is about.
        kind: An object being there, or a detail of it: its number, an attribute.
        number: How many objects there are said to be; None for "at least one".
        denied: Whether the response says that it is not so.
        asked: Whether the instruction asks about the subject.
    """

    question: str
    subject: str
    kind: Literal["object", "detail"] = "object"
    number: int | None = None
    denied: bool = False
    asked: bool = False


def object_claim(
    name: str, number: int | None = None, denied: bool = False, asked: bool = False
) -> Claim:
    """An object that is there or not, or there in a number.

    >>> object_claim("knife", 3).question
    'Are there three knives in the image?'
    """
    if number is None:
        return Claim(question_about(name), name, "object", None, denied, asked)
    question = question_about_number(name, number)
    return Claim(question, name, "detail", number, denied, asked)


def claims_of(text: str, instruction: str, synonyms: Mapping[str, str]) -> list[Claim]:
    """The distinct claims of a response.

    What is asserted and what is denied is told by `bench/language/scope.py`. A bare yes or no is
    about the object of an instruction that asks if it is there. "Two dogs" claims that there are
    dogs, and their number (the largest one if several are told). "A dog" is at least one, and so
    is "one dog" beside another.

    Args:
        text: The response.
        instruction: What the response answers.
        synonyms: Category by word, as `read_synonyms` returns it.
    """
    numbers: dict[str, int] = {}  # asserted object → the number told of it, 0 for none
    denied: dict[str, None] = {}
    has_other_ones = False
    for sentence in sentences(text):
        words = read_words(sentence)
        sentence_stances = stances(words)
        has_other_ones |= any(word.text in OTHER_ONES for word in words)
        start = 0
        for index, name in _mentions(words, synonyms):
            if sentence_stances[index] is Stance.ASSERTED:
                number = _number_before(words, start, index)
                numbers[name] = max(numbers.get(name, 0), number)
            elif sentence_stances[index] is Stance.DENIED:
                denied[name] = None
            start = index + 1
    asked = asked_objects(instruction, synonyms)
    answer = BARE_ANSWER.match(text)
    # "Yes" names nothing itself; it is about what was asked.
    if answer:
        for name in _objects_in_question(instruction, synonyms):
            if answer[1].lower() == "yes":
                numbers.setdefault(name, 0)
            else:
                denied[name] = None
    claims = []
    # That there are dogs is a claim of its own beside their number: it can be right alone.
    for name, number in numbers.items():
        claims.append(object_claim(name, asked=name in asked))
        is_one_of_several = number == 1 and has_other_ones
        if number and not is_one_of_several:
            claims.append(object_claim(name, number, asked=name in asked))
    for name in denied:
        # "There is no dog. … The dog …" contradicts itself; what it asserts is what is asked about.
        if name not in numbers:
            claims.append(object_claim(name, denied=True, asked=name in asked))
    return claims


def asked_objects(instruction: str, synonyms: Mapping[str, str]) -> set[str]:
    """The objects that an instruction names."""
    return {name for _, name in _mentions(read_words(instruction), synonyms)}


def what_is_asked_to_exist(instruction: str) -> str | None:
    """The words for what an instruction asks to be there; None if it asks something else.

    >>> what_is_asked_to_exist("Is there a wine glass in the image?")
    'wine glass'
    >>> what_is_asked_to_exist("Is the dog to the left of the couch?")
    """
    first_line = instruction.strip().partition("\n")[0]
    for pattern in EXISTENCE:
        match = pattern.match(first_line)
        if match:
            # "Is there a dog on the couch?" asks for more than a dog.
            what = AROUND_WHAT.sub("", match["what"].strip())
            return None if PREPOSITIONS & set(what.lower().split()) else what
    return None


def _objects_in_question(instruction: str, synonyms: Mapping[str, str]) -> list[str]:
    """The object whose being there an instruction asks about, and nothing else of it."""
    what = what_is_asked_to_exist(instruction)
    words = read_words(what or "")
    # "Is there a red car?" or "a dog and a cat?": no says of neither that it is not there.
    return [name for _, name in _mentions(words, synonyms)] if len(words) == 1 else []


def _mentions(words: Sequence[Word], synonyms: Mapping[str, str]) -> list[tuple[int, str]]:
    lemmas = []
    for word in words:
        # chair.py sees no man in "men", but who claims men claims a man. It sees a plant in "feet
        # planted on the ground" and skis in "skied", where none is claimed.
        lemma = "man" if word.text == "men" else word.lemma
        lemmas.append("" if word.is_verb else lemma)
    return mentions_in(lemmas, synonyms)


def _number_before(words: Sequence[Word], start: int, index: int) -> int:
    """The number told of the object at `index`, 0 for none.

    Args:
        words: The sentence.
        start: The word after the object before, whose number is not this one's.
        index: The object's place.
    """
    for number_index in range(index - 1, max(start, index - NUMBER_WINDOW) - 1, -1):
        text = words[number_index].text
        # "One of the people" is not the number of people, nor "no one on the bench" of benches.
        if text == "of" or text in PREPOSITIONS or text in DEFINITE:
            return 0
        if text in COUNTS:
            before = [word.text for word in words[max(0, number_index - 2) : number_index]]
            # "Two or three dogs", "two to three dogs".
            is_range = len(before) == 2 and before[0] in COUNTS and before[1] in ("or", "to")
            is_rough = is_range or not ROUGHLY.isdisjoint(before[-1:])
            return 0 if is_rough else COUNTS[text]
    return 0
