"""The rows of the stages' artifacts, as they stand in the JSON-lines files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NotRequired

from typing_extensions import TypedDict  # pydantic reads no older Python's own

from bench.files import read_json

MANIFEST = "manifest.json"  # of an artifact; a folder that has one is finished


class Manifest(TypedDict):
    """What an artifact was made from, and digests of its files."""

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, Any]
    seconds: float
    files: dict[str, str]
    sha256: str


class TrainingCounts(TypedDict):
    """What is read of the counts of a training; there are more."""

    pairs: int
    steps: int


def read_manifest(folder: Path) -> Manifest:
    """An artifact's manifest. Raises StoreError if it is damaged."""
    return read_json(folder / MANIFEST, Manifest)


class PromptRow(TypedDict):
    """A line of prompts.jsonl: what an image shall show, and what models are asked about it."""

    id: str
    prompt: str
    instructions: list[str]
    place: NotRequired[str]
    objects: NotRequired[list[str]]
    image: NotRequired[str]


class ImageRow(TypedDict):
    """A line of images.jsonl; `file` is null if the image was dropped, with the reason."""

    id: str
    prompt: str
    instructions: list[str]
    file: str | None
    candidates: list[dict[str, Any]]
    dropped: NotRequired[str]


class ResponseRow(TypedDict):
    """A line of responses.jsonl."""

    key: str
    image: str
    instruction: str
    model: str
    text: str
    tokens: int
    finish: str


class RewardRow(TypedDict):
    """A line of rewards.jsonl.

    `doubtful` are asserted objects that are most likely not there; `claims` is how many claims
    were found in the response, for a reward that looks for them.
    """

    key: str
    reward: float
    doubtful: list[str]
    claims: NotRequired[int]


class PairRow(TypedDict):
    """A line of pairs.jsonl. Pairs from elsewhere have no rewards, models and doubtful objects."""

    image: str
    instruction: str
    chosen: str
    rejected: str
    id: NotRequired[str]
    chosen_reward: NotRequired[float]
    rejected_reward: NotRequired[float]
    chosen_model: NotRequired[str]
    rejected_model: NotRequired[str]
    chosen_doubtful: NotRequired[list[str]]
    rejected_doubtful: NotRequired[list[str]]


class MeasuredRow(TypedDict):
    """A line of measured.jsonl: a figure with its interval, as tables show it."""

    step: int
    figure: str
    better: str
    unit: str
    value: float
    low: float | None
    high: float | None
    n: int
    caveats: list[str]


class ReferenceRow(TypedDict):
    """A line of reference-….jsonl: log-probabilities of a pair by the base model."""

    logps: list[float]


# The rows of a file, and the column that no two of them share.
KEYED = {
    "prompts.jsonl": (PromptRow, "id"),
    "images.jsonl": (ImageRow, "id"),
    "responses.jsonl": (ResponseRow, "key"),
    "rewards.jsonl": (RewardRow, "key"),
}


class ImageFile(NamedTuple):
    """An image of an alignment: its file, and the prompt that it was made from."""

    path: Path
    prompt: str
