"""Times one Ray worker of one thread against two, on a LLaVA-shaped model with 576 image tokens and random weights.

    python tests/speed/workers.py [--images 12] [--questions 10] [--rounds 3]

Both crews are up and have answered once before they are timed; they take turns; ratios are what to quote.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import ray  # noqa: E402
import torch  # noqa: E402

from bench.models.ray_workers import RayModel  # noqa: E402
from tests.speed.engine import make_model, make_requests  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(make_model(folder / "model", "120m", torch.float32))
        requests = make_requests(folder, asked.images, asked.questions)
        crews = {
            count: RayModel(model, {"workers": count, "protocol": "llava"}) for count in (1, 2)
        }
        said = {
            count: [a.text for b in crew.answer(requests, frozenset()) for _, a in b]
            for count, crew in crews.items()
        }
        assert said[1] == said[2]
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(asked.rounds):
            for count, crew in crews.items():
                started = time.perf_counter()
                list(crew.answer(requests, frozenset()))
                seconds[count].append(time.perf_counter() - started)
    best = {count: min(times) for count, times in seconds.items()}
    print(
        f"{len(requests)} questions: one worker {best[1]:.1f} s, two {best[2]:.1f} s: {best[1] / best[2]:.2f} times"
    )


if __name__ == "__main__":
    main()
