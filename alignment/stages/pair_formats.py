"""Preference pairs in the forms in which this field releases them, one reader each.

| form | released as |
| --- | --- |
| conversations | JSON with conversations and rejected_conversations: POVID, PDS-DPO (Synth-Align) |
| rlhf-v | parquet or JSON lines whose `text` holds question, chosen and rejected: RLHF-V |
| rlaif-v | parquet with question, chosen, rejected and the image's bytes: RLAIF-V |
| ha-dpo descriptions | JSON of lists of chosen and rejected descriptions by image: HA-DPO |
| ha-dpo questions | JSON with question, chosen, reject and correct: HA-DPO |
| vlfeedback | JSON lines or parquet with rated completions: VLFeedback, Silkie's data |
| trl | parquet or JSON with prompt, chosen and rejected: trl's data sets with images |
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from alignment.settings import RecipeError
from bench.files import parse_json

IMAGE = "<image>"  # what stands for the image in a text
PEOPLE = ("human", "user")  # who asks
# What HA-DPO asks for its descriptions; its script draws one of four, this takes one by image.
DESCRIBE = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)
VISUAL_GENOME = ("", "VG_100K/", "VG_100K_2/")  # where an image of HA-DPO's may lie
SUFFIXES = (".json", ".jsonl", ".parquet")


class ReleasedPair(NamedTuple):
    """A pair as it was released.

    Args:
        id: Its own, or the number of its row.
        images: Where its image may lie, best first; empty if it comes as bytes.
        content: The image file itself, if the pair brings it.
        instruction: What was asked.
        chosen: The better response.
        rejected: The worse response.
    """

    id: str
    images: tuple[str, ...]
    content: bytes | None
    instruction: str
    chosen: str
    rejected: str


# A row → its pairs; in place of one that is no pair of single answers, why not.
Reader = Callable[[str, Mapping[str, Any]], Iterator[ReleasedPair | str]]


def read_pairs(source: Path) -> Iterator[ReleasedPair | str]:
    """The pairs of a file, or of all files of a folder in the order of their names.

    In place of one that is no pair of single answers comes the reason. Raises RecipeError if a file
    is in none of the forms.
    """
    files = pair_files(source)
    if not files:
        raise RecipeError(
            f"{source} holds no pairs.",
            f"There is no file that ends in {', '.join(SUFFIXES)}.",
            "Give the file of the pairs, or its folder.",
        )
    for file in files:
        try:
            yield from _pairs_of_file(file)
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise RecipeError(
                f"{file} is not in a released format.",
                f"{type(error).__name__}: {error}.",
                "docs/alignment.md shows the forms that are read.",
            ) from error


def pair_files(source: Path) -> list[Path]:
    """The files of a source: itself, or those of a folder by name."""
    if not source.is_dir():
        return [source]
    return sorted(file for file in source.rglob("*") if file.suffix in SUFFIXES)


def _pairs_of_file(file: Path) -> Iterator[ReleasedPair | str]:
    reader: Reader | None = None
    for number, row in enumerate(_rows(file)):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} is no object")
        # A file has one form, and its first row tells which.
        reader = reader or _reader_of(row)
        yield from reader(str(number), row)
    if reader is None:
        raise ValueError("it has no rows")


def _rows(file: Path) -> Iterator[Any]:
    """The rows of a file; of HA-DPO's descriptions each with its image's number."""
    if file.suffix == ".parquet":
        import pyarrow.parquet  # type: ignore[import-untyped]

        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=64):
            yield from batch.to_pylist()
        return
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        for line in text.split("\n"):
            if line.strip():
                yield parse_json(line)
        return
    content = parse_json(text)
    if isinstance(content, Mapping):
        for image, row in content.items():
            yield {**row, "image_id": image}
        return
    if not isinstance(content, list):
        raise TypeError("it is no list")
    yield from content


def _reader_of(row: Mapping[str, Any]) -> Reader:
    """The reader of a row's form. Raises KeyError if there is none."""
    names = row.keys()
    if {"conversations", "rejected_conversations"} <= names:
        return _conversations
    if "text" in names:
        return _rlhf_v
    if "completions" in names:
        return _vlfeedback
    if {"question", "reject"} <= names:
        return _ha_dpo_question
    if {"image_id", "chosen", "rejected"} <= names:
        return _ha_dpo_description
    if {"question", "chosen", "rejected"} <= names:
        return _rlaif_v
    if {"prompt", "chosen", "rejected"} <= names:
        return _trl
    raise KeyError(f"its first row has only {', '.join(map(str, names)) or 'nothing'}")


