"""The table of docs/models.md: what each family can do, measured on tiny checkpoints of real layouts.

    python -m tests.model_table

It prints the table in Markdown. Quantised checkpoints are tried where bitsandbytes is installed, Pixtral and Mistral 3 where
torchvision is.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers as hf

from alignment.training.settings import Lora, Training
from alignment.training.trainer import make_trainer
from bench.models.hf import HFModel
from tests.tiny_models import NEED_TORCHVISION, load_processor, make
from tests.unit.test_checkpoints import adapter_for
from tests.unit.test_dpo_families import ENDS, as_at_inference, pairs_in
from tests.unit.test_shared_image import answers_of, by_generate, requests_for

# What people call the family, and our maker of its tiny checkpoint.
FAMILIES = {
    "LLaVA-1.5": "llava",
    "LLaVA-1.6 (Vicuna)": "llava_next",
    "LLaVA-1.6 (Mistral)": "llava_next_mistral",
    "LLaVA-OneVision": "llava_onevision",
    "Qwen2-VL": "qwen2_vl",
    "Qwen2.5-VL": "qwen2_5_vl",
    "Qwen3-VL": "qwen3_vl",
    "InternVL3": "internvl",
    "InternVL3.5": "internvl3_5",
    "Idefics3": "idefics3",
    "SmolVLM, SmolVLM2": "smolvlm",
    "PaliGemma": "paligemma",
    "PaliGemma 2": "paligemma2",
    "Gemma 3": "gemma3",
    "Pixtral": "pixtral",
    "Mistral Small 3.1": "mistral3",
    "Ministral 3": "ministral3",
    "Llama 3.2 Vision": "mllama",
}
COLUMNS = ("way", "exact", "protocol", "P(yes)", "batch", "LoRA", "DPO", "8-bit")
NOT_TRIED = "not tried"
TOLERANCE = 1e-4  # of ln P(yes)


def row(kind: str, folder: Path) -> list[str]:
    """What the checkpoint of one maker does, column by column."""
    checkpoint = make(kind, folder / "model")
    model = HFModel(str(checkpoint), {})
    requests = requests_for(folder)
    answers = answers_of(model, requests)
    exact, probabilities = 0, 0
    for request in requests:
        text, _, p_yes = by_generate(model, request)
        answer = answers[request.key]
        exact += answer.text == text
        is_known = answer.p_yes is not None and p_yes > 0
        probabilities += is_known and abs(math.log(answer.p_yes / p_yes)) < TOLERANCE
    model.max_prompts = 2
    small = answers_of(model, requests)
    same = sum(small[key].text == answers[key].text for key in answers)
    total = len(requests)
    engine = str(model.describe()["engine"])
    return [
        "engine" if engine == "shared-image" else "`generate`",
        f"{exact} of {total}",
        f"`{model.protocol.name}`",
        f"{probabilities} of {total}",
        f"{same} of {total}",
        _lora(checkpoint, folder, requests, answers),
        _dpo(checkpoint, folder, kind),
        _quantised(checkpoint, folder, requests),
    ]


def _lora(checkpoint: Path, folder: Path, requests: list, plain: dict) -> str:
    """Whether an adapter of peft's moves answers, which are those of `generate`."""
    adapter = adapter_for(checkpoint, folder / "adapter", r".*(q|v)_proj")
    model = HFModel(f"{checkpoint}+{adapter}", {})
    answers = answers_of(model, requests)
    exact = sum(answers[one.key].text == by_generate(model, one)[0] for one in requests)
    moved = any(answers[key].text != plain[key].text for key in plain)
    return f"{exact} of {len(requests)}" if moved else "moves nothing"


def _dpo(checkpoint: Path, folder: Path, kind: str) -> str:
    """Responses whose log-probability in a training batch is that of inference."""
    pairs = pairs_in(folder)
    model = HFModel(str(checkpoint), {})
    expected = []
    for side in ("chosen", "rejected"):
        for pair in pairs:
            expected.append(as_at_inference(model, pair, side, ENDS.get(kind, "<|im_end|>")))
    training = Training(model=str(checkpoint), batch=len(pairs), lora=Lora(rank=2, alpha=4))
    trainer = make_trainer(model, pairs, training, folder / "dpo", 0)
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(pairs))])
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    found = [*chosen.tolist(), *rejected.tolist()]
    same = sum(abs(one - other) < 2e-3 for one, other in zip(found, expected, strict=True))
    return f"{same} of {len(found)}"


def _quantised(checkpoint: Path, folder: Path, requests: list) -> str:
    """Answers of the checkpoint saved in 8 bits that are those of `generate` on it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return NOT_TRIED
    settings = hf.BitsAndBytesConfig(load_in_8bit=True)
    target = folder / "8-bit"
    network = hf.AutoModelForImageTextToText.from_pretrained(
        checkpoint, quantization_config=settings, dtype=torch.float32
    )
    network.save_pretrained(target)
    load_processor(checkpoint).save_pretrained(target)
    model = HFModel(str(target), {})
    try:
        answers = answers_of(model, requests)
        exact = sum(answers[one.key].text == by_generate(model, one)[0] for one in requests)
    except RuntimeError:  # in bitsandbytes' own code for CPUs
        return "fails"
    return f"{exact} of {len(requests)}"


def main() -> None:
    """Prints the table, a line as soon as it is measured."""
    warnings.simplefilter("ignore")
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    print(f"| family | {' | '.join(COLUMNS)} |")
    print(f"|---|{'---|' * len(COLUMNS)}")
    for family, kind in FAMILIES.items():
        cells = [NOT_TRIED] * len(COLUMNS)
        if kind not in NEED_TORCHVISION or importlib.util.find_spec("torchvision") is not None:
            with tempfile.TemporaryDirectory() as temporary:
                cells = row(kind, Path(temporary))
        print(f"| {family} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
