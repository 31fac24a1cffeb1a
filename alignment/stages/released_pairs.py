"""Preference pairs that are there already, in the forms in which this field releases them.

As a stage of a recipe (`pairs:`), in place of everything before training, it leaves the artifact of
`preferences`, with the images in images/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from alignment.rows import PairRow
from alignment.settings import Beside, RecipeError, Settings
from alignment.stages.pair_formats import SUFFIXES, ReleasedPair, pair_files, read_pairs
from bench.data.folder import SUFFIXES as IMAGE_SUFFIXES
from bench.data.hub import download
from bench.data.images import is_image, link_image
from bench.files import digest_of, replace_lines

VERSION = "3"
REASONS = ("no picture", "empty", "equal", "several turns", "other turns")  # always told


class Pairs(Settings):
    """Preference pairs in a released file, or a folder of such files (`pair_formats.py`).

    `hub` names a data set of the hub in place of `path`. `images` is the folder that their paths
    start from; by default the file's own.
    """

    path: Beside | None = None
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    images: Beside | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Pairs:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give `path`, a file or folder, or `hub`, a data set's name")
        return self

    def source(self) -> Path:
        """The file or folder of the pairs, downloaded from the hub if need be."""
        if self.path is not None:
            return self.path
        return download(str(self.hub), [f"*{suffix}" for suffix in (*SUFFIXES, *IMAGE_SUFFIXES)])


def identity(settings: Pairs) -> Any:
    """The contents of the files."""
    return [digest_of(file) for file in pair_files(settings.source())]


def check(settings: Pairs) -> None:
    """Raises RecipeError if the first pairs are in no form that is read."""
    next(iter(read_pairs(settings.source())), None)


def run(settings: Pairs, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Reads released pairs.

    Those without a readable image, with equal responses or an empty chosen one, or that are more
    than a question and an answer are dropped and counted.
    """
    (out / "images").mkdir(exist_ok=True)
    dropped = Counter(dict.fromkeys(REASONS, 0))
    rows: list[PairRow] = []
    source = settings.source()
    folder = settings.images or (source if source.is_dir() else source.parent)
    for number, pair in enumerate(read_pairs(source)):
        if isinstance(pair, str):
            dropped[pair] += 1
            continue
        fault = _fault(pair)
        if fault:
            dropped[fault] += 1
            continue
        image = _take_image(pair, number, folder, out / "images")
        if image is None:
            dropped["no picture"] += 1
            continue
        rows.append(
            {
                "id": pair.id,
                "image": f"images/{image}",
                "instruction": pair.instruction,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
            }
        )
    if not rows:
        raise RecipeError(
            f"{settings.path or settings.hub} gives no pair.",
            f"Dropped: {dict(dropped)}.",
            "Check `images:`, the folder of its pictures; a pair is one question with two answers.",
        )
    replace_lines(out / "pairs.jsonl", rows)
    return {"pairs": len(rows), **dropped}


def _fault(pair: ReleasedPair) -> str | None:
    """Why a pair's texts cannot be trained on, None if they can."""
    # An empty rejected response stays: the authors released such rows, and trained on them.
    if not pair.chosen:
        return "empty"
    return "equal" if pair.chosen == pair.rejected else None


def _take_image(pair: ReleasedPair, number: int, folder: Path, images: Path) -> str | None:
    """Puts a pair's image into `images`; returns its name there, None if none can be read."""
    # Two folders may hold files of one name, so each has the pair's number in front.
    if pair.content is not None:
        name = f"{number:06}-{Path(pair.images[0]).name}" if pair.images else f"{number:06}.png"
        (images / name).write_bytes(pair.content)
        return name if is_image(images / name) else None
    for path in pair.images:
        source = folder / path
        if is_image(source):
            name = f"{number:06}-{source.name}"
            link_image(source, images / name)
            return name
    return None
