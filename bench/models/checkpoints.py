"""Checkpoints from the hub or a folder: files, fingerprint, processor, weights, adapter."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NotRequired

import torch
from typing_extensions import TypedDict

from bench import registry
from bench.data.hub_cache import forget_lists, whole
from bench.errors import ModelError, first_line, one_line
from bench.files import digest_of, parse_json, type_fault
from bench.models.placement import USUAL, Placement

PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "non_lora_trainables.bin"]
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_TIMEOUT = 20  # seconds for the question what a repository holds
# Of files that transformers reads beside the weights; trainer states and reports have others.
CONFIG_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
# Where a checkpoint may name its processor's class.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
IMAGE_TEXT_CLASSES = ("AutoModelForImageTextToText", "AutoModelForVision2Seq")
# Buffers that older versions of transformers saved; they are computed anew.
BUFFERS = ("rotary_emb.inv_freq", "position_ids")
# Layers that transformers has renamed since an adapter may have been saved (4.52), as patterns
# without peft's prefix; peft itself knows LLaVA's.
QWEN_LAYERS = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
}
RENAMED_LAYERS = {"qwen2_vl": QWEN_LAYERS, "qwen2_5_vl": QWEN_LAYERS}
LORA_MARKS = (".lora_", ".base_layer.", "base_model.model.")


class Checkpoint:
    """A checkpoint of transformers' own format.

    Config and processor are read at once, the weights when the model is.
    """

    def __init__(self, folder: Path, remote_code: bool) -> None:
        self.folder, self.remote_code = folder, remote_code
        self.config = read_config(folder, remote_code)
        self.processor = read_processor(folder, self.config, remote_code)

    def fingerprint(self) -> str:
        """One sha256 over its weights."""
        return fingerprint(self.folder)

    def read(self, dtype: torch.dtype, device: torch.device, placement: Placement = USUAL) -> Any:
        """The model in evaluation mode."""
        return read_model(self.folder, dtype, device, self.remote_code, placement)


def code_digest(folder: Path) -> str:
    """One sha256 over the code in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def locate(
    name: str,
    revision: str | None,
    remote_code: bool = False,
    patterns: Sequence[str] = PATTERNS,
) -> Path:
    """The folder of a checkpoint: a local one, or the hub's, downloaded at `revision`.

    Args:
        name: A folder, or a hub id.
        revision: A branch, tag or commit of the hub; None for the newest.
        remote_code: Whether its code may run; only then it is downloaded.
        patterns: Names of the files that are wanted.

    Raises:
        ModelError: There is no such folder, id or revision, or the hub cannot be reached.
    """
    # A local folder wins over a hub id of the same name.
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"There is no model '{name}'.",
            "It is no folder, no alias and no hub id of the form owner/name. "
            + registry.did_you_mean(name, registry.MODEL_ALIASES),
            "`bench list models` shows the aliases.",
        )
    code = ["*.py"] if remote_code else []
    download = partial(_download, name, revision, [*patterns, *code])
    return whole(download, name, ModelError)


def _download(name: str, revision: str | None, patterns: list[str]) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    remedy = "Check the spelling, and HF_TOKEN if it is private; a local folder works too."
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
        forget_lists(name, "model")
        has_safetensors = False
        for file in info.siblings or ():
            has_safetensors = has_safetensors or file.rfilename.endswith(".safetensors")
        # Pickles are fetched only of an original LLaVA, which has nothing else.
        wanted = patterns if has_safetensors else [*patterns, "*.bin"]
        return snapshot_download(name, revision=revision, allow_patterns=wanted)
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated.", "Its owner gives access on request.", "Ask, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        hint = registry.did_you_mean(name, registry.MODEL_ALIASES.values(), cutoff=0.7)
        raise ModelError(
            f"There is no model '{name}' on the hub.", f"The hub does not know it. {hint}", remedy
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision '{revision}'.", "The hub does not know it.", remedy
        ) from error
    except Exception as error:  # the client raises dozens of types for a dead, slow or lying server
        # What was downloaded once is good enough without a network.
        try:
            return snapshot_download(
                name, revision=revision, allow_patterns=patterns, local_files_only=True
            )
        except Exception:
            raise ModelError(
                f"{name} could not be downloaded from the hub.",
                f"{type(error).__name__}: {first_line(error)}",
                "Check the network and HF_ENDPOINT, or give the checkpoint's folder.",
            ) from error


def commit(folder: Path) -> str | None:
    """The hub commit that a snapshot folder belongs to, None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


def fingerprint(folder: Path) -> str:
    """One sha256 over the names and contents of all weight files.

    Raises ModelError if there are no weights.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise ModelError(
            f"{folder} holds no weights.",
            "There is no *.safetensors and no *.bin.",
            "Give a whole checkpoint.",
        )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {digest_of(file)}\n".encode())
    return digest.hexdigest()


