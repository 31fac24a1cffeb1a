"""Checkpoints in LLaVA's original format, as transformers' `LlavaForConditionalGeneration`.

LLaVA's own releases of 1.5 (and what was trained with its code, PDS-DPO for one) have a
`config.json` with `mm_*` fields, Llama's weights under Llama's names beside `model.mm_projector.*`,
and a CLIP tower that is either among them or a checkpoint of its own. A LoRA release is an adapter
with `non_lora_trainables.bin`, to be merged into its base. Source: LLaVA's model/builder.py,
model/llava_arch.py, multimodal_encoder/clip_encoder.py and multimodal_projector/builder.py.

Nothing but tensors is read from a pickle (`weights_only`). A tensor without a place is an error, a
place without a tensor too.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from bench.errors import ModelError, first_line, one_line
from bench.files import parse_json, type_fault
from bench.models import checkpoints
from bench.models.placement import USUAL, Placement

Tensors = dict[str, torch.Tensor]
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
NON_LORA = "non_lora_trainables.bin"
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
GET_AGAIN = "Get it again from its source."

# Prefixes of the original names, and of transformers'.
LANGUAGE_MODEL = "model.language_model."
LANGUAGE_PREFIXES = ("model.layers.", "model.norm.")
TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
}
EMBEDDINGS = {  # both have a row for each id of the vocabulary
    "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
    "lm_head.weight": "lm_head.weight",
}
TEXT_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "attention_bias",
)
EXPECTED = {  # what LLaVA-1.5 is, and what transformers' class computes
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", None),
    "image_aspect_ratio": ("pad", "square", None),
    "mm_use_im_start_end": (False, None),
    "tie_word_embeddings": (False, None),
}
UNUSED = ("rotary_emb.inv_freq", "embeddings.position_ids")  # buffers that old releases saved
PLAIN_LORA = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
}


def is_llava_checkpoint(folder: Path) -> bool:
    """Whether the folder's config.json is of LLaVA's own code."""
    return "mm_vision_tower" in checkpoints.read_settings(folder / "config.json")


class LlavaCheckpoint:
    """A checkpoint of LLaVA's own format with all it refers to.

    Args:
        folder: The checkpoint, or a LoRA of LLaVA's own code.
        base: A LoRA's base; None for the one that its config names.

    Raises:
        ModelError: It is of another design than LLaVA-1.5, or its base or tower is missing.
    """

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        self.folder = folder
        config_file = folder / "config.json"
        adapter_file = folder / checkpoints.ADAPTER_CONFIG
        self.settings = _read_object(config_file)
        self.lora: dict[str, Any] | None = None
        self.base: Path | None = None
        if adapter_file.is_file():
            self.lora = _read_object(adapter_file)
            self.base = base or self._beside(self.lora, "base_model_name_or_path", adapter_file)
        self.tower = self._beside(self.settings, "mm_vision_tower", config_file)
        self._check_design()

    @cached_property
    def config(self) -> Any:
        """The same architecture as a `LlavaConfig`.

        Two ids are added to the vocabulary: <image> and <pad>.
        """
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

        try:
            vision = CLIPVisionConfig.from_pretrained(self.tower)
            text = {}
            for name in TEXT_FIELDS:
                if self.settings.get(name) is not None:
                    text[name] = self.settings[name]
            rope = dict(self.settings.get("rope_scaling") or {})
            kind, theta = rope.pop("type", "default"), self.settings.get("rope_theta", 10000.0)
            text["rope_parameters"] = {"rope_type": kind, "rope_theta": theta} | rope
            text["vocab_size"] = max(text["vocab_size"], len(self.tokenizer))
            text["pad_token_id"] = self.tokenizer.pad_token_id
            config = LlavaConfig(
                vision_config=vision,
                text_config=LlamaConfig(**text),
                image_token_index=self.tokenizer.convert_tokens_to_ids("<image>"),
                image_seq_length=(vision.image_size // vision.patch_size) ** 2,
                projector_hidden_act="gelu",
                vision_feature_select_strategy="default",
                vision_feature_layer=self.settings.get("mm_vision_select_layer", -2),
                tie_word_embeddings=False,
            )
        except Exception as error:  # what is wrong in their fields comes as dozens of types
            raise self._cannot_read("its config or its tower's is damaged", error) from error
        # transformers would read another tower's fields into CLIP's config without a word.
        tower_type = _read_object(self.tower / "config.json").get("model_type")
        if tower_type not in ("clip", "clip_vision_model"):
            raise self._cannot_read(
                f"its vision tower {self.settings['mm_vision_tower']} is no CLIP"
            )
        return config

    @cached_property
    def tokenizer(self) -> Any:
        """Llama's, with <image> and <pad> added.

        Every piece of text gets a space before it, as SentencePiece does it.
        """
        from tokenizers import normalizers
        from transformers import LlamaTokenizer

        # LLaVA's training saves none beside a LoRA.
        has_own = any((self.folder / name).is_file() for name in TOKENIZER_FILES)
        folder = self.folder if has_own or self.base is None else self.base
        try:
            tokenizer = LlamaTokenizer.from_pretrained(folder)
        except Exception as error:  # a damaged tokenizer.model raises what the library raises
            raise self._cannot_read("its tokenizer cannot be read", error) from error
        # A tokenizer.json says itself how it treats spaces; a tokenizer.model does not.
        if (folder / "tokenizer.model").is_file():
            backend = tokenizer.backend_tokenizer
            backend.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
            backend.pre_tokenizer = None
        tokenizer.add_tokens(["<image>"], special_tokens=True)
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        return tokenizer

    @cached_property
    def processor(self) -> Any:
        """The tower's image processor and the tokenizer."""
        from transformers import CLIPImageProcessorPil, LlavaProcessor

        try:
            images = CLIPImageProcessorPil.from_pretrained(self.tower)
        except Exception as error:
            raise self._cannot_read("its tower has no image processor", error) from error
        return LlavaProcessor(
            images,
            self.tokenizer,
            patch_size=self.config.vision_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )

    def fingerprint(self) -> str:
        """One sha256 over the weights of everything that makes the model."""
        digests = []
        for folder in (self.folder, self.base, self.tower):
            if folder is not None:
                digests.append(checkpoints.fingerprint(folder))
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def read(self, dtype: torch.dtype, device: torch.device, placement: Placement = USUAL) -> Any:
        """The model in evaluation mode.

        Raises ModelError naming what is missing, unknown or of a wrong shape.
        """
        if placement.is_placed:
            raise ModelError(
                f"{self.folder} cannot be spread over devices or quantised as it is.",
                "Its weights are mapped onto transformers' in memory.",
                f"bench convert {self.folder} DST, and use that.",
            )
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration.from_pretrained(
            None,
            config=self.config,
            state_dict=self._tensors_by_new_name(),
            dtype=dtype,
            attn_implementation=placement.attention or "sdpa",
        )
        checkpoints.check_finite(self.folder, model.named_parameters())
        return model.to(device).eval()

    def _tensors_by_new_name(self) -> Tensors:
        """All tensors under transformers' names."""
        original = self._tensors()
        renamed: Tensors = {}
        tower: Tensors = {}
        rows = self.config.text_config.vocab_size
        left: list[str] = []
        for name, value in original.items():
            if name.startswith(LANGUAGE_PREFIXES):
                renamed[name.replace("model.", LANGUAGE_MODEL, 1)] = value
            elif name.startswith(TOWER):
                tower[name.removeprefix(TOWER)] = value
            elif name in EMBEDDINGS:
                renamed[EMBEDDINGS[name]] = _extended(value, rows)
            else:
                prefix = next((old for old in PROJECTOR if name.startswith(old)), None)
                if prefix is None:
                    left.append(name)
                else:
                    renamed[PROJECTOR[prefix] + name.removeprefix(prefix)] = value
        for name, value in (tower or self._tower_tensors()).items():
            renamed["model.vision_tower." + name] = value
        self._compare(renamed, left)
        return renamed

    def _tensors(self) -> Tensors:
        """The checkpoint's own tensors; a LoRA's are those of its base with the adapter merged."""
        if self.lora is None or self.base is None:
            return _without_buffers(_read_weights(self.folder))
        weights = _without_buffers(_read_weights(self.base))
        extra = self.folder / NON_LORA
        if not extra.is_file():
            raise self._cannot_read(f"it is an adapter without {NON_LORA}")
        # What LLaVA trained beside LoRA: the projector, whole.
        for name, value in _read_tensors(extra).items():
            name = name.removeprefix("base_model.")
            if name.startswith("model.model."):  # peft wraps the model once more
                name = name.removeprefix("model.")
            weights[name] = value
        self._merge_lora(weights)
        return weights

    def _merge_lora(self, weights: Tensors) -> None:
        """Adds B A · alpha / r to W for every pair of the adapter.

        Source: Hu et al. 2021, arXiv 2106.09685, equation 3.
        """
        assert self.lora is not None
        special = []
        for name, plain in PLAIN_LORA.items():
            if self.lora.get(name) not in (plain, None):
                special.append(name)
        if special:
            raise self._cannot_read(f"its adapter is no plain LoRA: {', '.join(special)}")
        file = _first_file(self.folder, ADAPTERS)
        if file is None:
            raise self._cannot_read(f"it has neither {' nor '.join(ADAPTERS)}")
        rank = self.lora["r"]
        divisor = math.sqrt(rank) if self.lora.get("use_rslora") else rank
        scale = self.lora["lora_alpha"] / divisor
        factors = _read_tensors(file)
        for a_name in list(factors):  # a list, because pairs are taken out as they are used
            if not a_name.endswith(".lora_A.weight"):
                continue
            b_name = a_name.replace(".lora_A.", ".lora_B.")
            target = a_name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            if target not in weights or b_name not in factors:
                raise self._cannot_read(f"its adapter's {a_name} has no place in {self.base}")
            a = factors.pop(a_name).float()  # (rank, inputs)
            b = factors.pop(b_name).float()  # (outputs, rank)
            weight = weights[target]
            if (b.shape[0], a.shape[1]) != tuple(weight.shape):
                raise self._cannot_read(f"its adapter's {a_name} does not fit {self.base}")
            # In float32: the sum of a half-precision weight and a small update would lose it.
            weights[target] = (weight.float() + scale * (b @ a)).to(weight.dtype)
        if factors:
            raise self._cannot_read(
                f"its adapter has tensors without a place, the first is {min(factors)}"
            )

    def _tower_tensors(self) -> Tensors:
        """The vision part of the tower's own checkpoint, a whole CLIP or its vision half."""
        other_parts = ("text_model.", "visual_", "text_", "logit_")
        tower = {}
        for name, value in _without_buffers(_read_weights(self.tower)).items():
            if name.startswith("vision_model.") or not name.startswith(other_parts):
                tower[name.removeprefix("vision_model.")] = value
        return tower

    def _compare(self, tensors: Tensors, left: Iterable[str]) -> None:
        """Raises ModelError unless every tensor has its place and every place its tensor."""
        from transformers import LlavaForConditionalGeneration

        # Shapes without memory.
        with torch.device("meta"):
            places = LlavaForConditionalGeneration(self.config).state_dict()
        unknown = sorted([*left, *(tensors.keys() - places.keys())])
        missing = sorted(places.keys() - tensors.keys())
        misshapen = []
        for name in sorted(tensors.keys() & places.keys()):
            if tensors[name].shape != places[name].shape:
                misshapen.append(name)
        faults = []
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
        ):
            if names:
                faults.append(f"{len(names)} tensors are {what}, the first is {names[0]}")
        if faults:
            raise self._cannot_read("; ".join(faults))

    def _check_design(self) -> None:
        model_type = self.settings.get("model_type")
        kind = str(self.settings.get("architectures") or model_type)
        if "llama" not in kind.lower() and model_type != "llava":
            raise self._cannot_read(f"its language model is no Llama ({kind})")
        for name, allowed in EXPECTED.items():
            value = self.settings.get(name)
            if value not in allowed:
                raise self._cannot_read(f"its {name} is {value!r}, not {allowed[0]!r}")

    def _beside(self, settings: Mapping[str, Any], field: str, file: Path) -> Path:
        """A checkpoint that a field of this one names: a folder, or a checkpoint of the hub.

        A folder is looked for where it is said to be, then under its own name in and beside this
        one, because training machines have paths of their own.
        """
        name = settings.get(field)
        if not isinstance(name, str):
            raise self._cannot_read(f"{file.name} names no {field}")
        own_name = Path(name).name
        for candidate in (
            self.folder / name,
            Path(name),
            self.folder / own_name,
            self.folder.resolve().parent / own_name,
        ):
            if candidate.is_dir():
                return candidate
        if checkpoints.HUB_ID.fullmatch(name):
            return checkpoints.locate(name, None)
        remedy = "Write the folder, or the hub's id, of the vision tower into that field."
        if field == "base_model_name_or_path":
            remedy = "Give it with --base, or write it into that field."
        raise ModelError(
            f"{self.folder} refers to a checkpoint that is not here.",
            f"{field} in {file} is {name}, which is no folder and no id of the hub.",
            remedy,
        )

    def _cannot_read(self, reason: str, error: Exception | None = None) -> ModelError:
        details = f": {one_line(error, 200)}" if error else ""
        return ModelError(
            f"{self.folder} cannot be read as a LLaVA-1.5 in the original format.",
            f"{reason[0].upper()}{reason[1:]}{details}.",
            "Complete the folder; for another design, use a checkpoint that its authors converted "
            "for transformers.",
        )


