"""Which objects a caption mentions: CHAIR's rule, and the nouns that AMBER looks at.

Reference: LisaAnne/Hallucination chair.py in its form with part-of-speech tags (NLTK's
word_tokenize, pos_tag and WordNetLemmatizer), arXiv 1809.02156. NLTK's models and WordNet are
downloads, so tokens, tags and lemmas come from lemminflect here, which ships its lexicon, and from
what a word's form and neighbours tell. On the 600 recorded captions of
tests/golden/test_official_figures.py the objects agree with the official ones on 99 % of captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

# The pairs that chair.py reads as one word. "stove top oven" of its list has three words and so
# never fires; it is left out.
_PAIRS = (
    "motor bike|motor cycle|air plane|traffic light|street light|traffic signal|stop light|"
    "fire hydrant|stop sign|parking meter|suit case|sports ball|baseball bat|baseball glove|"
    "tennis racket|wine glass|hot dog|cell phone|mobile phone|teddy bear|hair drier|potted plant|"
    "laptop computer|home plate|train track"
).split("|")
_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()


def _double_words() -> dict[str, str]:
    """What chair.py makes of two words that are no pair of its list, by the two words."""
    joined = {}
    for animal in _ANIMALS:
        joined[f"baby {animal}"] = animal
        joined[f"adult {animal}"] = animal
    joined["passenger jet"] = "jet"
    joined["passenger train"] = "train"
    joined["bow tie"] = "tie"
    joined["toilet seat"] = "toilet"
    joined["wine glas"] = "wine glass"  # what a lemmatiser makes of "wine glass"
    return joined


ANIMAL_PAIRS = _double_words()
DOUBLE_WORDS = {pair: pair for pair in _PAIRS} | ANIMAL_PAIRS

# NLTK's tokens, as far as they decide which words are seen. Hyphens and slashes stay inside a word.
_SPLITS = (
    (re.compile(r"[;@#$%&?!*()\[\]{}<>\"`“”„«»‘’]|\.{2,}|--"), r" \g<0> "),
    (re.compile(r"[:,](?!\d)"), r" \g<0> "),
    (re.compile(r"(?<=[^\s'])('(?:s|m|d|ll|re|ve)?|n't)(?=\s|$)"), r" \1 "),
    (re.compile(r"(?<=[^\s.])(\.)(?=['\s]*(?:\s|$))"), r" \1 "),
)
_DETERMINERS = frozenset(
    "a an the this that these those its his her their our my your some any no".split()
)
_BEFORE_VERB = frozenset("is are was were be been being 's 're 'm while when".split())
_OTHER_FUNCTION_WORDS = frozenset(
    "about above across after against along alongside amid among and around as at atop away back "
    "before behind below beneath beside between beyond but by can could down during each either "
    "for from has have he here him in inside into it like may might near next of off on onto one "
    "or out outside over past she should since so such than there they through throughout to "
    "together too toward towards under underneath until up upon which who will with within "
    "without would you".split()
)
_FUNCTION_WORDS = _DETERMINERS | _BEFORE_VERB | _OTHER_FUNCTION_WORDS
# Synonyms of CHAIR's list that WordNet lacks, so that chair.py never sees their plurals.
_NOT_IN_WORDNET = frozenset(
    "bluejay coworker firetruck hairdryer knive lenovo longboard macbook netbook paddleboat "
    "pitbull riverboat sailboard shortboard skimboard smartphone solider stovetop teddybear "
    "televison".split()
)
_NO_NOUNS = frozenset({"can"})  # NLTK's tagger calls every can a modal verb
# WordNet's lemmatiser really does this: "men" is a noun of its own there, the work force.
_OTHERWISE_IN_WORDNET = {"vases": "vas", "men": "men"}


class Word(NamedTuple):
    """A word of a sentence, or a pair that chair.py reads as one.

    Args:
        text: As it stands there, in lower case.
        lemma: Under the part of speech that its neighbours suggest.
        is_verb: Whether it is one between these neighbours.
        is_noun: Whether it can be a noun.
    """

    text: str
    lemma: str
    is_verb: bool
    is_noun: bool


class _Readings(NamedTuple):
    """A token's lemma as a noun, as a verb (None if none), and if the lexicon has the noun."""

    noun: str
    verb: str | None
    listed_as_noun: bool


def tokenize(text: str) -> list[str]:
    """Words and punctuation marks."""
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return text.split()


@lru_cache(maxsize=65536)
def _lemmas(token: str) -> Mapping[str, Sequence[str]]:
    from lemminflect import getAllLemmas

    lemmas: Mapping[str, Sequence[str]] = getAllLemmas(token)
    return lemmas


def _singular(token: str) -> str:
    """Singular of a regular plural that the lexicon does not list (streetlights, frisbees)."""
    if not token.endswith("s") or token.endswith(("ss", "us", "is")):
        return token
    if token.endswith("ies") and len(token) > 4:
        return token[:-3] + "y"
    if token.endswith(("ches", "shes", "xes", "sses")):
        return token[:-2]
    return token[:-1]


@lru_cache(maxsize=65536)
def _readings(token: str) -> _Readings:
    # Numbers and punctuation are nobody's plural.
    if not token.isascii() or not token.isalpha():
        return _Readings(token, None, False)
    # The shortest lemma is the most basic form where the lexicon lists several.
    lemmas = _lemmas(token)
    nouns, verbs = lemmas.get("NOUN", ()), lemmas.get("VERB", ())
    if nouns:
        noun = min(nouns, key=len)
    else:
        # A word that the lexicon knows as another part of speech is no plural of a noun.
        noun = token if lemmas else _singular(token)
    if noun in _NOT_IN_WORDNET:
        noun = token
    else:
        noun = _OTHERWISE_IN_WORDNET.get(token, noun)
    verb = min(verbs, key=len) if verbs else None
    return _Readings(noun, verb, bool(nouns))


