"""Decoding: how an answer is chosen from what a model finds likely, a recorded part of every run.

`greedy` takes the likeliest token. `sample` draws each token from the whole distribution, or from
the part of it that `top_k` and `top_p` leave (Holtzman et al. 2020, arXiv 1904.09751); every
answer is drawn by a random number generator of its own, so that batches do not change it. `beam:N`
is `generate`'s beam search. `vcd` sets the image against a distorted one (bench/models/contrast.py)
and samples as its paper does, or takes the likeliest token at temperature=0. ORG/REPO, or a folder,
is somebody's own decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import ModelError, faults_of, one_line
from bench.yaml_text import parse_yaml


class Contrast(BaseModel):
    """How far an image is set against a distorted one: the options of `vcd`.

    Args:
        alpha: How much of the distorted image's logits is taken away.
        beta: The least probability of a token, as a share of the likeliest one's.
        noise_step: Of the distortion, 0 to 999.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(1.0, gt=0, allow_inf_nan=False)
    beta: float = Field(0.1, gt=0, le=1)
    noise_step: int = Field(500, ge=0, le=999)


class Code(BaseModel):
    """Somebody's own decoding, by transformers' `custom_generate`.

    Args:
        source: A folder, or a repository of the hub, with custom_generate/generate.py.
        arguments: What its function gets beside `generate`'s own arguments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)


class Decoding(BaseModel):
    """How answers are chosen.

    Args:
        temperature: 0 takes the likeliest token; else softmax(logits / temperature) is drawn from.
        top_p: Only the likeliest tokens that together have this probability are drawn.
        top_k: Only so many of the likeliest tokens are drawn; 0 for all.
        seeds: How many answers each question gets, each from a seed of its own.
        beams: Of beam search; 1 for none.
        contrast: Of visual contrastive decoding; None for none.
        code: Of somebody's own decoding; None for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    seeds: int = Field(1, ge=1, le=1000)
    beams: int = Field(1, ge=1, le=100)
    contrast: Contrast | None = None
    code: Code | None = None

    def describe(self) -> dict[str, Any]:
        """What a record says: nothing of what is as usual."""
        if self.beams > 1:
            return {"beams": self.beams}
        usual = Decoding()
        described: dict[str, Any] = {} if self.temperature else {"greedy": True}
        for name, value in self.model_dump(exclude={"beams"}).items():
            if value != getattr(usual, name):
                described[name] = value
        return described


GREEDY = Decoding()
SAMPLED = ("temperature", "top_p", "top_k", "seeds")  # options of sample, and of vcd
FORMS = (
    "greedy, sample[:temperature=1,top_p=0.9,top_k=50,seeds=5], beam:N, "
    "vcd[:alpha=1,beta=0.1,noise_step=500, and those of sample], or a folder or ORG/REPO with "
    "custom_generate/generate.py[:name=value,…]"
)


def read_decoding(text: str) -> Decoding:
    """The decoding that a --decoding text names.

    Raises ModelError if it names none, or an option that does not exist or cannot be.

    >>> read_decoding("sample:top_p=0.9,seeds=5").describe()
    {'temperature': 1.0, 'top_p': 0.9, 'seeds': 5}
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "greedy" and not rest:
        return GREEDY
    is_code = "/" in kind or Path(kind).is_dir()
    if not is_code and kind not in ("sample", "beam", "vcd"):
        raise ModelError(
            f"There is no decoding '{text}'.", f"There is {FORMS}.", "Name one of these."
        )
    try:
        if is_code:
            return Decoding.model_validate({"code": _code(kind, rest)})
        decoding = Decoding.model_validate(_options(kind, rest))
    except ValidationError as error:
        raise ModelError(
            f"--decoding {text} cannot be.", f"{faults_of(error)}.", f"Write {FORMS}."
        ) from error
    except yaml.YAMLError as error:
        raise ModelError(
            f"--decoding {text} cannot be read.", f"{one_line(error)}.", f"Write {FORMS}."
        ) from error
    is_another = {
        "sample": decoding.temperature > 0 and decoding.beams == 1,
        "beam": decoding.beams > 1,
        "vcd": decoding.temperature > 0 or decoding.seeds == 1,
    }
    if not is_another[kind]:
        raise ModelError(
            f"--decoding {text} is greedy.",
            "Sampling and several seeds need a temperature above 0, beam search two beams.",
            "Write greedy, or another number.",
        )
    return decoding


def _options(kind: str, rest: str) -> dict[str, Any]:
    """Fields of a decoding of a known kind, as texts."""
    if kind == "beam":
        return {"beams": rest}
    options: dict[str, Any] = {"temperature": 1.0}
    contrast: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        name, _, value = map(str.strip, part.partition("="))
        is_of_vcd = kind == "vcd" and name not in SAMPLED
        (contrast if is_of_vcd else options)[name] = value
    return options | ({"contrast": contrast} if kind == "vcd" else {})


def _code(source: str, rest: str) -> dict[str, Any]:
    """Fields of somebody's own decoding; its arguments are read as YAML, so that 1 is a number."""
    arguments = {}
    for part in filter(None, rest.split(",")):
        name, _, value = part.partition("=")
        arguments[name.strip()] = parse_yaml(value)
    return {"source": source, "arguments": arguments}


def given_decoding(options: Mapping[str, Any]) -> Decoding:
    """The decoding of an adapter's options: `decoding`, or a bare `temperature`."""
    text = options.get("decoding")
    if text:
        return read_decoding(str(text))
    return Decoding(temperature=float(options.get("temperature") or 0))
