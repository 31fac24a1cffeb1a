"""A CLIP for the built-in world: how well a sentence fits a picture, CLIP-DPO's kind of reward.

    python -m bench.scenes.image_text OUT

Its image encoder begins as llava-tiny's and its text encoder as nothing. Both are trained to find,
among a batch of pictures and of truthful sentences about them, which belong together (Radford et
al. 2021, arXiv 2103.00020). `rewards: {kind: clip, model: OUT}` takes it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from bench.language.english import article
from bench.scenes import facts
from bench.scenes.fitting import fit, make_new
from bench.scenes.llava_tiny.lessons import TRUTHFUL, lessons
from bench.scenes.render import render
from bench.scenes.world import Scene, scenes
from bench.terminal import note

LLAVA_TINY = Path(__file__).parent / "llava-tiny"
STEPS, BATCH, RATE = 3000, 64, 5e-4
PICTURES = 8000  # that are drawn once, and told of in other sentences each time
CHECKED = 1000  # scenes of the validation split
FIRST_SCENE = 3_000_000  # behind those of other models' lessons and of recipes
LONGEST = 48  # tokens of a sentence
FEATURES = 128
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST,
}
END = "<end>"  # CLIP reads a sentence where it ends


def train(
    out: Path,
    seed: int = 0,
    steps: int = STEPS,
    pictures: int = PICTURES,
    checked: int = CHECKED,
) -> float:
    """Trains a CLIP into a new folder; returns its accuracy on `checked` other scenes.

    Raises DataError if the folder is not empty.
    """
    make_new(out)
    torch.manual_seed(seed)
    rng = random.Random(f"image text {seed}")
    model, processor = _new()
    drawn = list(scenes("train", 0, pictures, FIRST_SCENE))
    pixels = _pixels(processor, drawn)  # (pictures, 3, side, side)

    def loss_of_batch() -> torch.Tensor:
        chosen = rng.sample(range(len(drawn)), min(BATCH, len(drawn)))
        texts = _tokens(processor, [_sentence(drawn[index], rng) for index in chosen])
        logits = model(pixel_values=pixels[chosen], **texts).logits_per_image
        partner = torch.arange(len(chosen))  # a picture's sentence has its number
        by_picture = functional.cross_entropy(logits, partner)
        by_sentence = functional.cross_entropy(logits.T, partner)
        return by_picture + by_sentence

    fit(model, loss_of_batch, steps, RATE, "image text")
    model.eval().save_pretrained(out)
    processor.save_pretrained(out)
    measured = accuracy(model, processor, checked)
    (out / "accuracy.json").write_text(json.dumps(measured) + "\n", encoding="utf-8")
    return measured


@torch.no_grad()
def accuracy(model: Any, processor: Any, pictures: int) -> float:
    """How often a sentence about what is there fits better than one about what is not.

    Both objects are usual in the picture's place. On the validation split.
    """
    rng = random.Random("accuracy")
    right = []
    for item in scenes("validation", 0, pictures):
        absent = facts.expected(item)
        if not absent:
            continue
        there = rng.choice(sorted(item.counts))
        sentences = [f"There is {article(name)}." for name in (there, rng.choice(absent))]
        texts = _tokens(processor, sentences)
        true, false = model(pixel_values=_pixels(processor, [item]), **texts).logits_per_image[0]
        right.append(bool(true > false))
    return sum(right) / len(right)


def _new() -> tuple[Any, Any]:
    """The model before its training, and what reads pictures and sentences for it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        AutoModelForImageTextToText,
        AutoTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(LLAVA_TINY, model_max_length=LONGEST)
    tokenizer.add_special_tokens({"eos_token": END})
    end = tokenizer.convert_tokens_to_ids(END)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, end)]
    )
    llava = AutoModelForImageTextToText.from_pretrained(LLAVA_TINY, dtype=torch.float32)
    ids = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    config = CLIPConfig(
        vision_config=llava.config.vision_config.to_dict(),
        text_config={**TEXT, **ids, "vocab_size": len(tokenizer)},
        projection_dim=FEATURES,
    )
    model = CLIPModel(config)
    model.vision_model.load_state_dict(llava.model.vision_tower.state_dict())
    return model, CLIPProcessor(CLIPImageProcessor.from_pretrained(LLAVA_TINY), tokenizer)


def _pixels(processor: Any, drawn: Sequence[Scene]) -> torch.Tensor:
    pictures = [render(item) for item in drawn]
    pixels: torch.Tensor = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return pixels


def _tokens(processor: Any, sentences: Sequence[str]) -> Any:
    return processor.tokenizer(list(sentences), return_tensors="pt", padding=True, truncation=True)


def _sentence(item: Scene, rng: random.Random) -> str:
    """A truthful answer of more than a word, or that one object is there."""
    if rng.random() < 0.5:
        return f"There is {article(rng.choice(sorted(item.counts)))}."
    answers = [answer for _, answer in lessons(item, rng, TRUTHFUL) if " " in answer]
    return rng.choice(answers)


def main() -> None:
    """Trains one and tells what it has learned."""
    parser = argparse.ArgumentParser(description="Train the built-in world's CLIP.")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    share = train(arguments.out, arguments.seed)
    note(f"what is there fits better than what is usual and absent in {share:.1%} of pictures")


if __name__ == "__main__":
    main()