def _extended(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """`weight` (ids, width) with rows for the added ids.

    They are copies of <unk>'s row, which training never made likely and which greedy decoding
    prefers in a tie.
    """
    if len(weight) >= rows:
        return weight
    added = weight[:1].expand(rows - len(weight), -1)
    return torch.cat([weight, added])


def _without_buffers(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if not name.endswith(UNUSED)}


def _first_file(folder: Path, names: Iterable[str]) -> Path | None:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    return None


class WeightIndex(TypedDict):
    """Which file holds a tensor, by the tensor's name."""

    weight_map: dict[str, str]


def _read_weights(folder: Path) -> Tensors:
    """All tensors of a checkpoint, sharded or not.

    Raises ModelError if a shard is missing or damaged.
    """
    index = _first_file(folder, INDICES)
    if index is None:
        file = _first_file(folder, WHOLE)
        if file is None:
            raise ModelError(
                f"{folder} holds no weights.",
                f"There is none of {', '.join(WHOLE + INDICES)}.",
                "Complete the folder.",
            )
        return _read_tensors(file)
    tensors: Tensors = {}
    content = _read_object(index)
    fault = type_fault(WeightIndex, content)
    if fault:
        raise ModelError(f"{index} cannot be read.", fault, GET_AGAIN)
    for name in sorted(set(content["weight_map"].values())):
        shard = folder / Path(name).name  # an index cannot lead out of its folder
        if not shard.is_file():
            raise ModelError(
                f"{folder} is incomplete.",
                f"{index.name} names {name}, which is missing.",
                "Complete the folder.",
            )
        tensors |= _read_tensors(shard)
    return tensors


def _read_tensors(file: Path) -> Tensors:
    """A file's tensors; of a pickle, tensors only.

    Raises ModelError if it is damaged or holds anything else.
    """
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict):
            raise ValueError("it is no dictionary of tensors")
        if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise ValueError("it is no dictionary of tensors")
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} cannot be read.",
            "it holds more than tensors, and such a pickle can run code.",
            GET_AGAIN,
        ) from error
    except Exception as error:  # zip and safetensors raise many types for broken files
        raise ModelError(f"{file} cannot be read.", f"{first_line(error)}.", GET_AGAIN) from error
    return tensors


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read.", f"{error}.", GET_AGAIN) from error
    # Everything below asks for its fields.
    if not isinstance(content, dict):
        raise ModelError(f"{file} cannot be read.", "It is not a JSON object.", GET_AGAIN)
    return content
