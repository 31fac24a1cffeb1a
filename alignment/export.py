"""Preference pairs in others' formats: the authors' released JSON, trl's vision data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from alignment.rows import MANIFEST, PairRow, read_manifest
from alignment.settings import RecipeError
from bench.files import read_rows, write_json

PAIR_TEXTS = ("image", "instruction", "chosen", "rejected")
IMAGE = "<image>"  # what stands for the image in the released format


def export(folder: Path, file: Path) -> tuple[int, Path]:
    """Writes a preferences artifact's pairs as released .json or trl's .parquet.

    Returns the number of pairs and the images' folder. Raises RecipeError for a folder without
    pairs or images, or another ending.
    """
    rows = folder / "pairs.jsonl"
    is_finished = (folder / MANIFEST).is_file()
    if not rows.is_file() or not rows.stat().st_size or not is_finished:
        raise RecipeError(
            f"{folder} holds no pairs.", "It is no finished preferences-… folder.", "Name one."
        )
    pairs = cast(list[PairRow], read_rows(rows, dict.fromkeys(PAIR_TEXTS, str)))
    images = _images_folder(folder, read_manifest(folder)["inputs"].get("images"))
    if file.suffix not in (".json", ".parquet"):
        raise RecipeError(
            f"{file} has no known format.",
            f"It ends in '{file.suffix}'.",
            "Use .json or .parquet.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json":
        write_released(pairs, file)
    else:
        write_trl(pairs, images, file)
    return len(pairs), images


def _images_folder(folder: Path, sha256: str | None) -> Path:
    """The images artifact with this digest; the pairs' own folder if they brought their images."""
    if sha256 is None:
        return folder
    # By digest: there may be the images of several recipes.
    for manifest in folder.resolve().parent.glob(f"images-*/{MANIFEST}"):
        if read_manifest(manifest.parent)["sha256"] == sha256:
            return manifest.parent
    raise RecipeError(
        f"The pictures of {folder} are gone.",
        "No images-… folder beside it fits.",
        "Run the recipe.",
    )


def write_released(pairs: Sequence[PairRow], file: Path) -> None:
    """Pairs in the authors' format."""
    rows = []
    for number, pair in enumerate(pairs):
        question = {"from": "human", "value": f"{IMAGE} {pair['instruction']}"}
        rows.append(
            {
                "id": pair.get("id", str(number)),
                "image": pair["image"],
                "conversations": [question, {"from": "gpt", "value": pair["chosen"]}],
                "rejected_conversations": [question, {"from": "gpt", "value": pair["rejected"]}],
            }
        )
    write_json(file, rows)


def write_trl(pairs: Sequence[PairRow], folder: Path, file: Path) -> None:
    """Pairs as parquet with the columns that trl's DPOTrainer takes for vision data.

    The images are those of `folder`; the file holds them, not their paths.
    """
    from datasets import Dataset, Features, Image, List, Value

    def rows() -> Iterator[dict[str, object]]:
        for pair in pairs:
            image = folder / pair["image"]
            yield {
                "images": [{"bytes": image.read_bytes(), "path": image.name}],
                "prompt": [{"role": "user", "content": pair["instruction"]}],
                "chosen": [{"role": "assistant", "content": pair["chosen"]}],
                "rejected": [{"role": "assistant", "content": pair["rejected"]}],
            }

    messages = List({"role": Value("string"), "content": Value("string")})
    features = Features(
        {"images": List(Image()), "prompt": messages, "chosen": messages, "rejected": messages}
    )
    # By way of the disk: thousands of images need not fit into memory.
    with tempfile.TemporaryDirectory(dir=file.parent) as cache:
        dataset = Dataset.from_generator(rows, features=features, cache_dir=cache)
        dataset.to_parquet(str(file))
