"""Checkpoints from the hub or a folder: files, fingerprint, processor, weights, adapter."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench import registry
from bench.errors import ModelError, one_line

PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "non_lora_trainables.bin"]
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SHA256 = re.compile(r"[0-9a-f]{64}")
HUB_TIMEOUT = 20  # seconds for the question what a repository holds


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

    def read(self, dtype: torch.dtype, device: torch.device) -> Any:
        """The model in evaluation mode."""
        return read_model(self.folder, dtype, device, self.remote_code)


# Of files that transformers reads beside the weights; trainer states and reports have others.
CONFIG_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")


def locate(name: str, revision: str | None) -> Path:
    """The folder of a checkpoint: a local one, or the hub's, downloaded at `revision`.

    Raises ModelError if there is no such folder, id or revision, or if the hub cannot be reached.
    """
    # A local folder wins over a hub id of the same name.
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"There is no model '{name}'.",
            "It is no folder, no alias and no hub id of the form owner/name."
            + _did_you_mean(name, registry.MODEL_ALIASES, cutoff=0.5),
            "`bench list models` shows the aliases.",
        )
    return Path(_download(name, revision))


def _did_you_mean(name: str, known: Iterable[str], cutoff: float) -> str:
    close = difflib.get_close_matches(name, [*known], n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def _download(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    remedy = "Check the spelling, and HF_TOKEN if it is private; a local folder works too."
    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
        has_safetensors = False
        for file in info.siblings or ():
            has_safetensors = has_safetensors or file.rfilename.endswith(".safetensors")
        # Pickles are fetched only of an original LLaVA, which has nothing else.
        patterns = PATTERNS if has_safetensors else [*PATTERNS, "*.bin"]
        return snapshot_download(name, revision=revision, allow_patterns=patterns)
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated.", "Its owner gives access on request.", "Ask, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        hint = _did_you_mean(name, registry.MODEL_ALIASES.values(), cutoff=0.7)
        raise ModelError(
            f"There is no model '{name}' on the hub.", f"The hub does not know it.{hint}", remedy
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision '{revision}'.", "The hub does not know it.", remedy
        ) from error
    except Exception as error:  # the client raises dozens of types for a dead, slow or lying server
        # What was downloaded once is good enough without a network.
        try:
            return snapshot_download(
                name, revision=revision, allow_patterns=PATTERNS, local_files_only=True
            )
        except Exception:
            lines = str(error).strip().splitlines() or ["no details"]
            raise ModelError(
                f"{name} could not be downloaded from the hub.",
                f"{type(error).__name__}: {lines[0]}",
                "Check the network and HF_ENDPOINT, or give the checkpoint's folder.",
            ) from error


def commit(folder: Path) -> str | None:
    """The hub commit that a snapshot folder belongs to, None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


def fingerprint(folder: Path) -> str:
    """One sha256 over the names and contents of all weight files.

    The hub's cache names a blob by its sha256, which is then taken as it is. Raises ModelError if
    there are no weights.
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
        blob = file.resolve().name
        if not SHA256.fullmatch(blob):
            with file.open("rb") as content:
                blob = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.name} {blob}\n".encode())
    return digest.hexdigest()


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

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} is no checkpoint that transformers can load.",
            one_line(error),
            "Give a folder with config.json, weights and processor; "
            "--trust-remote-code if it brings its own code.",
        ) from error


def read_processor(folder: Path, config: Any, remote_code: bool) -> Any:
    """The checkpoint's processor.

    Images go through Pillow, so that torchvision's presence moves no number. A processor with a
    video part that needs torchvision is built without it.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    code = {"trust_remote_code": remote_code}
    try:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", **code)
        processor_class = PROCESSOR_MAPPING.get(type(config), None)
        if processor_class is None:
            processor = AutoProcessor.from_pretrained(folder, **code)
            processor.image_processor = images
            return processor
        # Put together from its parts, because the processor's own loading would take torchvision.
        tokenizer = AutoTokenizer.from_pretrained(folder, **code)
        settings = processor_class.get_processor_dict(folder)[0]
        return _without_video(processor_class).from_args_and_dict(
            [images, tokenizer], settings, video_processor=None
        )
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise ModelError(
            f"The processor in {folder} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Complete the folder with the processor's files of the base model.",
        ) from error


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


def read_model(folder: Path, dtype: torch.dtype, device: torch.device, remote_code: bool) -> Any:
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
            # Elsewhere transformers would want accelerate's hooks for nothing.
            # The attention is its choice too: sdpa, but eager for Gemma 2, which has no other.
            device_map=None if device.type in ("cpu", "mps") else device,
            trust_remote_code=remote_code,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{folder} does not fit on {device}.",
            str(error).splitlines()[0],
            "Use --dtype bfloat16 or another device.",
        ) from error
    except Exception as error:  # safetensors, pickle and transformers raise many types
        raise ModelError(
            f"The weights in {folder} cannot be loaded.",
            f"{type(error).__name__}: {one_line(error)}",
            "Download or save the checkpoint again.",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers fills them with random numbers and only warns.
        raise ModelError(
            f"The weights in {folder} are incomplete.",
            f"{len(missing)} tensors are missing, the first is {missing[0]}.",
            "Download or save the checkpoint again.",
        )
    return model.to(device).eval()


def locate_adapter(name: str) -> Path:
    """The folder of a PEFT adapter. Raises ModelError if it is none."""
    folder = locate(name, None)
    if (folder / ADAPTER_CONFIG).is_file() and (folder / ADAPTER_WEIGHTS).is_file():
        return folder
    raise ModelError(
        f"{folder} is not a PEFT adapter.",
        f"It needs {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}.",
        "Give the folder that peft's save_pretrained wrote.",
    )


def add_adapter(model: Any, folder: Path) -> None:
    """Injects a PEFT adapter into `model`.

    Raises ModelError if it belongs to another base.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    base = config.get("base_model_name_or_path")
    trained_class = (config.get("auto_mapping") or {}).get("base_model_class")
    fact = f"The adapter {folder} does not fit this base."
    remedy = f"Give the base it was trained on{f' ({base})' if base else ''}."
    own_class = type(model).__name__
    if trained_class not in (None, own_class):
        reason = f"It was trained on a {trained_class}, and this is a {own_class}."
        raise ModelError(fact, reason, remedy)
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        loaded = set(get_peft_model_state_dict(adapted))
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            unused = sorted(set(file.keys()) - loaded)
    except Exception as error:  # peft raises ValueError, RuntimeError, KeyError … for one mistake
        raise ModelError(fact, one_line(error), remedy) from error
    # peft only warns of tensors that have no place, and the base would answer as the adapter.
    if unused or not loaded:
        example = unused[0] if unused else "all of them"
        raise ModelError(
            fact,
            f"{len(unused)} of its tensors have no place in the model, the first is {example}.",
            remedy,
        )
    adapted.eval()
