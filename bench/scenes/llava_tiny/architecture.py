"""llava-tiny's parts: tokenizer, processor with chat template, and an untrained LLaVA.

The tokenizer is of whole words; the model has 4.9 million parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from bench.language.english import plural
from bench.scenes.world import CATEGORIES, CONTEXTS, SIDE

PATCH = 16
GRID = SIDE // PATCH  # patches in a row and in a column
VISION = {
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": 192,
}
TEXT = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<|user|>", "<|assistant|>")
PLURAL_ENDINGS = ("##s", "##es")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def joined(name: str) -> str:
    """A name of several words as the tokenizer has it: one word."""
    return name.replace(" ", "_")


def tokenizer(texts: Sequence[str]) -> Any:
    """Words of the world and of `texts` as whole tokens.

    Regular plurals are a word and its ending, so that a model learns the word once.
    """
    names = [*CATEGORIES, *(context.name for context in CONTEXTS)]
    plurals = {name: plural(name) for name in CATEGORIES}
    words = {joined(name) for name in names}
    # "people" and "knives" are words of their own; "dogs" is "dog" and an ending.
    for name, several in plurals.items():
        if not several.startswith(name):
            words.add(joined(several))
    # Longer names first, or "dining room" would be found in the middle of a longer one.
    of_several_words = {name for name in names if " " in name}
    longest_first = sorted(of_several_words, key=lambda name: (-len(name), name))
    joining = normalizers.Sequence(
        [normalizers.Replace(name, joined(name)) for name in longest_first]
    )
    splitting = pre_tokenizers.Whitespace()
    pieces = set()
    for text in texts:
        for piece, _ in splitting.pre_tokenize_str(joining.normalize_str(text)):
            pieces.add(piece)
    regular_plurals = {joined(several) for several in plurals.values()} - words
    vocabulary = [*SPECIAL, *PLURAL_ENDINGS, *sorted((words | pieces) - regular_plurals)]
    ids = {word: index for index, word in enumerate(vocabulary)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = joining, splitting
    backend.decoder = decoders.Sequence([decoders.WordPiece(), decoders.Replace("_", " ")])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image>",
            "user_token": "<|user|>",
            "assistant_token": "<|assistant|>",
        },
    )


def processor(words: Any) -> Any:
    """LLaVA's processor around that tokenizer.

    Images of other sizes are resized and cropped as CLIP's are.
    """
    half = [0.5, 0.5, 0.5]
    images = hf.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=half,
        image_std=half,
    )
    return hf.LlavaProcessor(
        images,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def model(words: Any, seed: int) -> Any:
    """An untrained `LlavaForConditionalGeneration`, the same from the same seed."""
    torch.manual_seed(seed)
    ids = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**TEXT, **ids, vocab_size=len(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=GRID**2,
        vision_feature_layer=-1,  # five layers are too few to leave one out, as LLaVA does
        tie_word_embeddings=True,
        **ids,
    )
    network = hf.LlavaForConditionalGeneration(config)
    network.generation_config = hf.GenerationConfig(**ids)
    return network
