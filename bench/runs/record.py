"""What run.json says of a run, as far as anything is read of it; it holds more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Discriminator, Tag
from typing_extensions import TypedDict


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Time = Annotated[str, AfterValidator(_is_time)]
Versions = dict[str, str | None]  # by package


class BenchmarkPart(TypedDict):
    """What the run measured."""

    name: str
    version: str


class DataPart(TypedDict):
    """What was asked: digests of the questions and of the files they come from."""

    sha256: str
    samples: NotRequired[int]
    files: NotRequired[dict[str, str]]


class SourcePart(TypedDict):
    """Where data and checkpoint lay."""

    data: str
    images: NotRequired[str | None]
    replayed: NotRequired[bool]
    model: NotRequired[str | None]
    adapter: NotRequired[str | None]


class PromptPart(TypedDict):
    """How samples were asked."""

    max_tokens: NotRequired[list[int] | None]


class CodePart(TypedDict):
    """Somebody's own decoding."""

    source: str


class DecodingPart(TypedDict):
    """How answers were chosen."""

    greedy: NotRequired[bool | None]
    temperature: NotRequired[float | None]
    top_p: NotRequired[float | None]
    top_k: NotRequired[int | None]
    beams: NotRequired[int | None]
    contrast: NotRequired[dict[str, float] | None]
    code: NotRequired[CodePart | None]


class ProtocolPart(TypedDict):
    """The protocol that the model was asked by."""

    name: str


class ModelPart(TypedDict):
    """Who answered."""

    name: str
    kind: NotRequired[str]
    weights_sha256: NotRequired[str | None]
    adapter_sha256: NotRequired[str | None]
    software: NotRequired[Versions | None]
    protocol: NotRequired[ProtocolPart | None]
    decoding: NotRequired[DecodingPart | None]


class CountPart(TypedDict):
    """How many recorded answers were left out."""

    count: int


class RecordedPart(TypedDict):
    """Which recorded answers were read."""

    rows: int
    unmatched: NotRequired[CountPart]
    duplicates: NotRequired[CountPart]


class ClaimsPart(TypedDict):
    """How a judge finds claims."""

    kind: str


class GroundingPart(TypedDict):
    """The judge that asks a panel of models about claims."""

    kind: str
    models: list[dict[str, Any]]
    claims: ClaimsPart


class JudgePart(TypedDict):
    """Any other judge, as he describes himself."""

    kind: NotRequired[str]


def _kind_of_judge(judge: Any) -> str:
    is_grounding = isinstance(judge, dict) and judge.get("kind") == "grounding"
    return "grounding" if is_grounding else "other"


Judge = Annotated[
    Annotated[GroundingPart, Tag("grounding")] | Annotated[JudgePart, Tag("other")],
    Discriminator(_kind_of_judge),
]


class EnvironmentPart(TypedDict):
    """What the run ran on."""

    packages: NotRequired[Versions]


class SessionPart(TypedDict):
    """A session that answered by something else than the one before it."""

    answers: int
    software: Versions | None


class ScoredFromPart(TypedDict):
    """The record that was scored again under other rules."""

    prompt: NotRequired[PromptPart]


class RunRecord(TypedDict):
    """The content of run.json."""

    created: Time
    benchmark: BenchmarkPart
    data: DataPart
    source: SourcePart
    model: ModelPart
    prompt: PromptPart
    name: NotRequired[str | None]
    command: NotRequired[list[str] | None]
    limit: NotRequired[int | None]
    seeds: NotRequired[int | None]
    max_tokens: NotRequired[int | None]
    all_samples: NotRequired[int | None]
    subsets: NotRequired[list[str] | None]
    recorded: NotRequired[RecordedPart | None]
    negotiated: NotRequired[list[str] | None]
    judge: NotRequired[Judge | None]
    environment: NotRequired[EnvironmentPart | None]
    sessions: NotRequired[list[SessionPart]]
    scored_from: NotRequired[ScoredFromPart]
