"""Claims about whatever a response names, with numbers and attributes: no list of objects.

Needs NLTK with its tagger and WordNet. "Two red cars" claims that there are cars, that there are
two, and that there are red ones. Nouns of what cannot be seen as a thing ("mood", "background") are
told apart by WordNet's first sense of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bench.language.claims import BARE_ANSWER, Claim, what_is_asked_to_exist
from bench.language.coco_objects import OBJECTS
from bench.language.english import COUNTS, NUMBERS, question_about
from bench.language.object_mentions import Word
from bench.language.scope import QUOTATION, Stance, sentences, stances

PHRASE = "PHRASE: {<CD>?<JJ.*|VBN|NN.*>*<NN.*>}"
# WordNet's files of nouns for what can be seen in an image.
VISIBLE = frozenset(
    f"noun.{name}" for name in "animal artifact body food object person plant substance".split()
)
TURNED = frozenset({"noun.group", "noun.communication"})
# WordNet's first sense of "table" is a list, of "stop sign" a message.
KNOWN = frozenset({"sign", *OBJECTS}.union(*OBJECTS.values()))
# Things by WordNet, but about the image itself or where something is in it.
NO_THINGS = frozenset(
    "image picture photo photograph scene view background foreground setting side left right "
    "center centre middle top bottom front back corner edge area part piece item object thing "
    "element detail feature kind type sort variety number pair group lot couple bunch range "
    "display arrangement style color colour light lighting frame shot camera viewer line way "
    "place space surface position direction end row layer serving backdrop glimpse".split()
)
# Adjectives that say where or how many, or nothing that an image could settle.
NO_ATTRIBUTES = frozenset(
    "other several many various different numerous more few own such same main overall next left "
    "right visible present additional certain possible entire whole first second third last close "
    "single individual similar".split()
)
COUNTED = frozenset("a an no one another each every".split())
NUMBER_TAG, PLURAL_TAGS = "CD", ("NNS", "NNPS")


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what stands before it.

    Args:
        name: The noun, or several: "traffic light".
        lemma: The name with its last noun in the singular.
        attributes: Adjectives.
        number: The number told, 0 for none.
        is_plural: Whether the last noun is.
        is_counted: Whether its article or number shows that it can be counted.
    """

    name: str
    lemma: str
    attributes: Sequence[str]
    number: int
    is_plural: bool
    is_counted: bool

    def question(self, words: str = "") -> str:
        """Whether it is there, with `words` before its name."""
        name = f"{words} {self.name}".strip()
        if self.is_plural:
            return f"Are there {name} in the image?"
        if self.is_counted:
            return question_about(name)
        return f"Is there any {name} in the image?"


def claims_of(text: str, instruction: str) -> list[Claim]:
    """The distinct claims of a response.

    Args:
        text: The response.
        instruction: What the response answers.
    """
    in_instruction = set()
    for sentence in sentences(instruction):
        in_instruction |= {phrase.lemma for phrase, _ in _phrases(sentence)}
    claims: dict[Sequence[object], Claim] = {}  # by what tells claims apart
    denied: dict[Sequence[object], Claim] = {}
    for sentence in sentences(text):
        for phrase, stance in _phrases(sentence):
            is_asked = phrase.lemma in in_instruction
            if stance is Stance.ASSERTED:
                for claim_key, claim in _assertions(phrase, is_asked).items():
                    claims.setdefault(claim_key, claim)
            elif stance is Stance.DENIED:
                # Of "no red car" only the whole is denied.
                question = phrase.question(" ".join(phrase.attributes))
                claim = Claim(question, phrase.lemma, denied=True, asked=is_asked)
                denied.setdefault((phrase.lemma, *phrase.attributes), claim)
    answer = BARE_ANSWER.match(text)
    what = what_is_asked_to_exist(instruction)
    if answer and what:
        name = what.lower()
        is_denial = answer[1].lower() == "no"
        claim = Claim(question_about(what), name, denied=is_denial, asked=True)
        (denied if is_denial else claims).setdefault((name,), claim)
    # What a response asserts elsewhere is what it is asked about.
    asserted = {claim.subject for claim in claims.values()}
    only_denied = [claim for claim in denied.values() if claim.subject not in asserted]
    return [*claims.values(), *only_denied]


