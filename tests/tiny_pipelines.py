"""Tiny, randomly initialised stand-ins for what the 7B recipe loads beside LLaVA: SD3, a CLIP, a
reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf
import yaml
from safetensors.torch import save_file

from alignment.rows import ImageRow, ResponseRow
from tests.conftest import ROOT
from tests.tiny_models import byte_level_tokenizer

RECIPES = ROOT / "alignment" / "recipes"

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def recipe_in(folder: Path, name: str, **changes: Any) -> Path:
    """A shipped recipe with parts changed, as a file in `folder`."""
    content = yaml.safe_load((RECIPES / name).read_text())
    for part, change in changes.items():
        content[part] = (
            change if not isinstance(change, dict) or "kind" in change else content[part] | change
        )
    file = folder / name
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def image_row(name: str, file: str) -> ImageRow:
    """A line of images.jsonl."""
    return {"id": name, "prompt": "", "instructions": [], "file": file, "candidates": []}


def response_row(key: str, instruction: str, text: str, finish: str = "stop") -> ResponseRow:
    """A line of responses.jsonl, about the image "0"."""
    return {
        "key": key,
        "image": "0",
        "instruction": instruction,
        "model": "m",
        "text": text,
        "tokens": 3,
        "finish": finish,
    }


def clip_tokenizer(folder: Path) -> hf.CLIPTokenizer:
    """CLIP's tokenizer over single characters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(
        json.dumps({word: index for index, word in enumerate(words)})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return hf.CLIPTokenizer.from_pretrained(folder, model_max_length=32)


def text_config(size: int) -> hf.CLIPTextConfig:
    """A tiny CLIP text encoder's config for a vocabulary of `size`."""
    return hf.CLIPTextConfig(
        **TEXT,
        vocab_size=size,
        projection_dim=32,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
    )


def clip_model(folder: Path) -> Path:
    """A CLIP with its processor."""
    torch.manual_seed(0)
    words = clip_tokenizer(folder)
    vision = hf.CLIPVisionConfig(**TEXT, image_size=32, patch_size=8, projection_dim=32)
    config = hf.CLIPConfig(
        text_config=text_config(len(words)).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=32,
    )
    hf.CLIPModel(config).save_pretrained(folder)
    images = hf.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    hf.CLIPProcessor(images, words).save_pretrained(folder)
    return folder


def reward_model(folder: Path) -> Path:
    """A Llama with one output, and a tokenizer with a chat template."""
    torch.manual_seed(0)
    words = byte_level_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    words.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    )
    config = hf.LlamaConfig(**TEXT, vocab_size=len(words), num_labels=1)
    hf.LlamaForSequenceClassification(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def armorm(folder: Path) -> Path:
    """ArmoRM's published layout: its class, its tensors, Llama 3's turns."""
    torch.manual_seed(0)
    turns = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    words = byte_level_tokenizer(
        [*turns, "[PAD]"],
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="[PAD]",
    )
    words.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}"
        "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    )
    config = hf.LlamaConfig(
        **TEXT,
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        num_labels=1,
        num_objectives=19,
        gating_temperature=10,
        gating_hidden_dim=24,
        gating_n_hidden=3,
    )
    config.architectures = ["LlamaForRewardModelWithGating"]
    config.auto_map = {
        "AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"
    }
    tensors = {}
    for name, tensor in hf.LlamaModel(config).state_dict().items():
        tensors[f"model.{name}"] = tensor
    tensors["regression_layer.weight"] = torch.randn(19, 32)
    tensors["reward_transform_matrix"] = torch.eye(19) - 0.1 * torch.rand(19, 19)
    tensors["gating.logit_scale"] = torch.tensor([1.3])
    for number, (inputs, outputs) in enumerate([(32, 24), (24, 24), (24, 24), (24, 19)]):
        tensors[f"gating.layers.{number}.weight"] = 5 * torch.randn(outputs, inputs) / inputs**0.5
        tensors[f"gating.layers.{number}.bias"] = torch.randn(outputs)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    words.save_pretrained(folder)
    # Its own code must not be needed, and must not run.
    (folder / "modeling_custom.py").write_text("raise RuntimeError('remote code ran')\n")
    return folder


