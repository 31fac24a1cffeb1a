"""What sampling five seeds and contrastive decoding cost beside greedy decoding, all on the engine.

    python tests/speed/decoding.py [--images 8] [--rounds 5] [--device cpu] [--size 120m|7b]

Captions of 64 tokens by the model of tests/speed/engine.py. All ways take turns in one process; the medians of the
rounds' ratios are what to quote.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers as hf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.models.hf import HFModel
from bench.types import Request
from tests.speed.engine import arguments, by_engine, caption_requests, make_model

WAYS = {
    "greedy": "greedy",
    "one seed": "sample",
    "five seeds": "sample:seeds=5",
    "five seeds, top-p 0.9": "sample:top_p=0.9,seeds=5",
    "vcd, greedy": "vcd:temperature=0",
    "vcd, one seed": "vcd",
}


def of_seeds(requests: list[Request], seeds: int) -> list[Request]:
    """Each request once for each seed, next to each other as a run has them."""
    repeated = []
    for request in requests:
        repeated += [replace(request, key=f"{request.key} {seed}") for seed in range(seeds)]
    return repeated


def main() -> None:
    """Prints a line per way."""
    options = arguments(__doc__, images=8, rounds=5).parse_args()
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
        checkpoint = str(make_model(folder / "model", options.size, dtype))
        requests = caption_requests(folder, options.images)
        models = {}
        network = None
        for name, decoding in WAYS.items():
            model = HFModel(
                checkpoint, {"protocol": "llava", "device": options.device, "decoding": decoding}
            )
            # One network for all; nothing ends a caption, so that all are equally long.
            network = network or model.model
            model.take_network(network)
            model.generation_config.eos_token_id = network.generation_config.eos_token_id = None
            models[name] = model
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for model in models.values():
            by_engine(model, requests[:1])
        for _ in range(options.rounds):
            for name, model in models.items():
                asked = of_seeds(requests, model.seeds)
                started = time.perf_counter()
                by_engine(model, asked)
                seconds[name].append(time.perf_counter() - started)
    for name, spent in seconds.items():
        ratios = np.array(spent) / seconds["greedy"]
        print(
            f"{name:24} {np.median(spent) / len(requests) * 1000:8.1f} ms an image"
            f" {np.median(ratios):6.2f} × greedy ({ratios.min():.2f}–{ratios.max():.2f})"
        )


if __name__ == "__main__":
    main()
