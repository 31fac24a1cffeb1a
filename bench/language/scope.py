"""Which words of a sentence are asserted, denied, or neither.

"There is no cat on the couch, but there may be a dog" asserts a couch, denies a cat, and says
nothing of a dog. The rules are those that captions and short answers need:

- A denial (no, not, without …) holds for what follows it, up to the first verb after a noun, a
  comma, a conjunction, or a preposition. Lists go on: "no cats, dogs or birds".
- A hedge (might, possibly …) holds for as much, and claims nothing.
- Behind the verb or preposition that ends a scope, only what is told as known ("on the couch") is
  asserted: "no cat on a couch" claims no couch.
- "A dog is not visible" denies what stands before it. "The dog is not fully visible" does not.
- A question asserts nothing, nor does what stands in quotation marks: it is text in the image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from bench.language.object_mentions import Word

SENTENCE = re.compile(r"[^.!?;\n]*(?:\.(?!\s|$)[^.!?;\n]*)*[.!?;]*")
QUOTED = re.compile(
    r"(?<!\w)(?:'[^'\n]{1,80}?'|\"[^\"\n]{1,80}\"|‘[^’\n]{1,80}’|“[^”\n]{1,80}”)(?!\w)"
)
QUOTATION = "quotation"  # what stands in the place of quoted text

DENIALS = frozenset("no not none without nothing neither n't cannot never".split())
# These deny as well, but are no answers to a question.
OTHER_DENIALS = frozenset("nor lack lacks lacking absence devoid nobody".split())
HEDGES = frozenset(
    "may might could possibly perhaps maybe probably likely presumably potentially if whether "
    "unless unclear would".split()
)
SEEMS = frozenset("seem seems seemed appear appears appeared look looks looked".split())
ALTERNATIVES = frozenset({"rather", "instead"})  # "a photo rather than a painting"
ENDS = frozenset(
    "but however although though while whereas except besides yet because so since".split()
)
PREPOSITIONS = frozenset(
    "about above across after against along alongside amid among around at atop before behind "
    "below beneath beside between by during from in inside into near next on onto outside over "
    "past through throughout to toward towards under underneath up upon with within".split()
)
DEFINITE = frozenset("the its his her their our your this that these those both each".split())
INDEFINITE = frozenset("a an any some another one two three four five six several many".split())
AUXILIARIES = frozenset(
    "is are was were be been being 's 're am has have had do does did can could will would shall "
    "should may might must".split()
)
OF_KNOWN = frozenset("of all every everyone many much only just merely simply longer doubt".split())
OTHERS = frozenset("other others additional further more".split())  # besides those already told
PRESENT = frozenset("visible present seen shown depicted included there pictured evident".split())
ABSENT = frozenset("absent missing nowhere".split())
VIEW = frozenset("image picture photo photograph scene frame view".split())


class Stance(Enum):
    """What a sentence says of a word."""

    ASSERTED = "asserted"
    DENIED = "denied"
    OPEN = "neither"


def sentences(text: str) -> list[str]:
    """The sentences of a text with their marks, without what is quoted in them."""
    text = QUOTED.sub(QUOTATION, text)
    return [sentence.strip() for sentence in SENTENCE.findall(text) if sentence.strip()]


def stances(words: Sequence[Word]) -> list[Stance]:
    """What one sentence says of each of its words.

    Args:
        words: The sentence's words and marks, in order.
    """
    texts = [word.text for word in words]
    if "?" in texts:
        return [Stance.OPEN] * len(words)
    reader = _Reader(words, texts)
    for index in range(len(words)):
        reader.read(index)
    for index in range(len(words)):
        _look_back(texts, index, reader.result)
    return reader.result


class _Reader:
    """Reads a sentence word by word, in one scope or in none."""

    def __init__(self, words: Sequence[Word], texts: Sequence[str]) -> None:
        self.words, self.texts = words, texts
        self.result: list[Stance] = []
        self.stance = Stance.ASSERTED
        self.opener = ""  # the word that opened the scope
        self.has_noun = False  # whether a noun has stood in the scope
        self.is_behind = False  # behind the verb or preposition that ended the scope

    def read(self, index: int) -> None:
        """Appends the stance of the word at `index`."""
        word = self.words[index]
        opened = self._opened(index)
        if opened is not None:
            self._enter(opened, word.text)
        elif self.stance is not Stance.ASSERTED:
            if self._ends(index):
                self._enter(Stance.ASSERTED, "")
            elif not self.is_behind and self._leaves(index):
                # "The man without a hat holds a dog": the main clause goes on.
                if self.opener == "without" and not word.text.endswith(("ing", "ed")):
                    self._enter(Stance.ASSERTED, "")
                else:
                    self.stance, self.is_behind = Stance.OPEN, True
        stance = self.stance
        if self.is_behind and self._is_known(index):
            stance = Stance.ASSERTED
        self.result.append(stance)
        self.has_noun = self.has_noun or (word.is_noun and opened is None)

    def _enter(self, stance: Stance, opener: str) -> None:
        self.stance, self.opener = stance, opener
        self.has_noun = self.is_behind = False

    def _opened(self, index: int) -> Stance | None:
        """The stance of the scope that begins at a word."""
        text, after = self.texts[index], self._text(index + 1)
        if text in DENIALS or text in OTHER_DENIALS:
            # "No, it is a cat": an answer, which denies nothing that follows.
            if text == "no" and index == 0 and after in (",", "."):
                return None
            # "None of the people", "not all people", "not only a dog", "no other people".
            is_of_what_is_there = after in OF_KNOWN and text != "absence" and text != "devoid"
            if is_of_what_is_there:
                return None
            return Stance.OPEN if after in OTHERS else Stance.DENIED
        if text == "free" and after == "of":
            return Stance.DENIED
        if text in HEDGES or text in ALTERNATIVES:
            # "Not likely" and "might not" stay denials.
            return None if self.stance is Stance.DENIED and not self.has_noun else Stance.OPEN
        # "Appears to be a dog", "looks like a dog".
        if text in SEEMS and (after == "like" or self._text(index + 2) == "be"):
            return Stance.OPEN
        if text == "resembling" or text == "resembles":
            return Stance.OPEN
        return None

    def _ends(self, index: int) -> bool:
        """Whether a mark or conjunction ends the scope and what stands behind it."""
        text = self.texts[index]
        if text in ENDS or text == ":":
            return True
        if text in (",", "(", "--", "—", "–"):
            return not self._list_goes_on(index + 1)
        if text in ("and", "&"):
            return not self._and_goes_on(index + 1)
        return False

    def _list_goes_on(self, start: int) -> bool:
        """Whether "or" follows with nothing but noun phrases before it."""
        if self._text(start) in ("or", "nor"):
            return not self.is_behind
        for index in range(start, len(self.texts)):
            text = self.texts[index]
            if text in ("or", "nor"):
                return not self.is_behind
            if text in ("and", "but") or self._is_verb(index) or text in PREPOSITIONS:
                return False
            if text in DEFINITE or (text in INDEFINITE and self.opener == "no"):
                return False
        return False

    def _and_goes_on(self, start: int) -> bool:
        """Whether a bare noun follows that belongs to the denied ones: "no cats and dogs"."""
        if self.is_behind or self._text(start) in DEFINITE | INDEFINITE | PREPOSITIONS:
            return False
        for index in range(start, len(self.texts)):
            if self.texts[index] in (",", ".", "and", "but"):
                break
            if self._is_verb(index):
                return False
        return self.words[start].is_noun if start < len(self.words) else False

    def _leaves(self, index: int) -> bool:
        """Whether the scope ends at a verb or a preposition."""
        text = self.texts[index]
        if self._is_verb(index):
            return self.has_noun
        return text in PREPOSITIONS

    def _is_known(self, index: int) -> bool:
        """Whether a word stands in a phrase that takes its object as known: "on the couch"."""
        for before in range(index, -1, -1):
            text = self.texts[before]
            if text in DEFINITE:
                return True
            is_in_phrase = before == index or not (
                text in INDEFINITE or text in PREPOSITIONS or text in (",", "or", "and")
            )
            if not is_in_phrase or self._is_verb(before) or text == self.opener:
                return False
        return False

    def _is_verb(self, index: int) -> bool:
        return self.words[index].is_verb or self.texts[index] in AUXILIARIES

    def _text(self, index: int) -> str:
        return self.texts[index] if index < len(self.texts) else ""


def _look_back(texts: Sequence[str], index: int, result: list[Stance]) -> None:
    """Changes the stance of a subject whose presence the words at `index` deny or doubt.

    "A dog is not visible", "a dog is absent", "a dog might be present", "a dog cannot be seen".
    """
    text = texts[index]
    is_denial = text in DENIALS
    if not (is_denial or text in ABSENT or text in HEDGES):
        return
    if not is_denial and text in ABSENT:
        predicate = index
    else:
        predicate = index + 1
        while predicate < len(texts) and (
            texts[predicate] in AUXILIARIES or texts[predicate] in DENIALS
        ):
            predicate += 1
        following = texts[predicate : predicate + 3]
        is_in_view = following[:1] == ["in"] and not VIEW.isdisjoint(following)
        if not following or not (following[0] in PRESENT or is_in_view):
            return
    verb = index - 1
    while verb >= 0 and (texts[verb] in AUXILIARIES or texts[verb] in ("ca", "wo")):
        verb -= 1
    # Without a verb between them the word before is no subject: "a dog, absent in the image".
    has_verb = verb < index - 1 or text in HEDGES or text == "cannot"
    if verb >= 0 and has_verb:
        result[verb] = Stance.DENIED if is_denial or text in ABSENT else Stance.OPEN
