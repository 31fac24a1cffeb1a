"""Tiny, randomly initialised vision-language checkpoints for tests, made without network or torchvision.

``make(kind, folder)`` writes a checkpoint laid out as the real family's is (config, safetensors,
tokenizer, image processor, chat template). Kinds whose processor holds a video part (see ``VIDEO``) cannot
be read by ``AutoProcessor`` where torchvision is missing; ``load_processor`` reads every kind everywhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sentencepiece
import torch
import transformers as hf
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import generate_merges
from transformers.utils import is_torchvision_available

IMAGE, PATCH = 56, 14  # pixels of one vision tower input and of one patch: 4 x 4 patches
GRID = [[56, 112], [112, 56], [112, 112]]  # anyres pinpoints (height, width)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE,
    "patch_size": PATCH,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
VIDEO = {  # model type -> the video processor that the real checkpoint names
    "llava_onevision": "LlavaOnevisionVideoProcessor",
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "smolvlm": "SmolVLMVideoProcessor",
    "internvl": "InternVLVideoProcessor",
}

OBJECTS = (
    "person bicycle car motorcycle airplane bus train truck boat bench bird cat dog horse sheep cow elephant bear "
    "zebra giraffe backpack umbrella handbag tie suitcase frisbee kite skateboard surfboard bottle cup fork knife "
    "spoon bowl banana apple sandwich orange broccoli carrot pizza cake chair couch bed toilet laptop mouse keyboard "
    "microwave oven sink refrigerator book clock vase scissors"
).split()
COLOURS = "red green blue yellow black white brown gray pink purple".split()

# ------------------------------------------------------------------------------------------- chat templates

_IMAGES = "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
_TEXTS = "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
_PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    + _IMAGES
    + "{{ '<image>\n' }}{% endfor %}"
    + _TEXTS
    + "{{ part['text'] + ' '}}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[INST] "
    + _PARTS.replace("IMAGE", "<image>\n")
    + " [/INST]{% endfor %}"
)
PIXTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[INST]"
    + _PARTS.replace("IMAGE", "[IMG]")
    + "[/INST]{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n"
    + _PARTS.replace("IMAGE", "<|image|>")
    + "<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    + _IMAGES
    + "{{ '<image>' }}{% endfor %}"
    + _TEXTS
    + "{{ '\n' + part['text'] }}{% endfor %}{{'<|im_end|>'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    + _PARTS.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDEFICS_TEMPLATE = (
    "BOS{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    + _PARTS.replace("IMAGE", "<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    + _PARTS.replace("IMAGE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    + _PARTS.replace("IMAGE", "<IMG_CONTEXT>\n")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# ----------------------------------------------------------------------------------------------- tokenizers


def corpus() -> list[str]:
    """The training text: benchmark-like questions and answers over object and colour words."""
    lines = ["Yes", "No", "(Yes/No)", "Answer: Yes", "Answer: No"] * len(OBJECTS)
    for index, thing in enumerate(OBJECTS):
        colour = COLOURS[index % len(COLOURS)]
        lines += [
            f"Is there a {thing} in the image? Answer the question using a single word or phrase.",
            f"What color is the {thing}? The {thing} is {colour}.",
            f"Are there two {thing}s? Please answer yes or no.",
            f"USER: Describe this image in detail. ASSISTANT: A {colour} {thing} is standing next to a man.",
        ]
    return lines


def sentencepiece_model(**options: object) -> bytes:
    """A Llama-style SentencePiece BPE model (byte fallback, no normalisation), serialised."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        split_digits=True,
        minloglevel=2,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        **options,
    )
    return model.getvalue()


def vocab_and_merges(model: bytes) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The model's pieces and merges, read without protobuf (which transformers' own converter
    needs)."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    scores = {
        piece: pieces.get_score(i)
        for piece, i in vocab.items()
        if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i))
    }
    return vocab, generate_merges(vocab, scores, skip_tokens=vocab.keys() - scores.keys())


