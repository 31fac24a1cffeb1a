"""Where a model's weights lie and how small they are: several devices, fewer bits, the attention.

By accelerate's device maps and transformers' quantisation; both are recorded, because both can move
an answer.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.errors import ModelError, one_line
from bench.files import parse_json

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
BITS = ("4bit", "8bit")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")


@dataclass(frozen=True)
class Placement:
    """What was asked for; None for as usual.

    Args:
        device_map: One of MAPS, or a module's device by its name.
        quantize: One of BITS, by bitsandbytes (Dettmers et al. 2023, arXiv 2305.14314: NF4).
        attention: One of ATTENTIONS.
    """

    device_map: str | Mapping[str, str | int] | None = None
    quantize: str | None = None
    attention: str | None = None

    def describe(self) -> dict[str, Any]:
        """What is set, for run.json."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def is_placed(self) -> bool:
        """Whether the weights lie where they belong once they are loaded."""
        return self.device_map is not None or self.quantize is not None

    def arguments(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """What transformers' `from_pretrained` takes of it.

        Args:
            dtype: Of what is computed with.
            device: Where the model lies if there is no map.
        """
        # Elsewhere transformers would want accelerate's hooks for nothing.
        device_map: Any = None if device.type in ("cpu", "mps") else device
        arguments: dict[str, Any] = {}
        if self.quantize is not None:
            arguments["quantization_config"] = _quantization(self.quantize, dtype)
            device_map = {"": device.type if device.index is None else str(device)}
        if self.device_map is not None:
            device_map = self.device_map
            arguments["offload_folder"] = str(_offload_folder())
        if self.attention is not None:
            arguments["attn_implementation"] = self.attention
        return arguments | {"device_map": device_map}


USUAL = Placement()


def given_placement(options: Mapping[str, Any]) -> Placement:
    """The placement of an adapter's options: device_map, quantize, attention.

    Raises ModelError for a word that is not known, a map that cannot be read, or a missing package.
    """
    quantize = _one_of(options.get("quantize"), "--quantize", BITS)
    attention = _one_of(options.get("attention"), "--attention", ATTENTIONS)
    if quantize is not None:
        _need("bitsandbytes", "--quantize", "pip install 'synth-align[quantize]'")
    if attention == "flash_attention_2":
        _need("flash_attn", "--attention flash_attention_2", "Install flash-attn, or use sdpa.")
    return Placement(_device_map(options.get("device_map")), quantize, attention)


def _offload_folder() -> Path:
    """What does not fit is read from there as long as the process lives."""
    folder = Path(tempfile.mkdtemp(prefix="synth-align-offload-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _one_of(value: Any, option: str, known: tuple[str, ...]) -> str | None:
    if value is None or value in known:
        return None if value is None else str(value)
    raise ModelError(
        f"{option} cannot be '{value}'.", f"It is one of {', '.join(known)}.", "Name one of these."
    )


def _need(package: str, option: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{option} needs {package}.", "It is not installed.", remedy)


def _device_map(text: Any) -> str | dict[str, str | int] | None:
    if text is None or text in MAPS:
        return None if text is None else str(text)
    file = Path(str(text))
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"--device-map {text} cannot be read.",
            f"{type(error).__name__}: {one_line(error)}.",
            f"Use {', '.join(MAPS)}, or a JSON file of devices by module.",
        ) from error
    is_map = isinstance(content, dict) and all(
        isinstance(device, str | int) for device in content.values()
    )
    if not is_map:
        raise ModelError(
            f"--device-map {text} is no map.",
            "It must be an object of modules' names and devices.",
            'Write {"model.vision_tower": "cuda:0", "model.language_model": "cuda:1", …}.',
        )
    return dict(content)


def _quantization(bits: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