def _assertions(phrase: NounPhrase, is_asked: bool) -> dict[Sequence[object], Claim]:
    """The claims of an asserted phrase, by what tells them from the claims of other phrases."""
    name = phrase.lemma
    claims: dict[Sequence[object], Claim] = {
        (name,): Claim(phrase.question(), name, asked=is_asked)
    }
    if phrase.number:
        word = NUMBERS[phrase.number]
        question = f"Is there one {phrase.name} in the image?"
        if phrase.is_plural:
            question = phrase.question(word)
        claims[name, phrase.number] = Claim(question, name, "detail", phrase.number, asked=is_asked)
    for attribute in phrase.attributes:
        claims[name, attribute] = Claim(phrase.question(attribute), name, "detail", asked=is_asked)
    return claims


def _phrases(sentence: str) -> list[tuple[NounPhrase, Stance]]:
    """The noun phrases of a sentence for things that can be seen, each with its stance."""
    import nltk

    tagged: list[tuple[str, str]] = nltk.pos_tag(nltk.word_tokenize(sentence))
    words = []
    for token, tag in tagged:
        is_verb = tag.startswith(("VB", "MD")) and tag != "VBN"
        words.append(Word(token.lower(), token.lower(), is_verb, tag.startswith("NN")))
    stance_of = stances(words)
    phrases = []
    start = 0
    for node in _chunker().parse(tagged):
        length = len(node) if isinstance(node, nltk.Tree) else 1
        if isinstance(node, nltk.Tree):
            before = words[start - 1].text if start else ""
            phrase = _phrase(list(node), before)
            if phrase is not None:
                phrases.append((phrase, stance_of[start + length - 1]))
        start += length
    return phrases


def _phrase(tagged: Sequence[tuple[str, str]], before: str) -> NounPhrase | None:
    """A chunk as a noun phrase; None if it is no thing.

    Args:
        tagged: Its tokens with their tags.
        before: The word before it.
    """
    nouns: list[str] = []
    attributes = []
    number = 0
    for token, tag in tagged:
        word = token.lower()
        if tag.startswith("NN"):
            nouns.append(word)
        elif tag == NUMBER_TAG:
            number = COUNTS.get(word, 0)
        elif word.isalpha() and word not in NO_ATTRIBUTES:
            attributes.append(word)
    is_plural = tagged[-1][1] in PLURAL_TAGS
    name = nouns.pop()
    lemma = _singular(name) if is_plural else name
    # "A traffic light" is one thing, "a kitchen counter" a counter of some kind.
    if nouns and _files_of_senses(f"{nouns[-1]}_{lemma}"):
        modifier = nouns.pop()
        name, lemma = f"{modifier} {name}", f"{modifier} {lemma}"
    attributes += nouns[-1:]
    if lemma == QUOTATION or lemma in NO_THINGS:
        return None
    if lemma not in KNOWN and not _is_visible(lemma.replace(" ", "_")):
        return None
    is_counted = before in COUNTED or number == 1 or lemma in KNOWN
    return NounPhrase(name, lemma, attributes, number, is_plural, is_counted)


@lru_cache(maxsize=65536)
def _is_visible(name: str) -> bool:
    """Whether a noun's first sense can be seen in an image.

    The first sense of "church" is its people and of "billboard" its message; the second one counts.
    """
    files = _files_of_senses(name)
    if files[:1] and files[0] in TURNED:
        files = files[1:]
    return bool(files) and files[0] in VISIBLE


@lru_cache(maxsize=65536)
def _files_of_senses(name: str) -> list[str]:
    """WordNet's files ("noun.artifact") of a noun's senses, the most frequent first."""
    from nltk.corpus import wordnet

    return [sense.lexname() for sense in wordnet.synsets(name, "n")]


@lru_cache(maxsize=65536)
def _singular(noun: str) -> str:
    from nltk.stem import WordNetLemmatizer

    singular: str = WordNetLemmatizer().lemmatize(noun, "n")
    return singular


@lru_cache(maxsize=1)
def _chunker() -> Any:
    import nltk

    return nltk.RegexpParser(PHRASE)