def llama_tokenizer(folder: Path, entries: int = 0) -> hf.PreTrainedTokenizerBase:
    """LLaVA-1.5's tokenizer: Llama's (legacy spacing) and <image>, <pad>; its tokenizer.model goes
    in ``folder``. Entries that no text uses fill it up to ``entries``."""
    model = sentencepiece_model()
    (folder / "tokenizer.model").write_bytes(model)
    vocab, merges = vocab_and_merges(model)
    for number in range(len(vocab), entries - 2):  # <image> and <pad> follow
        vocab[f"▁filler{number}"] = number
    tokenizer = hf.LlamaTokenizer(vocab=vocab, merges=merges, legacy=True)
    tokenizer.init_kwargs["legacy"] = True  # else tokenizer_config.json does not say so
    backend = (
        tokenizer.backend_tokenizer
    )  # as in LLaVA's own tokenizer.json: a space before every piece of text
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = None
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def gemma_tokenizer(**tokens: str) -> hf.PreTrainedTokenizerBase:
    """Gemma's tokenizer: no prefix space, newline is a token; ``tokens`` are named extra special
    tokens."""
    model = sentencepiece_model(
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["<mask>", "\n"],
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
    )
    vocab, merges = vocab_and_merges(model)
    return hf.GemmaTokenizer(vocab=vocab, merges=merges, extra_special_tokens=tokens)


def byte_level_tokenizer(
    specials: Sequence[str], add_bos: bool = False, **named: object
) -> hf.PreTrainedTokenizerFast:
    """A byte-level BPE (Qwen2, Llama 3 and SmolLM2 style) with ``specials``; ``named`` are its
    bos, eos, pad."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(list(specials))
    if add_bos:
        bos = str(named["bos_token"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **named)


# --------------------------------------------------------------------------------- processors without video


def image_only(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """``cls`` without its video processor, whose class cannot be imported without torchvision."""

    def get_attributes(own: type[ProcessorMixin]) -> list[str]:
        return [name for name in super(own, own).get_attributes() if name != "video_processor"]

    body = {
        "__module__": cls.__module__,
        "get_attributes": classmethod(get_attributes),
        "video_processor": SimpleNamespace(
            num_frames=None, fps=None
        ),  # SmolVLM's chat template call reads them
    }
    return type(
        cls.__name__, (cls,), body
    )  # the same name, as it is written to processor_config.json


def load_processor(folder: Path) -> ProcessorMixin:
    """``AutoProcessor.from_pretrained``, but without the video part where torchvision is missing."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if is_torchvision_available() or model_type not in VIDEO:
        return hf.AutoProcessor.from_pretrained(folder)
    config = hf.AutoConfig.from_pretrained(folder)
    cls = image_only(hf.models.auto.processing_auto.PROCESSOR_MAPPING[type(config)])
    parts = [
        hf.AutoImageProcessor.from_pretrained(folder),
        hf.AutoTokenizer.from_pretrained(folder),
    ]
    return cls.from_args_and_dict(parts, cls.get_processor_dict(folder)[0], video_processor=None)


# ---------------------------------------------------------------------------------------------------- models


def ids(tokenizer: hf.PreTrainedTokenizerBase) -> dict[str, object]:
    """The text config fields that follow from the tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def square(size: int = IMAGE) -> dict[str, int]:
    """An image processor's size of a square."""
    return {"height": size, "width": size}


Made = tuple[hf.PreTrainedConfig, ProcessorMixin]


def llava(folder: Path, text_config: Any = hf.LlamaConfig, **more: Any) -> Made:
    """LLaVA-1.5: CLIP tower, Llama or another language model."""
    tokenizer = llama_tokenizer(folder)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=text_config(**TEXT, **ids(tokenizer), **more),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size=square())
    return config, hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def llava_next(
    folder: Path, text_config: Any = hf.LlamaConfig, template: str = LLAVA_TEMPLATE
) -> Made:
    """LLaVA-1.6 (Vicuna): CLIP tower over anyres tiles, Llama."""
    tokenizer = llama_tokenizer(folder)
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=text_config(**TEXT, **ids(tokenizer)),
        image_grid_pinpoints=GRID,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": IMAGE}, crop_size=square(), image_grid_pinpoints=GRID
    )
    return config, hf.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def llava_next_mistral(folder: Path) -> Made:
    """LLaVA-1.6 (Mistral), the alias's own: no sliding window, instructions in brackets."""
    return llava_next(folder, partial(hf.MistralConfig, sliding_window=None), MISTRAL_TEMPLATE)


