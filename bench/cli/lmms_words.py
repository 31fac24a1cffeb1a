"""The words of lmms-eval's command line, as its users type them: --model_args and --gen_kwargs."""

from __future__ import annotations

import re
from typing import Any

from bench.errors import BenchError

COUNT = re.compile("[1-9][0-9]{0,5}")
MODEL_ARGS = ("pretrained", "dtype", "revision", "trust_remote_code", "device")
GEN_KWARGS = ("max_new_tokens", "temperature", "top_p", "top_k", "num_beams", "do_sample")


def model_options(text: str) -> dict[str, Any]:
    """Options of `bench run` from lmms-eval's --model_args; `model` is what it calls pretrained.

    Raises BenchError for an argument that has no counterpart.
    """
    options: dict[str, Any] = dict(_pairs(text, "--model_args", MODEL_ARGS))
    if "pretrained" in options:
        options["model"] = options.pop("pretrained")
    if "trust_remote_code" in options:
        options["trust_remote_code"] = _is_true(options["trust_remote_code"])
    return options


def decoding_options(text: str) -> tuple[str | None, int | None]:
    """--decoding and --max-tokens from lmms-eval's --gen_kwargs.

    Raises BenchError for an argument that has no counterpart.

    >>> decoding_options("temperature=0.7,top_p=0.9,max_new_tokens=64")
    ('sample:temperature=0.7,top_p=0.9', 64)
    >>> decoding_options("temperature=0,do_sample=False,num_beams=1")
    (None, None)
    """
    given = _pairs(text, "--gen_kwargs", GEN_KWARGS)
    bound = int(given["max_new_tokens"]) if "max_new_tokens" in given else None
    is_sampled = _is_true(given.get("do_sample", "true")) and given.get("temperature", "0") not in (
        "0",
        "0.0",
    )
    if is_sampled:
        parts = []
        for name in ("temperature", "top_p", "top_k"):
            if name in given:
                parts.append(f"{name}={given[name]}")
        return f"sample:{','.join(parts)}", bound
    beams = given.get("num_beams", "1")
    return (None if beams == "1" else f"beam:{beams}"), bound


def _pairs(text: str, option: str, known: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for part in filter(None, text.split(",")):
        name, separator, value = map(str.strip, part.partition("="))
        is_number = name != "max_new_tokens" or COUNT.fullmatch(value)
        if name not in known or not separator or not is_number:
            raise BenchError(
                f"{option} cannot take '{part}'.",
                f"It knows {', '.join(f'{one}=…' for one in known)}.",
                "Use the options of `bench run`, which --help lists.",
            )
        pairs[name] = value
    return pairs


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1", "yes")
