"""Numbers, articles and plurals, for questions about objects and sentences that name them."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = {word: number for number, word in enumerate(NUMBERS) if number}
COUNTS |= {str(number): number for number in range(1, 10)}
PAIRS = ("skis", "scissors")  # one of them is a pair already, without an article
# COCO's categories only: a general rule for English would be longer and right less often.
IRREGULAR = {
    "person": "people",
    "bus": "buses",
    "sheep": "sheep",
    "knife": "knives",
    "sandwich": "sandwiches",
    "couch": "couches",
    "skis": "skis",
    "scissors": "scissors",
    "mouse": "mice",
    "wine glass": "wine glasses",
    "bench": "benches",
    "toothbrush": "toothbrushes",
    "broccoli": "broccoli",
}


def article(name: str) -> str:
    """The name with its indefinite article; none for pairs.

    >>> article("apple"), article("dog"), article("scissors")
    ('an apple', 'a dog', 'scissors')
    """
    return name if name in PAIRS else with_article(name)


def with_article(name: str) -> str:
    """The name with "a" or "an", whatever it is, as POPE's question template has it."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """The name's plural."""
    return IRREGULAR.get(name, f"{name}s")


def counted(name: str, count: int) -> str:
    """The name with its number.

    >>> counted("dog", 1), counted("dog", 2)
    ('a dog', 'two dogs')
    """
    return article(name) if count == 1 else numbered(name, count)


def numbered(name: str, number: int) -> str:
    """The name with its number as a word, one as well.

    >>> numbered("knife", 1), numbered("knife", 3)
    ('one knife', 'three knives')
    """
    return f"{NUMBERS[number]} {name if number == 1 else plural(name)}"


def listed(parts: Sequence[str]) -> str:
    """The parts as a list in a sentence.

    >>> listed(["a dog", "a cat", "two cars"])
    'a dog, a cat and two cars'
    """
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def question_about_number(name: str, number: int) -> str:
    """Whether an object is there in a number.

    >>> question_about_number("knife", 3)
    'Are there three knives in the image?'
    """
    return f"{'Is' if number == 1 else 'Are'} there {numbered(name, number)} in the image?"


def question_about(name: str) -> str:
    """POPE's question about an object (arXiv 2305.10355, section 4).

    >>> question_about("apple")
    'Is there an apple in the image?'
    """
    return f"Is there {with_article(name)} in the image?"