def pixtral(folder: Path) -> Made:
    """Pixtral: a `llava` by its config, with any image size, row breaks and its own processor."""
    return _pixtral(hf.LlavaConfig, 1, vision_feature_select_strategy="full", image_seq_length=1)


def mistral3(folder: Path) -> Made:
    """Mistral Small 3.1: Pixtral's tower, four patches merged into one token."""
    return _pixtral(hf.Mistral3Config, 2, tie_word_embeddings=False)


def ministral3(folder: Path) -> Made:
    """Ministral 3: Mistral 3 whose language model scales queries by their positions."""
    # The scale changes every 16 tokens here, every 16,384 in the real one.
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    text = partial(hf.Ministral3Config, rope_parameters=rope, max_position_embeddings=256)
    return _pixtral(hf.Mistral3Config, 2, text, tie_word_embeddings=False)


def _pixtral(
    config_type: Any, merge: int, text_config: Any = hf.MistralConfig, **more: Any
) -> Made:
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tokenizer = byte_level_tokenizer(
        [*specials, "<pad>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if merge > 1:
        more["spatial_merge_size"] = merge
    config = config_type(
        vision_config=hf.PixtralVisionConfig(
            **(VISION | {"image_size": 112, "head_dim": 8, "rope_theta": 10000.0})
        ),
        text_config=text_config(**TEXT, **ids(tokenizer), head_dim=16, sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        vision_feature_layer=-1,
        **more,
    )
    images = hf.PixtralImageProcessorPil(
        size={"longest_edge": 112},
        patch_size={"height": PATCH * merge, "width": PATCH * merge},
    )
    processor = hf.PixtralProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        spatial_merge_size=merge,
        chat_template=PIXTRAL_TEMPLATE,
    )
    return config, processor


NEED_TORCHVISION = ("pixtral", "mistral3", "ministral3")  # transformers' Pixtral processor does


def mllama(folder: Path) -> Made:
    """Llama 3.2 Vision: tiles that the language model looks at by cross-attention."""
    specials = ["begin_of_text", "start_header_id", "end_header_id", "eot_id", "python_tag"]
    tokenizer = byte_level_tokenizer(
        [*(f"<|{name}|>" for name in specials), "<|image|>", "<|finetune_right_pad_id|>"],
        add_bos=True,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
    )
    vision = {name: value for name, value in VISION.items() if name != "num_attention_heads"}
    text = ids(tokenizer)
    # Its table of embeddings has a row for the image, its head has none, as the real one's.
    config = hf.MllamaConfig(
        vision_config=hf.MllamaVisionConfig(
            **vision,
            attention_heads=4,
            num_global_layers=1,
            intermediate_layers_indices=[0, 1],
            vision_output_dim=32 * 3,
            max_num_tiles=4,
        ),
        text_config=hf.MllamaTextConfig(**TEXT, **text, cross_attention_layers=[1]),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    images = hf.MllamaImageProcessorPil(size=square(), max_image_tiles=4)
    return config, hf.MllamaProcessor(images, tokenizer, chat_template=LLAMA3_TEMPLATE)


def llava_onevision(folder: Path) -> Made:
    """LLaVA-OneVision: SigLIP tower over anyres tiles, Qwen2."""
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Qwen2Config(**TEXT, **ids(tokenizer)),
        image_grid_pinpoints=[[IMAGE, IMAGE], *GRID],
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    images = hf.LlavaOnevisionImageProcessorPil(
        size=square(), image_grid_pinpoints=[[IMAGE, IMAGE], *GRID]
    )
    return config, image_only(hf.LlavaOnevisionProcessor)(
        images,
        tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION_TEMPLATE,
    )


def qwen(name: str, vision: dict[str, object], **text: object) -> Made:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL: any image size in 28-pixel steps, M-RoPE."""
    specials = [
        "endoftext",
        "im_start",
        "im_end",
        "vision_start",
        "vision_end",
        "image_pad",
        "video_pad",
    ]
    tokenizer = byte_level_tokenizer(
        [f"<|{special}|>" for special in specials],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokens = {
        f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{special}|>")
        for key, special in zip(
            ["vision_start", "vision_end", "image", "video"], specials[3:], strict=True
        )
    }
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 3, 3],
    }  # of head size 16 / 2
    config = getattr(hf, f"{name}Config")(
        vision_config=dict(depth=2, num_heads=4, patch_size=PATCH, **vision),
        text_config=dict(TEXT, rope_parameters=rope, **ids(tokenizer), **text),
        **tokens,
    )
    images = hf.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}, patch_size=PATCH
    )
    processor = image_only(getattr(hf, f"{name}Processor"))
    return config, processor(images, tokenizer, chat_template=QWEN_TEMPLATE)


def qwen2_vl(folder: Path) -> Made:
    """Qwen2-VL."""
    return qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2})


def qwen2_5_vl(folder: Path) -> Made:
    """Qwen2.5-VL: window attention in the first vision block."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": TEXT["hidden_size"]}
    return qwen("Qwen2_5_VL", dict(vision, window_size=IMAGE, fullatt_block_indexes=[1]))


def qwen3_vl(folder: Path) -> Made:
    """Qwen3-VL: features of several vision blocks go into several layers of the language model."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": TEXT["hidden_size"],
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    return qwen("Qwen3VL", vision, head_dim=16)


def idefics(name: str, bos: str, pad: str, images: type, add_bos: bool = False) -> Made:
    """Idefics3 or SmolVLM: tiles and a global view, 4 tokens each by pixel shuffle, Llama."""
    rows_cols = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    named = ["<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer = byte_level_tokenizer(
        [bos, pad, *rows_cols, *named],
        add_bos,
        bos_token=bos,
        pad_token=pad,
        eos_token="<end_of_utterance>",
    )
    config = getattr(hf, f"{name}Config")(
        vision_config=VISION,
        scale_factor=2,
        text_config=hf.LlamaConfig(**TEXT, **ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = getattr(hf, f"{name}Processor")
    return config, (processor if name == "Idefics3" else image_only(processor))(
        images(size={"longest_edge": 2 * IMAGE}, max_image_size={"longest_edge": IMAGE}),
        tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE.replace("BOS", bos),
        **({} if name == "Idefics3" else {"video_processor": None}),
    )


def idefics3(folder: Path) -> Made:
    """Idefics3; its tokenizer adds a second <|begin_of_text|> before the template's, as the real
    one does."""
    return idefics(
        "Idefics3",
        "<|begin_of_text|>",
        "<|finetune_right_pad_id|>",
        hf.Idefics3ImageProcessorPil,
        True,
    )


def smolvlm(folder: Path) -> Made:
    """SmolVLM2."""
    return idefics("SmolVLM", "<|im_start|>", "<|im_end|>", hf.SmolVLMImageProcessorPil)


def paligemma(folder: Path) -> Made:
    """PaliGemma: SigLIP tower, Gemma with a bidirectional prefix. No chat template."""
    return _paligemma(hf.GemmaConfig)


def paligemma2(folder: Path) -> Made:
    """PaliGemma 2, the alias's own: its Gemma 2 knows no sdpa."""
    return _paligemma(hf.Gemma2Config, query_pre_attn_scalar=16, sliding_window=4096)


def _paligemma(text_config: Any, **more: Any) -> Made:
    tokenizer = gemma_tokenizer()
    images = hf.SiglipImageProcessorPil(size=square(), image_seq_length=16)
    processor = hf.PaliGemmaProcessor(
        images, tokenizer
    )  # adds <image> and 1152 <loc>, <seg> tokens
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=text_config(**TEXT, head_dim=16, **ids(tokenizer), **more),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vocab_size=len(tokenizer),
        projection_dim=TEXT["hidden_size"],
        hidden_size=TEXT["hidden_size"],
        **{key: value for key, value in ids(tokenizer).items() if key != "vocab_size"},
    )
    return config, processor


def gemma3(folder: Path) -> Made:
    """Gemma 3: SigLIP tower pooled to 4 tokens that see each other, sliding window layers."""
    tokenizer = gemma_tokenizer(
        boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
    )
    tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>"], special_tokens=True)
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            **TEXT,
            **ids(tokenizer),
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=24,
            layer_types=["sliding_attention"] * (TEXT["num_hidden_layers"] - 1)
            + ["full_attention"],
        ),
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    images = hf.Gemma3ImageProcessorPil(size=square(), image_seq_length=4)
    return config, hf.Gemma3Processor(
        images, tokenizer, image_seq_length=4, chat_template=GEMMA_TEMPLATE
    )


