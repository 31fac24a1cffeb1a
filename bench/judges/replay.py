"""`replay:FILE`: reviews that somebody recorded earlier.

Reads this tool's verdicts.jsonl, a JSON array of reviews in the order of the samples (texts, or responses of the
OpenAI protocol as MMHal-Bench's eval_gpt4.py saves them), or a log in which each review begins with its number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import JudgeError
from bench.types import Answer, Sample, Verdict


class ReplayJudge:
    """Verdicts from a file, by sample id or by the sample's index. Raises JudgeError where it has none."""

    def __init__(self, file: str, options: Mapping[str, Any]) -> None:
        self.file = Path(file)
        try:
            text = self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise JudgeError(f"The reviews {file} cannot be read.", f"{error}.", "Check the path.") from error
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.reviews = read_reviews(text)
        if not self.reviews:
            raise JudgeError(
                f"{file} holds no review.",
                "It is neither verdicts.jsonl, nor a JSON array, nor a log of numbered reviews.",
                "Give one of these.",
            )

    def describe(self) -> dict[str, Any]:
        """The file's name and its content's digest."""
        return {"kind": "replay", "file": self.file.name, "sha256": self.sha256}

    def judge(self, items: Sequence[tuple[Sample, Answer]]) -> Iterator[list[tuple[Sample, Verdict]]]:
        """All recorded verdicts in one batch."""
        yield [(sample, self._find(sample)) for sample, _ in items]

    def _find(self, sample: Sample) -> Verdict:
        text = self.reviews.get(sample.id, self.reviews.get(str(sample.metadata.get("index"))))
        return Verdict("", "no recorded review") if text is None else Verdict(text)


def read_reviews(text: str) -> dict[str, str]:
    """Review texts by sample id or by running number from 0."""
    stripped = text.lstrip()
    try:
        if stripped.startswith("["):
            return {str(index): _content(item) for index, item in enumerate(json.loads(text))}
        if stripped.startswith("{"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return {str(row["sample"]): str(row["text"]) for row in rows}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise JudgeError(
            "The recorded reviews are corrupt.", f"{type(error).__name__}: {error}.", "Restore the file."
        ) from error
    return _numbered(text)


def _content(item: Any) -> str:
    return item if isinstance(item, str) else str(item["choices"][0]["message"]["content"])


def _numbered(text: str) -> dict[str, str]:
    """A log: review k begins on a line that starts with "k "; a closing summary belongs to none."""
    reviews: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(f"{len(reviews)} "):
            reviews[str(len(reviews))] = [line.partition(" ")[2]]
        elif line.startswith("Average score:"):
            break
        elif reviews:
            reviews[str(len(reviews) - 1)].append(line)
    return {number: "\n".join(lines).strip() for number, lines in reviews.items()}
