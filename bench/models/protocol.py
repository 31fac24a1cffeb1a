"""Protocols: how a benchmark is put to a model.

A protocol fixes conversation, system prompt, image preparation, suffix and length. `llava` is
LLaVA's own evaluation of its 1.5 models (model_vqa_loader.py with --conv-mode vicuna_v1
--temperature 0, images padded to a square): conversation.py, mm_utils.py. `native` is the
checkpoint's own template and processor. A YAML file changes either: `base: llava` and any of the
fields below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from bench.errors import ModelError, faults_of
from bench.models.decoding import GREEDY
from bench.types import Benchmark, Sample
from bench.yaml_text import parse_yaml

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Protocol(BaseModel):
    """A named, recorded way to ask.

    `conversation`: "vicuna_v1" writes LLaVA's prompt with `system` and tokenises it as LLaVA does;
    "template" uses the checkpoint's chat template, with `system` as its system message if it is not
    empty. `image`: "pad" pads to a square with the processor's mean colour first; "processor"
    leaves it to the processor. `orientation`: "exif" turns a photograph upright, "stored" leaves it
    as its pixels lie, as LLaVA's own code does. `suffix` and `max_tokens` replace a benchmark's
    own, by benchmark name; an empty suffix switches it off. `question` does where a benchmark asks
    the same of every image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    conversation: Literal["vicuna_v1", "template"]
    system: str = ""
    image: Literal["pad", "processor"]
    orientation: Literal["exif", "stored"] = "exif"
    suffix: dict[str, str] = Field(default_factory=dict)
    max_tokens: dict[str, PositiveInt] = Field(default_factory=dict)
    question: dict[str, str] = Field(default_factory=dict)

    def suffix_for(self, benchmark: Benchmark) -> str:
        """The line that follows the question."""
        return self.suffix.get(benchmark.name, benchmark.suffix)

    def max_tokens_for(self, benchmark: Benchmark, sample: Sample) -> int:
        """The longest answer, in tokens."""
        return self.max_tokens.get(benchmark.name, benchmark.max_tokens(sample))


class ByProtocol:
    """What every model that is asked by a protocol answers about itself."""

    protocol: Protocol
    decoding = GREEDY
    reads_images = True
    source: Path | None = None
    adapter: Path | None = None
    recorded = None

    def suffix(self, benchmark: Benchmark) -> str:
        """The protocol's suffix."""
        return self.protocol.suffix_for(benchmark)

    @property
    def seeds(self) -> int:
        """How many answers each question gets."""
        return self.decoding.seeds

    def question(self, benchmark: Benchmark) -> str | None:
        """The protocol's question, if it has one."""
        return self.protocol.question.get(benchmark.name)

    def max_tokens(self, benchmark: Benchmark, sample: Sample) -> int:
        """The protocol's bound."""
        return self.protocol.max_tokens_for(benchmark, sample)


LLAVA = Protocol(
    name="llava",
    conversation="vicuna_v1",
    system=VICUNA_SYSTEM,
    image="pad",
    orientation="stored",
)
NATIVE = Protocol(name="native", conversation="template", image="processor")
BUILT_IN = {"llava": LLAVA, "native": NATIVE}


def read_protocol(name: str) -> Protocol:
    """A built-in protocol by name, or one from a YAML file.

    Raises ModelError with all faults of the file at once.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    file = Path(name)
    if not file.is_file():
        raise ModelError(
            f"There is no protocol '{name}'.",
            "It is neither auto, llava, native nor a file.",
            "Check the path.",
        )
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not YAML.", f"{error}", "Correct the file.") from error
    base = content.pop("base", "native") if isinstance(content, dict) else None
    if not isinstance(base, str) or base not in BUILT_IN:
        raise ModelError(
            f"{file} is not a protocol.",
            f"Its base is {base!r}.",
            "Write fields, among them `base: llava` or native.",
        )
    merged: dict[str, Any] = BUILT_IN[base].model_dump() | {"name": file.stem} | content
    try:
        return Protocol.model_validate(merged)
    except ValidationError as error:
        raise ModelError(
            f"{file} is not a protocol.", faults_of(error), "Correct these fields."
        ) from error
