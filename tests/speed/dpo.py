"""Times our DPO step against trl's defaults on the same pairs, LoRA and batches, in one process; checks the losses.

    python tests/speed/dpo.py [--pairs 64] [--epochs 2] [--model llava-tiny]

Ours includes the pass that computes the reference's log-probabilities. Memory is the largest resident set so far, so
trl's way runs second.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from alignment.training.settings import Lora, Training  # noqa: E402
from alignment.training.trainer import (  # noqa: E402
    encode_images_once,
    make_trainer,
    use_reference,
)
from bench.data.images import read_image  # noqa: E402
from bench.language.english import article  # noqa: E402
from bench.models.hf import HFModel  # noqa: E402
from bench.scenes import facts  # noqa: E402
from bench.scenes.render import render  # noqa: E402
from bench.scenes.world import scenes  # noqa: E402


def made_pairs(folder: Path, count: int) -> list[dict[str, str]]:
    """True descriptions against the same with one object more."""
    rows = []
    for item in scenes("train", 9, count):
        render(item).save(folder / item.name)
        said = facts.description(item)
        more = f"{said} There is also {article(facts.companions(item)[0])}."
        question = "Describe the image in detail."
        rows.append(
            {
                "image": str(folder / item.name),
                "instruction": question,
                "chosen": said,
                "rejected": more,
            }
        )
    return rows


def losses(trainer: object) -> list[float]:
    """The losses of all steps."""
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]  # type: ignore[attr-defined]


def ours(
    model: str, pairs: list[dict[str, str]], settings: Training, out: Path
) -> tuple[float, list[float]]:
    """Seconds and losses of our way."""
    trainer = make_trainer(HFModel(model, {}), pairs, settings, out, 0)
    started = time.perf_counter()
    encode_images_once(trainer.model)
    use_reference(trainer, pairs, out)
    trainer.train()
    return time.perf_counter() - started, losses(trainer)


def theirs(
    model: str, pairs: list[dict[str, str]], settings: Training, out: Path
) -> tuple[float, list[float]]:
    """Seconds and losses of trl's collator and of a reference pass in every step."""
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    adapter = HFModel(model, {})
    trainer = make_trainer(adapter, pairs, settings, out, 0)
    columns = {
        "images": [[row["image"]] for row in pairs],
        "prompt": [[{"role": "user", "content": row["instruction"]}] for row in pairs],
        "chosen": [[{"role": "assistant", "content": row["chosen"]}] for row in pairs],
        "rejected": [[{"role": "assistant", "content": row["rejected"]}] for row in pairs],
    }
    collate = DataCollatorForVisionPreference(adapter.processor)
    trainer.train_dataset = Dataset.from_dict(columns)
    trainer.data_collator = lambda rows: collate(
        [row | {"images": [read_image(Path(name)) for name in row["images"]]} for row in rows]
    )
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started, losses(trainer)


def main() -> None:
    """Prints seconds a step, their ratio, the largest difference of losses, and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--model", default="llava-tiny")
    asked = parser.parse_args()
    settings = Training(
        model=asked.model,
        batch=8,
        epochs=asked.epochs,
        learning_rate=2e-4,
        lora=Lora(rank=16, alpha=32),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = made_pairs(folder, asked.pairs)
        results = {}
        for way in (ours, theirs):
            seconds, curve = way(asked.model, pairs, settings, folder / way.__name__)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            results[way.__name__] = seconds, np.array(curve)
            print(
                f"{way.__name__:7} {seconds / len(curve):6.3f} s a step, {memory:.2f} GB at most so far"
            )
    print(f"ratio {results['theirs'][0] / results['ours'][0]:.2f}")
    print(
        f"largest difference of losses {np.abs(results['ours'][1] - results['theirs'][1]).max():.1e}"
    )


if __name__ == "__main__":
    main()
