"""Times the shared-image engine against `generate`, one at a time and in batches of 8, and checks the answers.

    python tests/speed/engine.py [--images 4] [--questions 10 18] [--captions 8] [--rounds 3]
                                 [--device cpu] [--size 120m|7b]

A LLaVA-shaped model with random weights, 576 image tokens and 32,064 entries in the vocabulary, POPE's official
question texts (from ../shared/data, else the same wording over COCO's objects), protocol `llava`, two tokens an
answer ("Yes" and the end of the text); captions of 64 tokens. All ways take turns in one process, round after
round; the medians of the rounds' ratios are what to quote.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.models.generate import BATCH  # noqa: E402
from bench.models.hf import HFModel  # noqa: E402
from bench.types import Request  # noqa: E402
from tests.tiny_models import OBJECTS, llama_tokenizer, randomise  # noqa: E402

SUFFIX = "\nAnswer the question using a single word or phrase."
CAPTION_TOKENS = 64
VOCABULARY = 32_064  # of LLaVA-1.5
SIZES = {
    "120m": (
        {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
        },
        {
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 12,
        },
    ),
    "7b": (
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
    ),
}


def make_model(folder: Path, size: str, dtype: torch.dtype) -> Path:
    """A checkpoint of LLaVA-1.5's shape: CLIP at 336 pixels in patches of 14, Llama and its tokenizer
    with 32,064 entries."""
    vision, text = SIZES[size]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = llama_tokenizer(folder, VOCABULARY)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=hf.LlamaConfig(**text, vocab_size=VOCABULARY, max_position_embeddings=4096),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=576,
    )
    torch.manual_seed(0)
    # In its precision from the start: 7B in float32 would take 28 GB on the way.
    model = hf.LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = hf.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    randomise(model, 0)  # else every answer would be the same
    model.save_pretrained(folder)
    images = hf.CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def question_texts(count: int) -> list[str]:
    """Distinct question texts, POPE's own where its files are at hand."""
    official = ROOT.parent / "shared" / "data" / "pope" / "coco" / "coco_pope_popular.json"
    if official.is_file():
        texts = [json.loads(line)["text"] for line in official.read_text().splitlines()]
    else:
        texts = [f"Is there a {item} in the image?" for item in OBJECTS]
    return list(dict.fromkeys(texts))[:count]


def make_requests(folder: Path, images: int, questions: int) -> list[Request]:
    """`questions` requests for each of `images` images of COCO's common size."""
    random, requests = np.random.default_rng(0), []
    for number in range(images):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(path)
        for text in question_texts(questions):
            requests.append(
                Request(f"{number} {text}", path.name, path, text, text + SUFFIX, 2, True, ())
            )
    return requests


Result = dict[str, tuple[str, float]]


def caption_requests(folder: Path, images: int) -> list[Request]:
    """A description of each of `images` images."""
    text = "Describe this image in detail."
    return [
        Request(one.image, one.image, one.path, text, text, CAPTION_TOKENS, False, ())
        for one in make_requests(folder, images, 1)
    ]


def by_generate(model: HFModel, requests: list[Request], rows: int) -> Result:
    """(text, P(yes)) by request, `rows` prompts at a time, each with its own image as usual
    harnesses have it."""
    answers: Result = {}
    with torch.inference_mode():
        for start in range(0, len(requests), rows):
            part = requests[start : start + rows]
            encoded = [
                model.prompter.encode(Image.open(r.path).convert("RGB"), [r.prompt]) for r in part
            ]
            longest = max(len(e.ids[0]) for e in encoded)
            ids = torch.tensor([[0] * (longest - len(e.ids[0])) + e.ids[0] for e in encoded])
            mask = torch.tensor(
                [[0] * (longest - len(e.ids[0])) + [1] * len(e.ids[0]) for e in encoded]
            )
            pixels = torch.cat([e.pixels["pixel_values"] for e in encoded])
            output = model.model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                pixel_values=pixels.to(model.device, model.dtype),
                do_sample=False,
                max_new_tokens=part[0].max_tokens,
                return_dict_in_generate=True,
                output_logits=True,
            )
            p_yes = (
                output.logits[0].float().softmax(-1)[:, list(model.settings.yes)].sum(-1).tolist()
            )
            texts = [
                model.generated(row, len(row), None, None).text
                for row in output.sequences[:, longest:].tolist()
            ]
            answers |= {
                r.key: pair for r, pair in zip(part, zip(texts, p_yes, strict=True), strict=True)
            }
    return answers


def by_engine(model: HFModel, requests: list[Request]) -> Result:
    """(text, P(yes)) by request."""
    batches = model.answer(requests, frozenset())
    return {
        request.key: (answer.text, answer.p_yes or 0.0)
        for batch in batches
        for request, answer in batch
    }


def arguments(text: str | None, images: int, rounds: int) -> argparse.ArgumentParser:
    """The options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=images)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="120m")
    return parser


def main() -> None:
    """Prints a line per way and number of questions."""
    parser = arguments(__doc__, images=4, rounds=3)
    parser.add_argument("--questions", type=int, nargs="+", default=[10, 18])
    parser.add_argument("--captions", type=int, default=8, help="images to describe")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = torch.float32 if options.device == "cpu" else torch.bfloat16
        checkpoint = make_model(folder / "model", options.size, stored)
        model = HFModel(
            str(checkpoint), {"protocol": "llava", "device": options.device, "dtype": options.dtype}
        )
        parameters = sum(p.numel() for p in model.model.parameters())
        print(
            f"{parameters / 1e6:.0f} M parameters, {model.dtype}, {options.device}, {torch.get_num_threads()} threads"
        )
        for questions in options.questions:
            print(f"{questions} questions an image")
            compare(model, make_requests(folder, options.images, questions), options.rounds)
        if options.captions:
            print(f"captions of {CAPTION_TOKENS} tokens")
            # Nothing ends one, so that all ways write equally many tokens.
            model.generation_config.eos_token_id = model.model.generation_config.eos_token_id = None
            vars(model).pop("settings", None)
            compare(model, caption_requests(folder, options.captions), options.rounds)


def compare(model: HFModel, requests: list[Request], rounds: int) -> None:
    """Times every way on the same requests in turn, after an untimed start."""
    ways: dict[str, Callable[[list[Request]], Result]] = {
        "engine": lambda part: by_engine(model, part),
        f"generate, {BATCH} at a time": lambda part: by_generate(model, part, BATCH),
        "generate, one at a time": lambda part: by_generate(model, part, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for way in ways.values():
        way(requests[:2])
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            results[name] = way(requests)
            seconds[name].append(time.perf_counter() - started)
    alone = results["generate, one at a time"]
    for name, spent in seconds.items():
        ratios = np.array(spent) / seconds["engine"]
        same = sum(results[name][key][0] == alone[key][0] for key in alone)
        line = (
            f"  {name:24} {np.median(spent) / len(requests) * 1000:8.1f} ms each"
            f" {np.median(ratios):6.2f} × engine ({ratios.min():.2f}–{ratios.max():.2f})"
            f"  {same}/{len(alone)} answers as one at a time"
        )
        if requests[0].yes_no:
            off = max(abs(np.log(results[name][key][1] / alone[key][1])) for key in alone)
            line += f", ln P(yes) within {off:.0e}"
        print(line)


if __name__ == "__main__":
    main()
