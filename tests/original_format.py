"""Tiny checkpoints in LLaVA's original format, laid out as LLaVA's own code leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import save_file

from tests.tiny_models import IMAGE, TEXT, VISION, sentencepiece_model, square

ROWS = 700


def llama_config() -> hf.LlamaConfig:
    return hf.LlamaConfig(**TEXT, vocab_size=ROWS, bos_token_id=1, eos_token_id=2)


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value))


def write_original(
    root: Path, lora: bool = False, tower_inside: bool = False, safetensors: bool = False
) -> dict:
    """root/tower, root/llava (sharded) and, with `lora`, root/adapter on root/llava; returns the
    parts."""
    torch.manual_seed(5)
    clip = hf.CLIPVisionModel(hf.CLIPVisionConfig(**VISION)).eval()
    llama = hf.LlamaForCausalLM(llama_config()).eval()
    projector = torch.nn.Sequential(
        torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 64)
    )
    for weight in [*llama.parameters(), *projector.parameters()]:
        torch.nn.init.normal_(weight, std=0.2)
    (root / "llava").mkdir(parents=True)
    clip.save_pretrained(root / "tower")
    hf.CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=square()).save_pretrained(
        root / "tower"
    )
    config = llama_config().to_dict() | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": str(root / "tower"),
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 32,
        "mm_vision_select_layer": -2,
        "torch_dtype": "float32",
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "rope_scaling": None,
        "tie_word_embeddings": False,
    }
    del config["rope_parameters"], config["pad_token_id"]
    for folder in [root / "llava", *([root / "adapter"] if lora else [])]:
        folder.mkdir(exist_ok=True)
        write_json(folder / "config.json", config)
        (folder / "tokenizer.model").write_bytes(sentencepiece_model())
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "LlamaTokenizer",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": None,
                "legacy": False,
            },
        )
        write_json(
            folder / "generation_config.json",
            {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        )
    state = {name: value.contiguous() for name, value in llama.state_dict().items()}
    state |= {f"model.mm_projector.{name}": value for name, value in projector.state_dict().items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(
        8
    )  # releases of 2023 have these
    if tower_inside:
        inner = {n.removeprefix("vision_model."): v for n, v in clip.state_dict().items()}
        state |= {
            f"model.vision_tower.vision_tower.vision_model.{name}": value
            for name, value in inner.items()
        }
    names, half = sorted(state), len(state) // 2
    ending, save = ("safetensors", save_file) if safetensors else ("bin", torch.save)
    stem = "model" if safetensors else "pytorch_model"
    shards = {
        f"{stem}-00001-of-00002.{ending}": names[:half],
        f"{stem}-00002-of-00002.{ending}": names[half:],
    }
    for name, kept in shards.items():
        save({key: state[key] for key in kept}, root / "llava" / name)
    write_json(
        root / "llava" / f"{stem}.{ending}.index.json",
        {"weight_map": {k: n for n, ks in shards.items() for k in ks}},
    )
    if lora:
        adapter = {}
        for name, weight in llama.named_parameters():
            if name.endswith("_proj.weight"):
                low, high = (
                    torch.randn(4, weight.shape[1]) * 0.1,
                    torch.randn(weight.shape[0], 4) * 0.1,
                )
                key = f"base_model.model.{name.removesuffix('.weight')}"
                adapter |= {f"{key}.lora_A.weight": low, f"{key}.lora_B.weight": high}
                weight.data += 2.0 * high @ low  # alpha 8 / rank 4
        for weight in projector.parameters():
            weight.data += 0.05
        torch.save(adapter, root / "adapter" / "adapter_model.bin")
        trained = {
            f"base_model.model.model.mm_projector.{n}": v for n, v in projector.state_dict().items()
        }
        torch.save(trained, root / "adapter" / "non_lora_trainables.bin")
        write_json(
            root / "adapter" / "adapter_config.json",
            {
                "base_model_name_or_path": str(root / "llava"),
                "r": 4,
                "lora_alpha": 8,
                "peft_type": "LORA",
                "bias": "none",
                "fan_in_fan_out": False,
            },
        )
    return {"clip": clip, "llama": llama, "projector": projector}
