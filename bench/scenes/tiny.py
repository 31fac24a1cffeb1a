"""llava-tiny's parts: word-level tokenizer, processor with chat template, and an untrained LLaVA of 5 M parameters."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from bench.scenes import facts
from bench.scenes.world import CATEGORIES, CONTEXTS, SIDE

PATCH = 16
GRID = SIDE // PATCH  # patches in a row and in a column
VISION = {"hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 5, "num_attention_heads": 6,
          "image_size": SIDE, "patch_size": PATCH, "projection_dim": 192}  # fmt: skip
TEXT = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 4, "max_position_embeddings": 1024, "tie_word_embeddings": True}  # fmt: skip
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def joined(name: str) -> str:
    """A name of several words as the tokenizer has it: one word."""
    return name.replace(" ", "_")


def tokenizer(texts: list[str]) -> Any:
    """Words of the world and of `texts` as whole tokens, regular plurals as a word and its ending."""
    named = [*CATEGORIES, *(context.name for context in CONTEXTS)]
    words = {joined(name) for name in named}
    words |= {joined(facts.plural(name)) for name in CATEGORIES if not facts.plural(name).startswith(name)}
    several = sorted({name for name in named if " " in name}, key=lambda name: (-len(name), name))
    joining = normalizers.Sequence([normalizers.Replace(name, joined(name)) for name in several])
    splitting = pre_tokenizers.Whitespace()
    pieces = (piece for text in texts for piece, _ in splitting.pre_tokenize_str(joining.normalize_str(text)))
    plurals = {joined(facts.plural(name)) for name in CATEGORIES}
    vocabulary = [*SPECIAL, "##s", "##es", *sorted((words | {*pieces}) - (plurals - words))]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = joining, splitting
    made.decoder = decoders.Sequence([decoders.WordPiece(), decoders.Replace("_", " ")])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", "user_token": "<|user|>", "assistant_token": "<|assistant|>"},
    )  # fmt: skip


def processor(words: Any) -> Any:
    """LLaVA's processor around that tokenizer; pictures of other sizes are resized and cropped as CLIP's are."""
    half = [0.5, 0.5, 0.5]
    square = {"height": SIDE, "width": SIDE}
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square, image_mean=half, image_std=half)
    return hf.LlavaProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )  # fmt: skip


def model(words: Any, seed: int) -> Any:
    """An untrained `LlavaForConditionalGeneration`, the same from the same seed."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**TEXT, **ids, vocab_size=len(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=GRID**2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
        **ids,
    )
    made = hf.LlavaForConditionalGeneration(config)
    made.generation_config = hf.GenerationConfig(**ids)
    return made
