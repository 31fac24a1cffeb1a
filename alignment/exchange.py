"""Preference pairs from and to other people's formats: the authors' released JSON, and trl's vision data sets.

As a stage of a recipe (`pairs:`), in place of everything before training, it leaves the artifact of `preferences`, with
the pictures in images/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.images import keep_picture
from alignment.recipe import Pairs, RecipeError
from bench.data.images import read_image
from bench.errors import DataError
from bench.store import read_json, read_lines, replace_lines, write_json

VERSION = "1"
IMAGE = "<image>"


def identity(settings: Pairs) -> Any:
    """The file's text."""
    return settings.path.read_text(encoding="utf-8")


def run(settings: Pairs, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Reads released pairs; those without a readable picture or with equal or empty responses are dropped, counted."""
    folder = settings.images or settings.path.parent
    (out / "images").mkdir(exist_ok=True)
    dropped = {"no picture": 0, "empty": 0, "equal": 0}
    rows = []
    for number, row in enumerate(read_released(settings.path)):
        fault = _fault(row, folder)
        if fault:
            dropped[fault] += 1
            continue
        source = folder / row["image"]
        target = out / "images" / f"{number:06}-{source.name}"
        keep_picture(source, target)
        rows.append(row | {"image": f"images/{target.name}"})
    if not rows:
        raise RecipeError(
            f"{settings.path} gives no pair.", f"Dropped: {dropped}.", "Check `images:`, the folder of its pictures."
        )
    replace_lines(out / "pairs.jsonl", rows)
    return {"pairs": len(rows), **dropped}


def read_released(file: Path) -> list[dict[str, str]]:
    """The pairs of a released file as {"id", "image", "instruction", "chosen", "rejected"}. Raises RecipeError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise TypeError("it is no list")
        return [_pair(row) for row in content]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RecipeError(
            f"{file} is not in the released format.",
            f"{type(error).__name__}: {error}.",
            "Each row needs image, conversations and rejected_conversations of a question and an answer.",
        ) from error


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    asked, chosen = row["conversations"][:2]
    rejected = row["rejected_conversations"][1]
    instruction = asked["value"].replace(IMAGE, "").strip()
    return {
        "id": str(row["id"]), "image": str(row["image"]), "instruction": instruction,
        "chosen": chosen["value"].strip(), "rejected": rejected["value"].strip(),
    }  # fmt: skip


def _fault(row: Mapping[str, str], folder: Path) -> str | None:
    if not row["chosen"] or not row["rejected"]:
        return "empty"
    if row["chosen"] == row["rejected"]:
        return "equal"
    try:
        read_image(folder / row["image"])
    except DataError:
        return "no picture"
    return None


def export(folder: Path, file: Path) -> tuple[int, Path]:
    """Writes a preferences artifact's pairs as released .json or trl's .parquet; their number, the pictures' folder.

    Raises RecipeError for a folder without pairs or pictures, or another ending.
    """
    made = folder / "manifest.json"
    pairs = read_lines(folder / "pairs.jsonl")
    if not pairs or not made.is_file():
        raise RecipeError(f"{folder} holds no pairs.", "It is no finished preferences-… folder.", "Name one.")
    wanted = read_json(made)["inputs"].get("images")
    others = (path for path in folder.resolve().parent.glob("images-*/manifest.json"))
    pictures = next((path.parent for path in others if read_json(path)["sha256"] == wanted), None)
    pictures = folder if wanted is None else pictures
    if pictures is None:
        raise RecipeError(
            f"The pictures of {folder} are gone.", "No images-… folder beside it fits.", "Run the recipe."
        )
    if file.suffix == ".json":
        write_released(pairs, file)
    elif file.suffix == ".parquet":
        write_trl(pairs, pictures, file)
    else:
        raise RecipeError(f"{file} has no known format.", f"It ends in '{file.suffix}'.", "Use .json or .parquet.")
    return len(pairs), pictures


def write_released(pairs: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Pairs in the authors' format."""
    rows = []
    for number, pair in enumerate(pairs):
        asked = {"from": "human", "value": f"{IMAGE} {pair['instruction']}"}
        chosen, rejected = ({"from": "gpt", "value": pair[side]} for side in ("chosen", "rejected"))
        name = pair.get("id", str(number))
        talks = {"conversations": [asked, chosen], "rejected_conversations": [asked, rejected]}
        rows.append({"id": name, "image": pair["image"], **talks})
    write_json(file, rows)


def write_trl(pairs: Sequence[Mapping[str, Any]], folder: Path, file: Path) -> None:
    """Pairs as parquet with the columns that trl's DPOTrainer takes for vision data, pictures from `folder` inside."""
    from datasets import Dataset, Features, Image, List, Value

    talk = List({"role": Value("string"), "content": Value("string")})
    columns = {
        "images": [[str(folder / pair["image"])] for pair in pairs],
        "prompt": [[{"role": "user", "content": pair["instruction"]}] for pair in pairs],
        "chosen": [[{"role": "assistant", "content": pair["chosen"]}] for pair in pairs],
        "rejected": [[{"role": "assistant", "content": pair["rejected"]}] for pair in pairs],
    }
    features = Features({"images": List(Image()), "prompt": talk, "chosen": talk, "rejected": talk})
    Dataset.from_dict(columns, features=features).to_parquet(str(file))
