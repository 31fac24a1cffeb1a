"""A reward model for the built-in world that reads and never sees: ArmoRM's role in the paper.

    python -m bench.scenes.text_reward OUT

A small Llama with one output, trained on preferences between two responses (Bradley and Terry 1952;
Ouyang et al. 2022, arXiv 2203.02155). The preferred one is an annotator's, habits included; the
other one is the same response made worse in a way that a reader notices without the image:

- `fluency`: its words in another order, or a part of them twice,
- `completeness`: it stops early, or leaves out objects,
- `plausibility`: an object stands in it that its kind of place never has.

So it knows how people describe, how much they say, and what goes together, and nothing of what an
image shows. `rewards: {kind: classifier, model: OUT}` takes it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from bench.language.english import article
from bench.scenes import facts
from bench.scenes.fitting import fit, make_new
from bench.scenes.llava_tiny.lessons import Habits, lessons
from bench.scenes.world import CATEGORIES, Scene, scene
from bench.terminal import note

TOKENIZER = Path(__file__).parent / "llava-tiny"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# As often as those of llava-tiny's last stage mention what is not there.
HABITS = Habits(mention=0.3, affirm=0.3, remark=0.5)
STEPS, BATCH, RATE = 2400, 64, 1e-3
FIRST_SCENE = 2_000_000  # behind those of llava-tiny's lessons and of recipes
FLAWS = ("fluency", "completeness", "plausibility")
SIZE = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}


class Preference(NamedTuple):
    """Two responses to an instruction, and in what the second one is worse."""

    instruction: str
    chosen: str
    rejected: str
    flaw: str


def preferences(split: str, first: int, rng: random.Random) -> Iterator[Preference]:
    """Preferences about scene after scene, without an end.

    Args:
        split: The scenes' split.
        first: The number of the first scene.
        rng: Draws lessons and flaws.
    """
    index = first
    while True:
        item = scene(split, 0, index)
        index += 1
        for instruction, response in lessons(item, rng, HABITS):
            flaw = rng.choice(FLAWS)
            rejected = _worse(response, flaw, item, rng)
            if rejected is not None and rejected != response:
                yield Preference(instruction, response, rejected, flaw)


def _worse(response: str, flaw: str, item: Scene, rng: random.Random) -> str | None:
    """The response with a flaw, None if it is too short for it."""
    words = response.split()
    if len(words) < 4:
        return None
    if flaw == "fluency":
        if rng.random() < 0.5:
            start = rng.randrange(len(words) - 2)
            return " ".join([*words[: start + 2], *words[start : start + 2], *words[start + 2 :]])
        middle = words[1:-1]
        rng.shuffle(middle)
        return " ".join([words[0], *middle, words[-1]])
    if flaw == "completeness":
        if ", " in response:
            parts = response.split(", ")
            del parts[rng.randrange(1, len(parts))]
            return ", ".join(parts)
        return " ".join(words[: rng.randrange(2, len(words) - 1)])
    # Without the place nothing in the text says what does not belong there.
    before, place_name, after = response.partition(facts.place(item.context))
    if not place_name:
        return None
    named = []
    for name, count in item.counts.items():
        if count == 1 and _as_word(article(name)).search(before):
            named.append(name)
    if not named:
        return None
    at_home = {*item.context.usual, *item.counts}
    foreign = [name for name in CATEGORIES if name not in at_home]
    old, new = rng.choice(named), rng.choice(foreign)
    return _as_word(article(old)).sub(article(new), before, count=1) + place_name + after


def _as_word(name: str) -> re.Pattern[str]:
    """Finds an object's name, and not the bed of a bedroom."""
    return re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)


def train(out: Path, seed: int = 0, steps: int = STEPS) -> dict[str, float]:
    """Trains a reward model into a new folder; returns its accuracy by flaw on other scenes.

    Raises DataError if the folder is not empty.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    make_new(out)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(seed)
    config = LlamaConfig(
        **SIZE,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    model = LlamaForSequenceClassification(config)
    source = preferences("train", FIRST_SCENE, random.Random(f"text reward {seed}"))

    def loss_of_batch() -> torch.Tensor:
        better, worse = _scores(model, tokenizer, [next(source) for _ in range(BATCH)])
        return -functional.logsigmoid(better - worse).mean()

    fit(model, loss_of_batch, steps, RATE, "text reward")
    model.eval().save_pretrained(out)
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER / name, out / name)
    measured = accuracy(model, tokenizer)
    (out / "accuracy.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return measured


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, pairs: int = 1200) -> dict[str, float]:
    """How often the better response has the higher score, by flaw, on the validation split."""
    source = preferences("validation", 1, random.Random("accuracy"))
    right: dict[str, list[bool]] = {flaw: [] for flaw in FLAWS}
    for _ in range(0, pairs, BATCH):
        batch = [next(source) for _ in range(BATCH)]
        better, worse = _scores(model, tokenizer, batch)
        for preference, is_right in zip(batch, (better > worse).tolist(), strict=True):
            right[preference.flaw].append(is_right)
    return {flaw: sum(values) / len(values) for flaw, values in right.items()}


def _scores(
    model: Any, tokenizer: Any, batch: Sequence[Preference]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the better and of the worse responses, each of shape (batch,)."""
    conversations = []
    for response in ("chosen", "rejected"):
        for preference in batch:
            messages = [
                {"role": "user", "content": preference.instruction},
                {"role": "assistant", "content": getattr(preference, response)},
            ]
            conversations.append(
                tokenizer.apply_chat_template(messages, return_dict=False, tokenize=True)
            )
    inputs = tokenizer.pad({"input_ids": conversations}, return_tensors="pt", padding_side="right")
    scores = model(**inputs).logits[:, 0]
    return scores[: len(batch)], scores[len(batch) :]


def main() -> None:
    """Trains one and tells what it has learned."""
    parser = argparse.ArgumentParser(description="Train the built-in world's text reward.")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for flaw, share in train(arguments.out, arguments.seed).items():
        note(f"{flaw}: right in {share:.1%} of pairs")


if __name__ == "__main__":
    main()
