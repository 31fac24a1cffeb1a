"""Tiny, randomly initialised stand-ins for what the 7B recipe loads beside LLaVA: SD3, a CLIP, a
reward model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers as hf

from tests.tiny_models import byte_level_tokenizer

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
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
