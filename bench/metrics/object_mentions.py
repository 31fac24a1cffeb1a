"""Which objects a caption mentions: CHAIR's rule, and the nouns that AMBER looks at.

Reference: LisaAnne/Hallucination chair.py in its form with part-of-speech tags (NLTK word_tokenize, pos_tag,
WordNetLemmatizer), arXiv 1809.02156. NLTK's models and WordNet are downloads, so tokens, tags and lemmas here come
from lemminflect, which ships its lexicon, and from what a word's form and neighbours tell. On the 600 recorded
captions of tests/golden/test_chair.py the objects found agree with the official ones on 99 % of captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

# The pairs that chair.py reads as one word. ("stove top oven" of its list has three words and never fires.)
_PAIRS = (
    "motor bike|motor cycle|air plane|traffic light|street light|traffic signal|stop light|fire hydrant|stop sign|"
    "parking meter|suit case|sports ball|baseball bat|baseball glove|tennis racket|wine glass|hot dog|cell phone|"
    "mobile phone|teddy bear|hair drier|potted plant|laptop computer|home plate|train track"
)
_ANIMALS = "bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|animal|cub"
DOUBLE_WORDS = {
    **{pair: pair for pair in _PAIRS.split("|")},
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS.split("|")},
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}

# NLTK's tokens, as far as they decide which words are seen: hyphens and slashes stay inside a word.
_SPLITS = (
    (re.compile(r"[;@#$%&?!*()\[\]{}<>\"`“”„«»‘’]|\.{2,}|--"), r" \g<0> "),
    (re.compile(r"[:,](?!\d)"), r" \g<0> "),
    (re.compile(r"(?<=[^\s'])('(?:s|m|d|ll|re|ve)?|n't)(?=\s|$)"), r" \1 "),
    (re.compile(r"(?<=[^\s.])(\.)(?=['\s]*(?:\s|$))"), r" \1 "),
)
_DETERMINERS = frozenset("a an the this that these those its his her their our my your some any no".split())
_BEFORE_VERB = frozenset("is are was were be been being 's 're 'm while when".split())
_FUNCTION_WORDS = _DETERMINERS | _BEFORE_VERB
_FUNCTION_WORDS |= frozenset(
    "about above across after against along alongside amid among and around as at atop away back before behind "
    "below beneath beside between beyond but by can could down during each either for from has have he here him in "
    "inside into it like may might near next of off on onto one or out outside over past she should since so such "
    "than there they through throughout to together too toward towards under underneath until up upon which who "
    "will with within without would you".split()
)
# Synonyms that WordNet lacks, so that chair.py never sees their plurals; and `vases`, which it makes `vas`.
_NOT_IN_WORDNET = frozenset(
    "bluejay coworker firetruck hairdryer knive lenovo longboard macbook netbook paddleboat pitbull riverboat "
    "sailboard shortboard skimboard smartphone solider stovetop teddybear televison".split()
)
_SHORTER_IN_WORDNET = {"vases": "vas"}


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
    return token[:-2] if token.endswith(("ches", "shes", "xes", "sses")) else token[:-1]


@lru_cache(maxsize=65536)
def _readings(token: str) -> tuple[str, str | None, bool]:
    """(lemma as a noun, lemma as a verb if there is one, whether the lexicon lists a noun reading)."""
    if not token.isascii() or not token.isalpha():
        return token, None, False
    lemmas = _lemmas(token)
    nouns, verbs = lemmas.get("NOUN", ()), lemmas.get("VERB", ())
    noun = min(nouns, key=len) if nouns else token if lemmas else _singular(token)
    noun = token if noun in _NOT_IN_WORDNET else _SHORTER_IN_WORDNET.get(token, noun)
    return noun, (min(verbs, key=len) if verbs else None), bool(nouns)


@lru_cache(maxsize=65536)
def _modifies(token: str) -> bool:
    return token in _DETERMINERS or (token not in _FUNCTION_WORDS and "ADJ" in _lemmas(token))


def _is_verb(before: str, token: str, after: str) -> bool:
    """Whether a token with a verb reading is a verb here: "a woman seated", "enjoys skiing", not "a skiing trip"."""
    has_noun = _readings(token)[2]
    if not token.endswith("ing"):
        return not has_noun
    if before in _BEFORE_VERB or after in _DETERMINERS:
        return True
    if has_noun:
        return False
    if before.endswith("ly"):
        return True
    heads_on = after.isalpha() and after not in _FUNCTION_WORDS and not after.endswith(("ed", "ly", "ing"))
    return not heads_on and not _modifies(before)


def lemmatize(tokens: Sequence[str]) -> list[str]:
    """Each lower-cased token's lemma under the part of speech that its form and neighbours suggest."""
    lemmas = []
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        noun, verb, _ = _readings(token)
        lemmas.append(verb if verb and verb != noun and _is_verb(before, token, after) else noun)
    return lemmas


def read_synonyms(text: str) -> dict[str, str]:
    """word → category from CHAIR's synonym list: one category a line, its words separated by ", ".

    Split as officially, so that a word behind two spaces keeps one and never fires.
    """
    rows = [line.strip().split(", ") for line in text.splitlines() if line.strip()]
    return {word: row[0] for row in rows for word in row}


def chair_words(caption: str) -> list[str]:
    """The caption's lemmas with chair.py's pairs joined, left to right ("potted plants" → "potted plant")."""
    tokens = tokenize(caption.lower())
    lemmas = lemmatize(tokens)
    words: list[str] = []
    skip = False
    for index, lemma in enumerate(lemmas):
        if skip:
            skip = False
            continue
        second = lemmas[index + 1] if index + 1 < len(lemmas) else ""
        joined = DOUBLE_WORDS.get(f"{lemma} {second}") or DOUBLE_WORDS.get(f"{tokens[index]} {second}")
        words.append(joined or lemma)
        skip = joined is not None
    return words


def mentions_in(words: Sequence[str], synonyms: Mapping[str, str]) -> list[tuple[int, str]]:
    """(index of the word, category) of every object mention; a toilet's seat is no chair."""
    dropped = "seat" if "toilet" in words else None
    return [(index, synonyms[word]) for index, word in enumerate(words) if word != dropped and word in synonyms]


def categories_in(words: Sequence[str], synonyms: Mapping[str, str]) -> list[str]:
    """The category of every object mention, in order, repeats kept."""
    return [category for _, category in mentions_in(words, synonyms)]


def chair_mentions(caption: str, synonyms: Mapping[str, str]) -> list[str]:
    """The categories a raw caption mentions, by CHAIR's rule."""
    return categories_in(chair_words(caption), synonyms)


def nouns(text: str, vocabulary: Iterable[str]) -> list[str]:
    """The nouns of `text` whose lemma is in `vocabulary`, in order, repeats kept.

    As in AMBER's script the text is not lower-cased, so a noun with a capital letter is not found.
    """
    known = frozenset(vocabulary)
    tokens = tokenize(text)
    found = []
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        noun, verb, has_noun = _readings(token)
        if noun in known and (has_noun or verb is None) and not (verb and _is_verb(before, token, after)):
            found.append(noun)
    return found
