"""`replay:FILE`: reviews that somebody recorded earlier.

Reads this tool's verdicts.jsonl, a JSON array of reviews in the order of the samples (texts, or
responses of the OpenAI protocol as MMHal-Bench's eval_gpt4.py saves them), or a log in which each
review begins with its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import JudgeError
from bench.files import parse_json
from bench.types import Answer, Sample, Verdict

SUMMARY = "Average score:"  # what follows it in a log belongs to no review


class ReplayJudge:
    """Verdicts from a file, by sample id or by the sample's index.

    Raises JudgeError if it has none.
    """

    OPTIONS = frozenset[str]()

    def __init__(self, file: str, options: Mapping[str, Any]) -> None:
        self.file = Path(file)
        try:
            text = self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JudgeError(
                f"The reviews {file} cannot be read.", f"{error}.", "Check the path."
            ) from error
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.reviews = read_reviews(text, file)
        # Our own verdicts.jsonl holds reviews by our rubric; all else is the official scorer's.
        self.is_official = not text.lstrip().startswith("{")
        if not self.reviews:
            raise JudgeError(
                f"{file} holds no review.",
                "It is neither verdicts.jsonl, nor a JSON array, nor a log of numbered reviews.",
                "Give one of these.",
            )

    def describe(self) -> dict[str, Any]:
        """The file's name, its content's digest and by which rule ratings are read."""
        reading = "official" if self.is_official else "rubric"
        return {
            "kind": "replay",
            "file": self.file.name,
            "sha256": self.sha256,
            "reading": reading,
        }

    def judge(
        self, items: Sequence[tuple[Sample, Answer]]
    ) -> Iterator[list[tuple[Sample, Verdict]]]:
        """All recorded verdicts in one batch."""
        yield [(sample, self._verdict(sample)) for sample, _ in items]

    def _verdict(self, sample: Sample) -> Verdict:
        # The official scorer saves reviews in the order of the questions, without ids.
        by_index = self.reviews.get(str(sample.metadata.get("index")))
        text = self.reviews.get(sample.id, by_index)
        if text is None:
            return Verdict("", "no recorded review")
        return Verdict(text, official=self.is_official)


def read_reviews(text: str, file: str = "The file") -> dict[str, str]:
    """Review texts by sample id, or by running number from 0.

    A log begins with neither [ nor {. Raises JudgeError, with `file` and the place, for what is no
    review.
    """
    stripped = text.lstrip()
    reviews: dict[str, str] = {}
    try:
        if stripped.startswith("["):
            items = parse_json(text)
        elif stripped.startswith("{"):
            items = map(parse_json, filter(str.strip, text.split("\n")))
        else:
            return _numbered(text)
        for item in items:
            sample, review = _review(item, len(reviews))
            reviews[sample] = review
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise JudgeError(
            f"{file}: item {len(reviews) + 1} is no review.",
            f"{type(error).__name__}: {error}.",
            "It is a text, a response of the OpenAI protocol, or an object with `sample` and "
            "`text`: restore the file.",
        ) from error
    return reviews


def _review(item: Any, number: int) -> tuple[str, str]:
    """The sample of a text, of an object that names it or of a response of the OpenAI protocol, and
    the review."""
    sample, review = str(number), item
    if isinstance(item, dict) and "sample" in item:
        sample, review = str(item["sample"]), item["text"]
    elif isinstance(item, dict):
        review = item["choices"][0]["message"]["content"]
    if not isinstance(review, str):
        raise TypeError(f"{ascii(review)[:40]} is no text")
    return sample, review


def _numbered(text: str) -> dict[str, str]:
    """A log: review k begins on a line that starts with "k "."""
    # Reviews hold line breaks and numbers, so only the next number at a line's start begins one.
    reviews: list[list[str]] = []  # lines of each review
    for line in text.split("\n"):
        if line.startswith(f"{len(reviews)} "):
            reviews.append([line.partition(" ")[2]])
        elif line.startswith(SUMMARY):
            break
        elif reviews:
            reviews[-1].append(line)
    return {str(number): "\n".join(lines).strip() for number, lines in enumerate(reviews)}