def internvl3_5(folder: Path) -> Made:
    """InternVL3.5 (-hf): InternVL with Qwen3."""
    return internvl(folder, partial(hf.Qwen3Config, head_dim=16))


def internvl(folder: Path, text_config: Any = hf.Qwen2Config) -> Made:
    """InternVL3 (-hf): InternViT tiles, 4 tokens each by pixel shuffle, Qwen2."""
    extra = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra.values()],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=extra,
    )
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**VISION, layer_scale_init_value=1.0),
        text_config=text_config(**TEXT, tie_word_embeddings=False, **ids(tokenizer)),
        tie_word_embeddings=False,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    images = hf.GotOcr2ImageProcessorPil(size=square(), crop_to_patches=True, max_patches=4)
    return config, image_only(hf.InternVLProcessor)(
        images, tokenizer, image_seq_length=4, chat_template=INTERNVL_TEMPLATE
    )


MAKERS: dict[str, Callable[[Path], Made]] = {
    maker.__name__: maker
    for maker in (
        llava,
        llava_next,
        llava_next_mistral,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        idefics3,
        smolvlm,
        paligemma,
        paligemma2,
        gemma3,
        pixtral,
        mistral3,
        ministral3,
        mllama,
        internvl,
        internvl3_5,
    )
}


