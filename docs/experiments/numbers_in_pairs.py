"""Numbers that the two sides of preference pairs name, and how many of them are right.

    python docs/experiments/numbers_in_pairs.py out/images-… out/responses-… out/preferences-…

Of folders of `bench align` on scenes: images, all responses to them, and pairs, any number of
folders. Prints how many numbers of objects an answer names, and the share in percent that the
scene's facts confirm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bench.errors import DataError
from bench.files import read_lines
from bench.grounding.readers import Response, reader_of
from bench.scenes.facts import scene_of


class Answered(NamedTuple):
    """An answer about the scene whose picture has this name."""

    picture: str
    response: Response


def numbers_in(answers: Iterable[Answered]) -> str:
    """How many numbers an answer names, and how many of them are right."""
    answers = list(answers)
    named = right = 0
    reader = reader_of("coco", DataError)
    for index, claims in reader.read([answer.response for answer in answers]):
        counts = scene_of(answers[index].picture).counts
        for claim in claims:
            if claim.number is not None and not claim.denied:
                named += 1
                right += counts.get(claim.subject, 0) == claim.number
    return f"{named / len(answers):.3f} numbers an answer, {100 * right / named:.1f} % right"


def main() -> None:
    """Prints a line for all responses, and two for each folder of pairs."""
    images, responses, *folders = map(Path, sys.argv[1:])
    picture_of = {}
    for row in read_lines(images / "images.jsonl"):
        picture_of[row["id"]] = Path(row["file"]).name
    everything = []
    for row in read_lines(responses / "responses.jsonl"):
        response = Response(row["text"], row["instruction"])
        everything.append(Answered(picture_of[row["image"]], response))
    print("all responses:", numbers_in(everything))
    for folder in folders:
        pairs = read_lines(folder / "pairs.jsonl")
        for side in ("chosen", "rejected"):
            answers = []
            for pair in pairs:
                response = Response(pair[side], pair["instruction"])
                answers.append(Answered(Path(pair["image"]).name, response))
            print(f"{folder.name}, {side}:", numbers_in(answers))


if __name__ == "__main__":
    main()
