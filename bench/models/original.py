"""Checkpoints in LLaVA's original format, mapped onto transformers' `LlavaForConditionalGeneration`.

LLaVA's own releases of 1.5 (and what was trained with its code, PDS-DPO for one) have a `config.json` with `mm_*`
fields, Llama's weights under Llama's names beside `model.mm_projector.*`, and a CLIP tower that is either among them or
a checkpoint of its own. A LoRA release is an adapter with `non_lora_trainables.bin`, to be merged into its base.
Source: LLaVA's model/builder.py, model/llava_arch.py, multimodal_encoder/clip_encoder.py and
multimodal_projector/builder.py.

Nothing but tensors is read from a pickle (`weights_only`); a tensor without a place is an error, a place without a
tensor too.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench.errors import ModelError
from bench.models import loading

Tensors = dict[str, torch.Tensor]
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = {"model.mm_projector.0.": "linear_1.", "model.mm_projector.2.": "linear_2."}
TEXT_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "vocab_size", "bos_token_id", "eos_token_id", "attention_bias",
)  # fmt: skip
EXPECTED = {  # what LLaVA-1.5 is, and what transformers' class computes
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", None),
    "image_aspect_ratio": ("pad", "square", None),
    "mm_use_im_start_end": (False, None),
    "tie_word_embeddings": (False, None),
}
UNUSED = ("rotary_emb.inv_freq", "embeddings.position_ids")  # buffers that old releases saved
PLAIN_LORA = {"use_dora": False, "bias": "none", "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {},
              "fan_in_fan_out": False}  # fmt: skip


def is_original(folder: Path) -> bool:
    """Whether the folder's config.json is of LLaVA's own code."""
    try:
        return "mm_vision_tower" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


class Original:
    """A checkpoint of LLaVA's own format with all it refers to.

    Raises ModelError where it is of another design than LLaVA-1.5, or where its base or tower is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = _object(folder / "config.json")
        adapter = folder / "adapter_config.json"
        self.lora = _object(adapter) if adapter.is_file() else None
        self.base = self._beside(self._named(self.lora, "base_model_name_or_path", adapter)) if self.lora else None
        self.tower = self._beside(self._named(self.settings, "mm_vision_tower", folder / "config.json"))
        self._check()

    @cached_property
    def config(self) -> Any:
        """The same architecture as a `LlavaConfig`; two ids are added to the vocabulary: <image> and <pad>."""
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

        try:
            vision = CLIPVisionConfig.from_pretrained(self.tower)
            text = {name: self.settings[name] for name in TEXT_FIELDS if self.settings.get(name) is not None}
            rope = dict(self.settings.get("rope_scaling") or {})
            kind, theta = rope.pop("type", "default"), self.settings.get("rope_theta", 10000.0)
            text["rope_parameters"] = {"rope_type": kind, "rope_theta": theta} | rope
            rows = max(text["vocab_size"], len(self.tokenizer))
            text |= {"vocab_size": rows, "pad_token_id": self.tokenizer.pad_token_id}
            llama = LlamaConfig(**text)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise self._wrong("its config or its tower's is damaged", error) from error
        if _object(self.tower / "config.json").get("model_type") not in ("clip", "clip_vision_model"):
            raise self._wrong(f"its vision tower {self.settings['mm_vision_tower']} is no CLIP")
        return LlavaConfig(
            vision_config=vision,
            text_config=llama,
            image_token_index=self.tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=(vision.image_size // vision.patch_size) ** 2,
            projector_hidden_act="gelu",
            vision_feature_select_strategy="default",
            vision_feature_layer=self.settings.get("mm_vision_select_layer", -2),
            tie_word_embeddings=False,
        )

    @cached_property
    def tokenizer(self) -> Any:
        """Llama's, every piece of text with a space before it, as SentencePiece has it; <image> and <pad> added."""
        from tokenizers import normalizers
        from transformers import LlamaTokenizer

        try:
            made = LlamaTokenizer.from_pretrained(self.folder)
        except Exception as error:  # a damaged tokenizer.model raises what the reading library raises
            raise self._wrong("its tokenizer cannot be read", error) from error
        if (self.folder / "tokenizer.model").is_file():
            backend = made.backend_tokenizer
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            backend.pre_tokenizer = None
        made.add_tokens(["<image>"], special_tokens=True)
        made.add_special_tokens({"pad_token": "<pad>"})
        return made

    @cached_property
    def processor(self) -> Any:
        """The tower's image processor and the tokenizer."""
        from transformers import CLIPImageProcessorPil, LlavaProcessor

        try:
            images = CLIPImageProcessorPil.from_pretrained(self.tower)
        except (OSError, ValueError) as error:
            raise self._wrong("its tower has no image processor", error) from error
        return LlavaProcessor(
            images,
            self.tokenizer,
            patch_size=self.config.vision_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )

    def fingerprint(self) -> str:
        """One sha256 over the weights of everything that makes the model."""
        parts = [loading.fingerprint(folder) for folder in (self.folder, self.base, self.tower) if folder]
        return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def read(self, dtype: torch.dtype, device: torch.device) -> Any:
        """The model in evaluation mode. Raises ModelError naming what is missing, unknown or of a wrong shape."""
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration.from_pretrained(
            None, config=self.config, state_dict=self._mapped(), dtype=dtype, attn_implementation="sdpa"
        )
        return model.to(device).eval()

    def _mapped(self) -> Tensors:
        """All tensors under transformers' names."""
        own = self._tensors()
        text = {name: own.pop(name) for name in [*own] if name.startswith(("model.layers.", "model.norm."))}
        found = {name.replace("model.", "model.language_model.", 1): value for name, value in text.items()}
        for old, new in PROJECTOR.items():
            for name in [name for name in own if name.startswith(old)]:
                found["model.multi_modal_projector." + new + name.removeprefix(old)] = own.pop(name)
        seen = {name.removeprefix(TOWER): own.pop(name) for name in [*own] if name.startswith(TOWER)}
        prefix = "model.vision_tower."
        found |= {prefix + name: value for name, value in (seen or self._tower_tensors()).items()}
        rows = self.config.text_config.vocab_size
        for old, new in (("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
                         ("lm_head.weight", "lm_head.weight")):  # fmt: skip
            if old in own:
                found[new] = _extended(own.pop(old), rows)
        self._compare(found, own)
        return found

    def _tensors(self) -> Tensors:
        """The checkpoint's own tensors; a LoRA's are those of its base with the adapter merged."""
        if self.lora is None or self.base is None:
            return _without_buffers(_weights(self.folder))
        merged = _without_buffers(_weights(self.base))
        extra = self.folder / "non_lora_trainables.bin"
        if not extra.is_file():
            raise self._wrong("it is an adapter without non_lora_trainables.bin")
        for name, value in _read(extra).items():
            name = name.removeprefix("base_model.")
            merged[name.removeprefix("model.") if name.startswith("model.model.") else name] = value
        self._merge(merged)
        return merged

    def _merge(self, weights: Tensors) -> None:
        """W + B A · alpha / r for every pair of the adapter (Hu et al. 2021, arXiv 2106.09685, equation 3)."""
        assert self.lora is not None
        special = [name for name, value in PLAIN_LORA.items() if self.lora.get(name) not in (value, None)]
        if special:
            raise self._wrong(f"its adapter is no plain LoRA: {', '.join(special)}")
        file = next((self.folder / name for name in ADAPTERS if (self.folder / name).is_file()), None)
        if file is None:
            raise self._wrong(f"it has neither {' nor '.join(ADAPTERS)}")
        rank = self.lora["r"]
        scale = self.lora["lora_alpha"] / (math.sqrt(rank) if self.lora.get("use_rslora") else rank)
        pairs = _read(file)
        for name in [name for name in pairs if name.endswith(".lora_A.weight")]:
            target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            other = name.replace(".lora_A.", ".lora_B.")
            if target not in weights or other not in pairs:
                raise self._wrong(f"its adapter's {name} has no place in {self.base}")
            low, high = pairs.pop(name).float(), pairs.pop(other).float()
            if (high.shape[0], low.shape[1]) != tuple(weights[target].shape):
                raise self._wrong(f"its adapter's {name} does not fit {self.base}")
            weights[target] = (weights[target].float() + scale * (high @ low)).to(weights[target].dtype)
        if pairs:
            raise self._wrong(f"its adapter has tensors without a place, the first is {min(pairs)}")

    def _tower_tensors(self) -> Tensors:
        """The vision part of the tower's own checkpoint, a whole CLIP or its vision half."""
        found = _without_buffers(_weights(self.tower))
        return {
            name.removeprefix("vision_model."): value
            for name, value in found.items()
            if name.startswith("vision_model.") or not name.startswith(("text_model.", "visual_", "text_", "logit_"))
        }

    def _compare(self, found: Tensors, left: Tensors) -> None:
        """Raises ModelError unless every tensor has its place, every place its tensor, in the right shape."""
        from transformers import LlavaForConditionalGeneration

        with torch.device("meta"):
            wanted = LlavaForConditionalGeneration(self.config).state_dict()
        unknown = sorted([*left, *(found.keys() - wanted.keys())])
        missing = sorted(wanted.keys() - found.keys())
        shaped = sorted(name for name in found.keys() & wanted.keys() if found[name].shape != wanted[name].shape)
        faults = [
            f"{len(names)} tensors are {what}, the first is {names[0]}"
            for names, what in ((missing, "missing"), (unknown, "unknown"), (shaped, "of another shape"))
            if names
        ]
        if faults:
            raise self._wrong("; ".join(faults))

    def _check(self) -> None:
        kind = str(self.settings.get("architectures") or self.settings.get("model_type"))
        if "Llama" not in kind and "llama" not in kind and self.settings.get("model_type") != "llava":
            raise self._wrong(f"its language model is no Llama ({kind})")
        for name, allowed in EXPECTED.items():
            if self.settings.get(name) not in allowed:
                raise self._wrong(f"its {name} is {self.settings[name]!r}, not {allowed[0]!r}")

    def _beside(self, name: str) -> Path:
        """A checkpoint that this one refers to: in a folder relative to it, any folder, or on the hub."""
        return self.folder / name if (self.folder / name).is_dir() else loading.locate(name, None)

    def _named(self, settings: Mapping[str, Any], field: str, file: Path) -> str:
        if not isinstance(settings.get(field), str):
            raise self._wrong(f"{file.name} names no {field}")
        return str(settings[field])

    def _wrong(self, reason: str, error: Exception | None = None) -> ModelError:
        told = f": {' '.join(str(error).split())[:200]}" if error else ""
        return ModelError(
            f"{self.folder} cannot be read as a LLaVA-1.5 in the original format.",
            f"{reason[0].upper()}{reason[1:]}{told}.",
            "Complete the folder; for another design, use a checkpoint that its authors converted for transformers.",
        )


def convert(source: str, target: Path) -> None:
    """Writes a checkpoint of the original format as one that transformers loads, in the precision its config names.

    Raises ModelError where it is none, or where `target` is not empty.
    """
    folder = loading.locate(source, None)
    if not is_original(folder):
        raise ModelError(
            f"{source} is not in LLaVA's original format.",
            "Its config.json has no mm_vision_tower.",
            "Use it as it is.",
        )
    if target.exists() and any(target.iterdir()):
        raise ModelError(f"{target} is not empty.", "A checkpoint would mix with it.", "Name a new folder.")
    original = Original(folder)
    named = str(original.settings.get("torch_dtype") or original.settings.get("dtype"))
    model = original.read(getattr(torch, named, torch.float16), torch.device("cpu"))
    generation = folder / "generation_config.json"
    model.save_pretrained(target)
    original.processor.save_pretrained(target)
    if generation.is_file():
        (target / generation.name).write_bytes(generation.read_bytes())


def _extended(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Rows for the added ids: copies of <unk>'s, which training never made likely and which greedy decoding prefers."""
    return torch.cat([weight, weight[:1].expand(rows - len(weight), -1)]) if len(weight) < rows else weight


def _without_buffers(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if not name.endswith(UNUSED)}


def _weights(folder: Path) -> Tensors:
    """All tensors of a checkpoint, sharded or not. Raises ModelError where a shard is missing or damaged."""
    index = next((folder / name for name in INDICES if (folder / name).is_file()), None)
    if index is None:
        file = next((folder / name for name in WHOLE if (folder / name).is_file()), None)
        if file is None:
            raise ModelError(
                f"{folder} holds no weights.", f"There is none of {', '.join(WHOLE + INDICES)}.", "Complete it."
            )
        return _read(file)
    tensors: Tensors = {}
    for name in sorted(set(_object(index).get("weight_map", {}).values())):
        shard = folder / Path(name).name
        if not shard.is_file():
            raise ModelError(
                f"{folder} is incomplete.", f"{index.name} names {name}, which is missing.", "Complete it."
            )
        tensors |= _read(shard)
    return tensors


def _read(file: Path) -> Tensors:
    """A file's tensors; of a pickle, tensors alone. Raises ModelError where it is damaged or holds anything else."""
    from safetensors.torch import load_file

    read: Callable[[], Any] = (
        (lambda: load_file(file))
        if file.suffix == ".safetensors"
        else (lambda: torch.load(file, map_location="cpu", weights_only=True))
    )
    try:
        found = read()
        if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
            raise ValueError("it is no dictionary of tensors")
    except Exception as error:  # pickle, zip and safetensors raise many types for broken files
        unsafe = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors, and such a pickle can run code" if unsafe else str(error).splitlines()[0]
        raise ModelError(f"{file} cannot be read.", f"{reason[:200]}.", "Get it again from its source.") from error
    return found


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read.", f"{error}.", "Get it again from its source.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} cannot be read.", "It is no JSON object.", "Get it again from its source.")
    return found
