"""Times our DPO training against trl's DPOTrainer on the same pairs, LoRA and batches; checks that the losses are equal.

    python tests/speed/dpo.py [--size 120m|7b] [--pairs 8] [--batch 2] [--epochs 2] [--rounds 1] [--checkpointing]

A LLaVA-shaped model with random weights, 576 image tokens and 32,064 entries in the vocabulary; prompts of about 60
tokens, responses of about 150. Each way has a process of its own, in turns, so that each has its own peak of memory.
Both include what they need of the reference: ours computes its log-probabilities once, trl in every step.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from alignment.training.settings import Lora, Training  # noqa: E402
from alignment.training.trainer import make_trainer, use_reference  # noqa: E402
from bench.data.images import read_image  # noqa: E402
from bench.models.hf import HFModel  # noqa: E402
from tests.speed.engine import make_model  # noqa: E402
from tests.tiny_models import COLOURS, OBJECTS  # noqa: E402

PROMPT_TOKENS, RESPONSE_TOKENS = 60, 150
# LLaVA-1.5's form, with the start and the end that its published template lacks.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token }}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)


def text_of(tokens: int, tokenizer: Any, rng: random.Random) -> str:
    """Random words of about so many tokens."""
    words: list[str] = []
    while len(tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]) < tokens:
        words.append(rng.choice(COLOURS + OBJECTS))
    return " ".join(words)


def make_pairs(folder: Path, count: int, model: HFModel) -> list[dict[str, str]]:
    """Random pictures and words: what they say changes no time."""
    rng = random.Random(0)
    noise = np.random.default_rng(0)
    tokenizer = model.processor.tokenizer
    rows = []
    for number in range(count):
        image = folder / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(image)
        row = {"image": str(image), "instruction": text_of(PROMPT_TOKENS - 12, tokenizer, rng)}
        for side in ("chosen", "rejected"):
            # Lengths differ as they do in life.
            row[side] = text_of(RESPONSE_TOKENS + rng.randint(-30, 30), tokenizer, rng)
        rows.append(row)
    return rows


def as_trl_trains(trainer: Any, model: HFModel, pairs: list[dict[str, str]]) -> None:
    """Gives the trainer trl's own collator; the reference is computed in every step."""
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    def said(role: str, column: str) -> list[list[dict[str, str]]]:
        return [[{"role": role, "content": row[column]}] for row in pairs]

    collate = DataCollatorForVisionPreference(model.processor)

    def with_images(rows: list[dict[str, Any]]) -> Any:
        read = []
        for row in rows:
            read.append(row | {"images": [read_image(Path(name)) for name in row["images"]]})
        return collate(read)

    trainer.train_dataset = Dataset.from_dict(
        {
            "images": [[row["image"]] for row in pairs],
            "prompt": said("user", "instruction"),
            "chosen": said("assistant", "chosen"),
            "rejected": said("assistant", "rejected"),
        }
    )
    trainer.data_collator = with_images


def train(way: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds, losses and peak of memory of one way, in this process."""
    settings = Training(
        model=str(folder),
        batch=asked.batch,
        epochs=asked.epochs,
        learning_rate=2e-4,
        gradient_checkpointing=asked.checkpointing,
        lora=Lora(rank=128, alpha=256),
    )
    model = HFModel(str(folder), {"protocol": "native"})
    pairs = make_pairs(folder, asked.pairs, model)
    if way == "trl":
        # Before the trainer is made: its network then stays as transformers has it.
        type(model).not_packed_in_training = "trl trains as it does by itself"  # type: ignore[assignment]
    out = folder / way
    trainer = make_trainer(model, pairs, settings, out, 0)
    if way == "trl":
        as_trl_trains(trainer, model, pairs)
    started = time.perf_counter()
    if way == "ours":
        use_reference(trainer, pairs, out)
    trainer.train()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"seconds": seconds, "peak": peak, "losses": losses}


def main() -> None:
    """Prints seconds a step and peaks of memory, their ratios, and the largest difference of losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="120m")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--way", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(train(asked.way, asked.folder, asked)))
        return
    with tempfile.TemporaryDirectory() as name:
        on_gpu = torch.cuda.is_available()
        folder = make_model(Path(name), asked.size, torch.bfloat16 if on_gpu else torch.float32)
        (folder / "chat_template.jinja").write_text(TEMPLATE)
        speeds, memories = [], []
        for _ in range(asked.rounds):
            results = {}
            for way in ("ours", "trl"):
                command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:]]
                command += ["--way", way, "--folder", str(folder)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                results[way] = result
                step = result["seconds"] / len(result["losses"])
                print(f"{way:5} {step:7.3f} s a step, {result['peak'] / 1e9:.2f} GB at most")
            ours, trl = results["ours"], results["trl"]
            speeds.append(trl["seconds"] / ours["seconds"])
            memories.append(ours["peak"] / trl["peak"])
            difference = np.abs(np.array(ours["losses"]) - np.array(trl["losses"])).max()
            print(
                f"trl takes {speeds[-1]:.2f} × the time; ours {100 * memories[-1]:.0f} % of the "
                f"memory; largest difference of losses {difference:.1e} of {ours['losses'][0]:.3f}"
            )
        print(f"medians: {np.median(speeds):.2f} ×, {100 * np.median(memories):.0f} %")


if __name__ == "__main__":
    main()
