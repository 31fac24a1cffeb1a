"""Checkpoints from the hub or a folder: files, fingerprint, processor, weights, adapter."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench import registry
from bench.errors import ModelError

PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "non_lora_trainables.bin"]
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Checkpoint:
    """A checkpoint of transformers' own format: its config and processor at once, its weights when they are read."""

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


def locate(name: str, revision: str | None) -> Path:
    """The folder of a checkpoint: a local one, or the hub's, downloaded at `revision`.

    Raises ModelError where there is no such folder, id or revision, or where the hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(name):
        close = difflib.get_close_matches(name, registry.MODEL_ALIASES, n=1, cutoff=0.5)
        raise ModelError(
            f"There is no model '{name}'.",
            "It is no folder, no alias and no hub id of the form owner/name."
            + (f" Did you mean '{close[0]}'?" if close else ""),
            "`bench list models` shows the aliases.",
        )
    return Path(_download(name, revision))


def _download(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    where = "Check the spelling, and HF_TOKEN if it is private; a local folder works too."
    try:
        found = HfApi().model_info(name, revision=revision, timeout=20)
        safe = any(file.rfilename.endswith(".safetensors") for file in found.siblings or ())
        patterns = PATTERNS if safe else [*PATTERNS, "*.bin"]
        return snapshot_download(name, revision=revision, allow_patterns=patterns)
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated.", "Its owner gives access on request.", "Ask, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        close = difflib.get_close_matches(name, registry.MODEL_ALIASES.values(), n=1, cutoff=0.7)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ModelError(
            f"There is no model '{name}' on the hub.", f"The hub does not know it.{hint}", where
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision '{revision}'.", "The hub does not know it.", where) from error
    except Exception as error:  # the client raises dozens of types for a dead, slow or lying server
        try:
            return snapshot_download(name, revision=revision, allow_patterns=PATTERNS, local_files_only=True)
        except Exception:
            raise ModelError(
                f"{name} could not be downloaded from the hub.",
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}",
                "Check the network and HF_ENDPOINT, or give the checkpoint's folder.",
            ) from error


def commit(folder: Path) -> str | None:
    """The hub commit a snapshot folder belongs to, None for other folders."""
    return folder.name if folder.parent.name == "snapshots" else None


def fingerprint(folder: Path) -> str:
    """One sha256 over the names and contents of all weight files. Raises ModelError where there are none.

    The hub's cache names a blob by its sha256, which is then taken as it is.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise ModelError(
            f"{folder} holds no weights.", "There is no *.safetensors and no *.bin.", "Give a whole checkpoint."
        )
    digest = hashlib.sha256()
    for file in files:
        blob = file.resolve().name
        if not re.fullmatch(r"[0-9a-f]{64}", blob):
            with file.open("rb") as content:
                blob = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.name} {blob}\n".encode())
    return digest.hexdigest()


def read_config(folder: Path, remote_code: bool) -> Any:
    """The checkpoint's config. Raises ModelError where it is missing, broken or of an unknown type."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} is no checkpoint that transformers can load.",
            " ".join(str(error).split())[:300],
            "Give a folder with config.json, weights and processor; --trust-remote-code where it brings its own code.",
        ) from error


def read_processor(folder: Path, config: Any, remote_code: bool) -> Any:
    """The checkpoint's processor, images through Pillow, so that torchvision's presence moves no number.

    A processor with a video part that needs torchvision is built without it.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=remote_code)
        cls = PROCESSOR_MAPPING.get(type(config), None)
        if cls is None:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=remote_code)
            processor.image_processor = images
            return processor
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
        settings, still = cls.get_processor_dict(folder)[0], _without_video(cls)
        return still.from_args_and_dict([images, tokenizer], settings, video_processor=None)
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise ModelError(
            f"The processor in {folder} cannot be loaded.",
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "Complete the folder with the processor's files of the base model.",
        ) from error


def _without_video(cls: Any) -> Any:
    """`cls` without its video processor, whose class cannot be imported where torchvision is missing."""
    if "video_processor" not in cls.get_attributes():
        return cls
    parts = classmethod(lambda own: [name for name in super(own, own).get_attributes() if name != "video_processor"])
    still = SimpleNamespace(num_frames=None, fps=None)  # SmolVLM's chat template call reads them
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "get_attributes": parts, "video_processor": still})


def read_model(folder: Path, dtype: torch.dtype, device: torch.device, remote_code: bool) -> Any:
    """The model in evaluation mode. Raises ModelError where weights are missing, corrupt or too large."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map=None if device.type in ("cpu", "mps") else device,
            attn_implementation="sdpa",
            trust_remote_code=remote_code,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{folder} does not fit on {device}.", str(error).splitlines()[0], "Use --dtype bfloat16 or another device."
        ) from error
    except Exception as error:  # safetensors, pickle and transformers raise many types for broken files
        raise ModelError(
            f"The weights in {folder} cannot be loaded.",
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "Download or save the checkpoint again.",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights in {folder} are incomplete.",
            f"{len(missing)} tensors are missing, the first is {missing[0]}.",
            "Download or save the checkpoint again.",
        )
    return model.to(device).eval()


def locate_adapter(name: str) -> Path:
    """The folder of a PEFT adapter. Raises ModelError where it is none."""
    folder = locate(name, None)
    if all((folder / file).is_file() for file in ("adapter_config.json", ADAPTER_WEIGHTS)):
        return folder
    raise ModelError(
        f"{folder} is no PEFT adapter.",
        f"It needs adapter_config.json and {ADAPTER_WEIGHTS}.",
        "Give the folder that peft's save_pretrained wrote.",
    )


def add_adapter(model: Any, folder: Path) -> None:
    """Injects a PEFT adapter into `model`. Raises ModelError where it belongs to another base."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    config = json.loads((folder / "adapter_config.json").read_text())
    base, trained = config.get("base_model_name_or_path"), (config.get("auto_mapping") or {}).get("base_model_class")
    remedy = f"Give the base it was trained on ({base})." if base else "Give the base it was trained on."
    if trained not in (None, type(model).__name__):
        reason = f"It was trained on a {trained}, and this is a {type(model).__name__}."
        raise ModelError(f"The adapter {folder} does not fit this base.", reason, remedy)
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        loaded = set(get_peft_model_state_dict(adapted))
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            unused = set(file.keys()) - loaded
    except Exception as error:  # peft raises ValueError, RuntimeError, KeyError … for the same mistake
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"The adapter {folder} does not fit this base.", reason, remedy) from error
    if unused or len(loaded) == 0:
        example = sorted(unused)[0] if unused else "all of them"
        raise ModelError(
            f"The adapter {folder} does not fit this base.",
            f"{len(unused)} of its tensors have no place in the model, the first is {example}.",
            remedy,
        )
    adapted.eval()
