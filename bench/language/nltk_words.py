"""Words as the official scripts of CHAIR and AMBER see them: NLTK's tokens, tags and lemmas.

LisaAnne/Hallucination chair.py in its form with part-of-speech tags (as OPERA and others use it;
the first form singularised without tags), and junyangwang0410/AMBER inference.py. Exact with NLTK
3.9.1, its English tokenizer, tagger and WordNet: NLTK 3.10 splits quotes and dashes differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from bench.language.object_mentions import joined_pairs

VERSION = "3.9.1"
RESOURCES = ("taggers/averaged_perceptron_tagger_eng", "tokenizers/punkt_tab", "corpora/wordnet")
# WordNet's parts of speech by the first letter of a tag; all other words are read as nouns.
PART_OF_SPEECH = {"J": "a", "V": "v", "N": "n", "R": "r"}


def what_is_missing() -> str | None:
    """What the official words need and is not here; None if nothing."""
    try:
        import nltk

        if nltk.__version__ != VERSION:
            return f"NLTK {nltk.__version__} is installed, and {VERSION} is needed"
        for resource in RESOURCES:
            nltk.data.find(resource)
    except ImportError:
        return "NLTK is not installed"
    except LookupError:
        return "NLTK's data is not installed"
    return None


def chair_words(caption: str) -> list[str]:
    """The caption's lemmas with chair.py's pairs joined, left to right."""
    import nltk

    lemmas = []
    for word, tag in nltk.pos_tag(nltk.word_tokenize(caption.lower())):
        lemmas.append(_lemmatizer().lemmatize(word, PART_OF_SPEECH.get(tag[0], "n")))
    return joined_pairs(lemmas)


def nouns(text: str, vocabulary: Iterable[str]) -> list[str]:
    """The nouns of `text` whose lemma is in `vocabulary`, in order, repeats kept.

    As in AMBER's script, the text is not lower-cased.
    """
    import nltk

    known = frozenset(vocabulary)
    lemmas = []
    for word, tag in nltk.pos_tag(nltk.word_tokenize(text)):
        if tag.startswith("NN"):
            lemmas.append(_lemmatizer().lemmatize(word))
    return [lemma for lemma in lemmas if lemma in known]


@cache
def _lemmatizer() -> Any:
    from nltk.stem import WordNetLemmatizer

    return WordNetLemmatizer()
