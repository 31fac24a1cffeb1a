"""Preference pairs that are there already, in the authors' released JSON.

As a stage of a recipe (`pairs:`), in place of everything before training, it leaves the artifact of
`preferences`, with the images in images/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.export import IMAGE
from alignment.rows import PairRow
from alignment.settings import Beside, RecipeError, Settings
from bench.data.images import link_image, read_image
from bench.errors import DataError
from bench.files import replace_lines

VERSION = "2"
PEOPLE = ("human", "user")  # who asks


class Pairs(Settings):
    """Preference pairs in the authors' released JSON.

    `images` is the folder that their paths start from; by default the file's own.
    """

    path: Beside
    images: Beside | None = None


def identity(settings: Pairs) -> Any:
    """The file's text."""
    return settings.path.read_text(encoding="utf-8")


def check(settings: Pairs) -> None:
    """Raises RecipeError if the file is not in a released format."""
    read_released(settings.path)


def run(settings: Pairs, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Reads released pairs.

    Those without a readable image, with equal or empty responses, or that are more than a question
    and an answer are dropped and counted.
    """
    folder = settings.images or settings.path.parent
    (out / "images").mkdir(exist_ok=True)
    dropped = dict.fromkeys(("no picture", "empty", "equal", "several turns", "other turns"), 0)
    rows: list[PairRow] = []
    for number, row in enumerate(read_released(settings.path)):
        fault = row if isinstance(row, str) else _fault(row, folder)
        if isinstance(row, str) or fault:
            dropped[str(fault)] += 1
            continue
        source = folder / row["image"]
        name = f"{number:06}-{source.name}"  # two folders may hold files of one name
        link_image(source, out / "images" / name)
        rows.append({**row, "image": f"images/{name}"})
    if not rows:
        raise RecipeError(
            f"{settings.path} gives no pair.",
            f"Dropped: {dropped}.",
            "Check `images:`, the folder of its pictures; a pair is one question with two answers.",
        )
    replace_lines(out / "pairs.jsonl", rows)
    return {"pairs": len(rows), **dropped}


def read_released(file: Path) -> list[PairRow | str]:
    """The pairs of a released file; in place of one that is no pair of single answers, why not.

    Raises RecipeError if it is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise TypeError("it is no list")
        return [_pair(row) for row in content]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RecipeError(
            f"{file} is not in the released format.",
            f"{type(error).__name__}: {error}.",
            "Each row needs image, conversations and rejected_conversations of a question and an "
            "answer.",
        ) from error


def _pair(row: Mapping[str, Any]) -> PairRow | str:
    conversations = (row["conversations"], row["rejected_conversations"])
    for turns in conversations:
        speakers = [turn["from"] for turn in turns]
        if len(speakers) < 2 or speakers[0] not in PEOPLE or speakers[1] in PEOPLE:
            return "other turns"  # of a system, or an answer without a question
        if len(speakers) > 2:
            return "several turns"
    (question, chosen), (_, rejected) = conversations
    return {
        "id": str(row["id"]),
        "image": str(row["image"]),
        "instruction": question["value"].replace(IMAGE, "").strip(),
        "chosen": chosen["value"].strip(),
        "rejected": rejected["value"].strip(),
    }


def _fault(row: PairRow, folder: Path) -> str | None:
    """Why a pair is dropped, None if it is not."""
    # An empty rejected response stays: the authors released such rows, and trained on them.
    if not row["chosen"]:
        return "empty"
    if row["chosen"] == row["rejected"]:
        return "equal"
    try:
        read_image(folder / row["image"])
    except DataError:
        return "no picture"
    return None