IMAGE_REWARD_SIZES = {"width": 128, "layers": 2, "patch": 16, "side": 32, "text": 32}


def image_reward(folder: Path) -> Path:
    """ImageReward's published files, smaller, and a BERT tokenizer."""
    torch.manual_seed(0)
    sizes = IMAGE_REWARD_SIZES
    width, text = sizes["width"], sizes["text"]
    tensors: dict[str, torch.Tensor] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        tensors[f"{name}.bias"] = torch.randn(outputs) / 10

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = 1 + torch.randn(size) / 10
        tensors[f"{name}.bias"] = torch.randn(size) / 10

    eye = "blip.visual_encoder"
    tensors[f"{eye}.cls_token"] = torch.randn(1, 1, width)
    tensors[f"{eye}.pos_embed"] = torch.randn(1, 1 + (sizes["side"] // sizes["patch"]) ** 2, width)
    patch = sizes["patch"]
    tensors[f"{eye}.patch_embed.proj.weight"] = torch.randn(width, 3, patch, patch) / patch
    tensors[f"{eye}.patch_embed.proj.bias"] = torch.randn(width)
    for layer in range(sizes["layers"]):
        block = f"{eye}.blocks.{layer}"
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", 4 * width, width)
        linear(f"{block}.mlp.fc2", width, 4 * width)
    norm(f"{eye}.norm", width)

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    reader = "blip.text_encoder"
    tensors[f"{reader}.embeddings.position_ids"] = torch.arange(64)[None]
    tensors[f"{reader}.embeddings.word_embeddings.weight"] = torch.randn(len(pieces) + 2, text)
    tensors[f"{reader}.embeddings.position_embeddings.weight"] = torch.randn(64, text)
    norm(f"{reader}.embeddings.LayerNorm", text)
    for layer in range(sizes["layers"]):
        block = f"{reader}.encoder.layer.{layer}"
        for attention, source in (("attention", text), ("crossattention", width)):
            linear(f"{block}.{attention}.self.query", text, text)
            linear(f"{block}.{attention}.self.key", text, source)
            linear(f"{block}.{attention}.self.value", text, source)
            linear(f"{block}.{attention}.output.dense", text, text)
            norm(f"{block}.{attention}.output.LayerNorm", text)
        linear(f"{block}.intermediate.dense", 2 * text, text)
        linear(f"{block}.output.dense", text, 2 * text)
        norm(f"{block}.output.LayerNorm", text)
    linear("blip.vision_proj", 16, width)
    linear("blip.text_proj", 16, text)
    # Dropout layers have the numbers between.
    linear("mlp.layers.0", 24, text)
    linear("mlp.layers.2", 16, 24)
    linear("mlp.layers.4", 8, 16)
    linear("mlp.layers.6", 4, 8)
    linear("mlp.layers.7", 1, 4)

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "ImageReward.pt")
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "hidden_size": text,
        "intermediate_size": 2 * text,
        "num_attention_heads": 4,
        "num_hidden_layers": sizes["layers"],
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "vocab_size": len(pieces) + 2,  # [DEC] and [ENC]
        "encoder_width": 768,
        "add_cross_attention": True,
    }
    (folder / "med_config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    hf.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def sd3_pipeline(folder: Path) -> Path:
    """A Stable Diffusion 3 pipeline with its three text encoders."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(0)
    words = clip_tokenizer(folder / "words")
    encoders = [hf.CLIPTextModelWithProjection(text_config(len(words))) for _ in range(2)]
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    pieces = hf.T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0
    )
    t5 = hf.T5Config(vocab_size=len(pieces), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    vae = AutoencoderKL(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=words,
        text_encoder_2=encoders[1],
        tokenizer_2=words,
        text_encoder_3=hf.T5EncoderModel(t5),
        tokenizer_3=pieces,
    )
    pipe.save_pretrained(folder)
    return folder