def quantization(config: Any) -> str | None:
    """The method by which a checkpoint's weights were quantised before they were saved."""
    for part in (config, config.get_text_config()):
        settings = getattr(part, "quantization_config", None)
        if settings is not None:
            return str(dict(settings).get("quant_method", "a method of its own"))
    return None


def contents(name: str) -> str:
    """What stands for the contents of a model in parts, as a text-to-image pipeline is.

    Of a folder the sha256 over its weights and configs, subfolders included; of a hub id its
    newest commit, or the one that was downloaded if the hub cannot be reached. Raises ModelError
    if there is neither.
    """
    folder = Path(name)
    if not folder.is_dir():
        return commit_of(name)
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (*CONFIG_SUFFIXES, *WEIGHT_SUFFIXES) and file.is_file():
            digest.update(f"{file.relative_to(folder)} {digest_of(file)}\n".encode())
    return digest.hexdigest()


def weight_bytes(name: str) -> int | None:
    """How large a model's weights are on disk, without a download; None if nobody can tell.

    Args:
        name: A folder, or a hub id.
    """
    folder = Path(name)
    if folder.is_dir():
        sizes = {}
        for file in folder.rglob("*"):
            sizes[file.relative_to(folder).as_posix()] = file.stat().st_size
    else:
        from huggingface_hub import HfApi

        try:
            info = HfApi().model_info(name, files_metadata=True, timeout=HUB_TIMEOUT)
        except Exception:  # the client raises dozens of types
            return None
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    # Of a pipeline the parts, not the same once more in one file or in half precision.
    weights = []
    for file_name in sizes:
        if Path(file_name).suffix in WEIGHT_SUFFIXES and ".fp16." not in file_name:
            weights.append(file_name)
    for wanted in (".safetensors", *WEIGHT_SUFFIXES):
        chosen = [file_name for file_name in weights if file_name.endswith(wanted)]
        in_parts = [file_name for file_name in chosen if "/" in file_name]
        is_pipeline = "model_index.json" in sizes
        if chosen:
            return sum(sizes[file_name] for file_name in (in_parts if is_pipeline else chosen))
    return None