@torch.no_grad()
def randomise(model: hf.PreTrainedModel, seed: int, eos_gain: float = 2.0) -> None:
    """Weights that make answers depend on every input token, which transformers' own (0.02) do not.

    The output rows of the eos tokens are ``eos_gain`` times longer than the others, so that some answers stop early.
    """
    generator = torch.Generator().manual_seed(seed)
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            weight.fill_(1.0)  # Gemma 3 adds 1: attention sharper than a plain mean
        if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):
            weight.fill_(1.0)  # Mllama's are shut at first: the image would decide nothing
        if weight.ndim < 2:
            continue  # other norms and biases stay as transformers sets them
        if "embed_tokens" in name:  # short, or a token would predict itself
            std = 0.02 if tied else 0.3
        else:
            std = (1.5 if "q_proj" in name or "k_proj" in name else 3.0) / weight[0].numel() ** 0.5
        weight.normal_(0.0, std, generator=generator)
    eos = model.generation_config.eos_token_id
    for token in eos if isinstance(eos, list) else [eos]:
        head[token] *= eos_gain


def make(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write the tiny checkpoint of ``kind`` (a key of ``MAKERS``) into ``folder``, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(*MAKERS[kind](folder), folder, seed)
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    if model_type in VIDEO:  # so that the folder also loads where torchvision is installed
        path = folder / "processor_config.json"
        data = json.loads(path.read_text())
        data["video_processor"] = {"video_processor_type": VIDEO[model_type]}
        path.write_text(json.dumps(data, indent=2) + "\n")
    return folder


def save(config: Any, processor: Any, folder: Path, seed: int = 0) -> Path:
    """Writes a checkpoint of random weights."""
    torch.manual_seed(seed)
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    text = config.get_text_config()
    eos = getattr(config, "eos_token_id", None) or text.eos_token_id
    model.generation_config = hf.GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=eos, pad_token_id=text.pad_token_id
    )
    randomise(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