@lru_cache(maxsize=65536)
def _modifies_noun(token: str) -> bool:
    if token in _DETERMINERS:
        return True
    return token not in _FUNCTION_WORDS and "ADJ" in _lemmas(token)


def _is_verb(before: str, token: str, after: str) -> bool:
    """Whether a token with a verb reading is a verb between its neighbours.

    A verb: "a woman seated", "enjoys skiing". No verb: "a skiing trip".
    """
    listed_as_noun = _readings(token).listed_as_noun
    if not token.endswith("ing"):
        return not listed_as_noun
    if before in _BEFORE_VERB or after in _DETERMINERS:
        return True
    if listed_as_noun:
        return False
    if before.endswith("ly"):
        return True
    after_is_content = after.isalpha() and after not in _FUNCTION_WORDS
    heads_noun_phrase = after_is_content and not after.endswith(("ed", "ly", "ing"))
    return not heads_noun_phrase and not _modifies_noun(before)


def _is_adjective(before: str, token: str, after: str) -> bool:
    """Whether a noun that is an adjective too stands before a noun: "a light jacket"."""
    # NLTK's tagger calls the colour a noun.
    if token == "orange" or "ADJ" not in _lemmas(token):
        return False
    if after in _FUNCTION_WORDS or not after.isalpha():
        return False
    return bool(_lemmas(after).get("NOUN")) and not _is_verb(token, after, "")


def _with_neighbours(tokens: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(token before, token, token after), empty at the ends."""
    return zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)


def _words(tokens: Sequence[str]) -> Iterator[Word]:
    """Each lower-cased token as its neighbours suggest."""
    for before, token, after in _with_neighbours(tokens):
        noun, verb, listed_as_noun = _readings(token)
        reads_as_verb = verb is not None and _is_verb(before, token, after)
        lemma = verb if verb is not None and reads_as_verb else noun
        # "The man holds a dog". The lemma stays as chair.py's tags have it.
        has_object = verb is not None and after in _DETERMINERS and _readings(before).listed_as_noun
        is_verb = reads_as_verb or has_object
        is_noun = listed_as_noun and not is_verb and token not in _FUNCTION_WORDS
        yield Word(token, lemma, is_verb, is_noun)


def read_synonyms(text: str) -> dict[str, str]:
    """Category by word, from CHAIR's synonym list: one category a line, words separated by ", ".

    The lines are split as officially, so a word behind two spaces keeps one and never fires.
    """
    category_of = {}
    for line in text.splitlines():
        if line.strip():
            words = line.strip().split(", ")
            category_of.update(dict.fromkeys(words, words[0]))
    return category_of


def joined_pairs(lemmas: Sequence[str]) -> list[str]:
    """Lemmas with chair.py's pairs as one word each.

    >>> joined_pairs(["a", "hot", "dog", "stand"])
    ['a', 'hot dog', 'stand']
    """
    words: list[str] = []
    index = 0
    while index < len(lemmas):
        joined = DOUBLE_WORDS.get(" ".join(lemmas[index : index + 2]))
        words.append(joined or lemmas[index])
        index += 2 if joined else 1
    return words


def read_words(caption: str) -> list[Word]:
    """The caption's words with chair.py's pairs joined, left to right."""
    singles = list(_words(tokenize(caption.lower())))
    words: list[Word] = []
    index = 0
    while index < len(singles):
        word = singles[index]
        words.append(word)
        index += 1
        if index == len(singles):
            break
        second = singles[index]
        # "potted plants" is found by its lemmas, "hot dogs" by its first token.
        joined = DOUBLE_WORDS.get(f"{word.lemma} {second.lemma}")
        joined = joined or DOUBLE_WORDS.get(f"{word.text} {second.lemma}")
        if joined:
            words[-1] = Word(f"{word.text} {second.text}", joined, False, True)
            index += 1
    return words


def chair_words(caption: str) -> list[str]:
    """The lemmas of a caption's words.

    >>> chair_words("Two potted plants.")[1]
    'potted plant'
    """
    return [word.lemma for word in read_words(caption)]


def mentions_in(words: Sequence[str], synonyms: Mapping[str, str]) -> list[tuple[int, str]]:
    """(index of the word, category) of every object mention; a toilet's seat is no chair."""
    # chair.py makes this one exception: "toilet seat" has no chair.
    not_an_object = "seat" if "toilet" in words else None
    mentions = []
    for index, word in enumerate(words):
        if word != not_an_object and word in synonyms:
            mentions.append((index, synonyms[word]))
    return mentions


def categories_in(words: Sequence[str], synonyms: Mapping[str, str]) -> list[str]:
    """The category of every object mention, in order, repeats kept."""
    return [category for _, category in mentions_in(words, synonyms)]


def nouns(text: str, vocabulary: Iterable[str]) -> list[str]:
    """The nouns of `text` whose lemma is in `vocabulary`, in order, repeats kept.

    As in AMBER's script the text is not lower-cased, so a noun with a capital letter is not found.
    """
    known = frozenset(vocabulary)
    found_nouns = []
    for before, token, after in _with_neighbours(tokenize(text)):
        noun, verb, listed_as_noun = _readings(token)
        if noun not in known or (verb is not None and not listed_as_noun):
            continue
        # "watch" is a clock in "a watch" and none in "they watch".
        if verb and _is_verb(before, token, after):
            continue
        if token in _NO_NOUNS or _is_adjective(before, token, after):
            continue
        found_nouns.append(noun)
    return found_nouns