def _conversations(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    conversations = (row["conversations"], row["rejected_conversations"])
    for turns in conversations:
        speakers = [turn["from"] for turn in turns]
        if len(speakers) < 2 or speakers[0] not in PEOPLE or speakers[1] in PEOPLE:
            yield "other turns"  # of a system, or an answer without a question
            return
        if len(speakers) > 2:
            yield "several turns"
            return
    (question, chosen), (_, rejected) = conversations
    texts = [question["value"], chosen["value"], rejected["value"]]
    yield _pair(str(row.get("id", number)), row["image"], *texts)


def _rlhf_v(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    texts = row["text"]
    if isinstance(texts, str):
        texts = parse_json(texts)
    image = row.get("image") or row["image_path"]
    yield _pair(
        str(row.get("idx", number)), image, texts["question"], texts["chosen"], texts["rejected"]
    )


def _rlaif_v(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    image = row.get("image") or row["image_path"]
    yield _pair(str(row.get("idx", number)), image, row["question"], row["chosen"], row["rejected"])


def _ha_dpo_description(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    image = int(row["image_id"])
    question = DESCRIBE[image % len(DESCRIBE)]
    # Rewritten several times each; one of each, as its script takes them.
    yield _pair(str(image), _genome(image), question, row["chosen"][0], row["rejected"][0])


def _ha_dpo_question(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    if row["correct"]:
        yield "answered right"  # left out by its script: the model made no mistake
        return
    image = int(row["image_id"])
    yield _pair(number, _genome(image), row["question"], row["chosen"], row["reject"])


def _genome(image: int) -> tuple[str, ...]:
    return tuple(f"{folder}{image}.jpg" for folder in VISUAL_GENOME)


def _vlfeedback(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    """Every two completions whose mean ratings differ, as Silkie's script has it."""
    completions = row["completions"]
    if isinstance(completions, Mapping):  # columns, as parquet has them
        columns = completions
        completions = []
        for values in zip(*columns.values(), strict=True):
            completions.append(dict(zip(columns, values, strict=True)))
    rated = []
    for completion in completions:
        ratings = [int(aspect["Rating"]) for aspect in completion["annotations"].values()]
        rated.append((statistics.fmean(ratings), completion["response"]))
    image = row.get("image") or row["img_path"]
    for count, (one, other) in enumerate(combinations(rated, 2)):
        if one[0] == other[0]:
            yield "equal ratings"
            continue
        worse, better = sorted((one, other), key=lambda item: item[0])
        yield _pair(f"{row.get('id', number)}-{count}", image, row["prompt"], better[1], worse[1])


def _trl(number: str, row: Mapping[str, Any]) -> Iterator[ReleasedPair | str]:
    images = row.get("images") or [row["image"]]
    if len(images) != 1:
        yield "several images"
        return
    texts = []
    for name in ("prompt", "chosen", "rejected"):
        messages = row[name]
        if isinstance(messages, str):
            texts.append(messages)
            continue
        # A conversation may repeat the prompt before the response.
        own = [turn for turn in messages if (turn["role"] in PEOPLE) == (name == "prompt")]
        if len(own) != 1 or any(turn["role"] == "system" for turn in messages):
            yield "several turns" if len(own) > 1 else "other turns"
            return
        texts.append(_text_of(own[0]["content"]))
    yield _pair(str(row.get("id", number)), images[0], *texts)


def _text_of(content: Any) -> str:
    """A message's text: plain, or in parts beside the image."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("text"))


def _pair(id: str, image: Any, instruction: Any, chosen: Any, rejected: Any) -> ReleasedPair:
    """A pair with plain texts. Raises TypeError or KeyError if a part is of another kind."""
    for text in (instruction, chosen, rejected):
        if not isinstance(text, str):
            raise TypeError(f"pair {id} holds {type(text).__name__} where a text should be")
    content = None
    paths: tuple[str, ...]
    if isinstance(image, Mapping):  # as `datasets` stores images
        content = image.get("bytes")
        paths = (image["path"],) if image.get("path") else ()
    elif isinstance(image, tuple):
        paths = image
    else:
        paths = (str(image),)
    return ReleasedPair(
        id, paths, content, instruction.replace(IMAGE, "").strip(), chosen.strip(), rejected.strip()
    )