def commit_of(name: str) -> str:
    """The hub's newest commit of a model, without a download of its files.

    Without the hub, the commit that was downloaded. Raises ModelError if there is neither.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        return str(HfApi().model_info(name, timeout=HUB_TIMEOUT).sha)
    except Exception as error:  # the client raises dozens of types
        try:
            return Path(snapshot_download(name, local_files_only=True)).name
        except Exception:
            raise ModelError(
                f"There is no model '{name}'.",
                f"It is no folder, and the hub does not give it: {one_line(error)}",
                "Check the spelling, the network, and HF_TOKEN if it is gated or private.",
            ) from error


def file_digests(folder: Path) -> dict[str, str]:
    """The sha256 (16 hex digits) of every file but the weights that can change an answer, by name.

    They are configs, tokenizer, processor, chat templates and code.
    """
    digests = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        is_read = file.suffix in CONFIG_SUFFIXES and not file.name.endswith(".index.json")
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if is_read and not is_hidden and name.count("/") <= 1 and file.is_file():
            digests[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return digests


def read_config(folder: Path, remote_code: bool) -> Any:
    """The checkpoint's config.

    Raises ModelError if it is missing, broken or of an unknown type.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file() and (folder / ADAPTER_CONFIG).is_file():
        base = read_settings(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        raise ModelError(
            f"{folder} is an adapter.",
            f"It has {ADAPTER_CONFIG} and no config.json.",
            f"Give it with its base: {base or 'BASE'}+{folder}.",
        )
    own_class = _own_class(folder)
    if own_class is not None and own_class[0] not in IMAGE_TEXT_CLASSES:
        raise ModelError(
            f"{folder} brings a model of its own code, which is asked in a form of its own.",
            f"Its config.json maps {own_class[0]} to {own_class[1]}.",
            "Use its conversion for transformers (often NAME-hf), or serve it and use "
            "openai:NAME@URL.",
        )
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
    except Exception as error:  # what is wrong in its files comes as dozens of types
        raise ModelError(
            f"{folder} is no checkpoint that transformers can load.",
            one_line(error),
            "Give a folder with config.json, weights and processor; "
            "--trust-remote-code if it brings its own code.",
        ) from error


def _own_class(folder: Path) -> tuple[str, str] | None:
    """(auto class, class) of the code that a checkpoint brings, if transformers has none for it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    settings = read_settings(folder / "config.json")
    auto_map = settings.get("auto_map")
    if str(settings.get("model_type")) in CONFIG_MAPPING_NAMES or not isinstance(auto_map, dict):
        return None
    models = {}
    for name, target in auto_map.items():
        if name.startswith("AutoModel"):
            models[name] = str(target)
    for name in (*IMAGE_TEXT_CLASSES, *sorted(models)):
        if name in models:
            return name, models[name]
    return None


def read_settings(file: Path) -> dict[str, Any]:
    """A JSON object that a checkpoint may have; empty if the file is missing or no object.

    What transformers itself cannot read, it says when it reads it.
    """
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_processor(folder: Path, config: Any, remote_code: bool) -> Any:
    """The checkpoint's processor.

    Images go through Pillow, so that torchvision's presence moves no number. A processor with a
    video part that needs torchvision is built without it.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    code = {"trust_remote_code": remote_code}
    try:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", **code)
        processor_class = _processor_class(folder, config)
        if processor_class is None:
            processor = AutoProcessor.from_pretrained(folder, **code)
            processor.image_processor = images
            return processor
        # Put together from its parts, because the processor's own loading would take torchvision.
        tokenizer = AutoTokenizer.from_pretrained(folder, **code)
        settings = processor_class.get_processor_dict(folder)[0]
        processor = _without_video(processor_class).from_args_and_dict(
            [images, tokenizer], settings, video_processor=None
        )
        _complete_processor(processor, settings, config)
        return processor
    except ImportError as error:
        raise ModelError(
            f"The processor in {folder} needs a package that is not installed.",
            one_line(error),
            "Install it: pip install torchvision, or what the reason names.",
        ) from error
    except Exception as error:  # tokenizers raises bare ones
        raise ModelError(
            f"The processor in {folder} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Complete the folder with the processor's files of the base model.",
        ) from error


def _processor_class(folder: Path, config: Any) -> Any:
    """The class that the checkpoint names, else its architecture's; None if it is not known.

    Pixtral is a `llava` by its config, with another processor.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    for name in PROCESSOR_FILES:
        class_name = str(read_settings(folder / name).get("processor_class"))
        if hasattr(transformers, class_name):
            return getattr(transformers, class_name)
    return PROCESSOR_MAPPING.get(type(config), None)


def _complete_processor(processor: Any, settings: dict[str, Any], config: Any) -> None:
    """What processors saved before transformers 4.45 lack, from the model's config."""
    vision = getattr(config, "vision_config", None)
    patch_size = getattr(vision, "patch_size", None)
    known = {
        "patch_size": patch_size,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
    }
    has_class_token = getattr(vision, "model_type", None) == "clip_vision_model"
    if has_class_token:
        known["num_additional_image_tokens"] = 1
    image_size = getattr(vision, "image_size", None)
    if isinstance(image_size, int) and isinstance(patch_size, int):
        # OneVision counts an image's tokens itself.
        known["num_image_tokens"] = (image_size // patch_size) ** 2
    for name, value in known.items():
        if hasattr(processor, name) and settings.get(name) is None and value is not None:
            setattr(processor, name, value)


def _without_video(processor_class: Any) -> Any:
    """The class without its video processor, which cannot be imported without torchvision."""
    if "video_processor" not in processor_class.get_attributes():
        return processor_class

    class WithoutVideo(processor_class):  # type: ignore[misc]
        # SmolVLM's chat template call reads these two.
        video_processor = SimpleNamespace(num_frames=None, fps=None)

        @classmethod
        def get_attributes(cls) -> list[str]:
            names = super().get_attributes()
            return [name for name in names if name != "video_processor"]

    # transformers looks things up by the name of the class.
    WithoutVideo.__name__ = processor_class.__name__
    return WithoutVideo


def read_model(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    remote_code: bool,
    placement: Placement = USUAL,
) -> Any:
    """The model in evaluation mode.

    Raises ModelError if weights are missing, corrupt or too large.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    # A bar in a log file is a thousand lines.
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            # The attention is its choice: sdpa, but eager for Gemma 2, which has no other.
            **placement.arguments(dtype, device),
            trust_remote_code=remote_code,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{folder} does not fit on {device}.",
            first_line(error),
            "Use --dtype bfloat16, --quantize 4bit, --device-map auto or another device.",
        ) from error
    except ImportError as error:  # a checkpoint that is quantised by a package of its own
        raise ModelError(
            f"The weights in {folder} need a package that is not installed.",
            one_line(error),
            "Install it.",
        ) from error
    except Exception as error:  # safetensors, pickle and transformers raise many types
        raise ModelError(
            f"The weights in {folder} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Download or save the checkpoint again.",
        ) from error
    _check_complete(folder, report)
    check_finite(folder, model.named_parameters())
    return (model if placement.is_placed else model.to(device)).eval()


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    """Raises ModelError if a tensor has no place, or a place no tensor.

    transformers fills the one with random numbers, drops the other, and only warns.
    """
    missing = sorted(report["missing_keys"])
    unexpected = sorted(name for name in report["unexpected_keys"] if not name.endswith(BUFFERS))
    unmerged = []
    for name in unexpected:
        if any(mark in name for mark in LORA_MARKS):
            unmerged.append(name)
    if unmerged:
        raise ModelError(
            f"The weights in {folder} hold an adapter that was not merged.",
            f"{len(unmerged)} tensors are LoRA's, the first is {unmerged[0]}.",
            "Merge it and save the checkpoint again, or save the adapter apart and give "
            "BASE+ADAPTER.",
        )
    if missing:
        raise ModelError(
            f"The weights in {folder} are incomplete.",
            f"{len(missing)} tensors are missing, the first is {missing[0]}.",
            "Download or save the checkpoint again.",
        )
    if unexpected:
        raise ModelError(
            f"The weights in {folder} are not those of its config.json.",
            f"{len(unexpected)} tensors have no place in the model, the first is {unexpected[0]}.",
            "Restore the config.json that belongs to them.",
        )


def check_finite(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises ModelError if a tensor holds a number that is none.

    A training that diverged leaves such weights, and their answers look like short ones.
    """
    for name, tensor in tensors:
        # Numbers of one byte know no infinity, and torch does not compare them.
        if not tensor.is_floating_point() or tensor.itemsize == 1 or tensor.numel() == 0:
            continue
        if tensor.is_meta:  # it lies on disk
            continue
        low, high = tensor.detach().aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise ModelError(
                f"The weights in {folder} are broken.",
                f"{name} holds NaN or infinite numbers.",
                "Train it again with a lower learning rate, or get it again from its source.",
            )


def locate_adapter(name: str) -> Path:
    """The folder of a PEFT adapter. Raises ModelError if it is none."""
    folder = locate(name, None)
    if (folder / ADAPTER_CONFIG).is_file() and (folder / ADAPTER_WEIGHTS).is_file():
        return folder
    if (folder / "non_lora_trainables.bin").is_file():
        raise ModelError(
            f"{folder} is a LoRA of LLaVA's own code.",
            "It is a model by itself, with a base that its config names.",
            f"Give it alone: --model {folder}, and --base BASE if the base lies elsewhere.",
        )
    raise ModelError(
        f"{folder} is not a PEFT adapter.",
        f"It needs {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}.",
        "Give the folder that peft's save_pretrained wrote.",
    )


class AutoMapping(TypedDict):
    """What peft writes of the class that an adapter was trained on."""

    base_model_class: NotRequired[str | None]


class AdapterConfig(TypedDict):
    """What is read here of adapter_config.json."""

    base_model_name_or_path: NotRequired[str | None]
    auto_mapping: NotRequired[AutoMapping | None]


def add_adapter(model: Any, folder: Path) -> Any:
    """Injects a PEFT adapter into `model`; returns peft's model around it.

    Raises ModelError if it belongs to another base, is not whole, or holds broken numbers.
    """
    from peft import PeftModel, get_peft_model_state_dict

    config = read_settings(folder / ADAPTER_CONFIG)
    fault = type_fault(AdapterConfig, config)
    if fault:
        raise ModelError(
            f"{folder / ADAPTER_CONFIG} is not as peft writes it.", fault, "Restore the adapter."
        )
    base = config.get("base_model_name_or_path")
    trained_class = (config.get("auto_mapping") or {}).get("base_model_class")
    fact = f"The adapter {folder} does not fit this base."
    remedy = f"Give the base it was trained on{f' ({base})' if base else ''}."
    own_class = type(model).__name__
    if trained_class not in (None, own_class):
        reason = f"It was trained on a {trained_class}, and this is a {own_class}."
        raise ModelError(fact, reason, remedy)
    renamed = RENAMED_LAYERS.get(model.config.model_type)
    try:
        with warnings.catch_warnings():
            # peft only warns of what is missing; it is looked at here.
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, folder, key_mapping=renamed)
            report = adapted.load_adapter(str(folder), "default", key_mapping=renamed)
        loaded = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:  # peft raises ValueError, RuntimeError, KeyError … for one mistake
        raise ModelError(fact, one_line(error), remedy) from error
    # The base would answer as the adapter.
    unused = sorted(report.unexpected_keys)
    if unused or not loaded:
        example = unused[0] if unused else "all of them"
        reason = f"{len(unused)} of its tensors have no place in the model, the first is {example}."
        raise ModelError(fact, reason, remedy)
    if report.missing_keys:
        raise ModelError(
            f"The adapter {folder} is incomplete.",
            f"{len(report.missing_keys)} of {len(loaded)} tensors are missing, the first is "
            f"{sorted(report.missing_keys)[0]}.",
            "Save it again; a run with ZeRO-3 or FSDP must gather its weights first.",
        )
    check_finite(folder, loaded.items())
    return adapted.eval()
