"""Several responses of several models to every instruction, drawn at a temperature, one image encoding for all.

Artifact: responses.jsonl with {"key", "image", "instruction", "model", "text", "tokens", "finish"}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.recipe import Responses
from bench.compose import load_model
from bench.store import append_lines, read_lines
from bench.terminal import progress_bar
from bench.types import Request

VERSION = "1"


def identity(settings: Responses) -> Any:
    """Every model as its adapter describes it, weights and decoding included."""
    return [load_model(name, {"temperature": settings.temperature}).describe() for name in settings.models]


def run(settings: Responses, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Asks model after model. Requests that have no answer are dropped and counted."""
    file = out / "responses.jsonl"
    images = [row for row in read_lines(inputs["images"] / "images.jsonl") if row["file"]]
    failed = 0
    for name in settings.models:
        requests, about = [], {}
        for row in images:
            path = inputs["images"] / row["file"]
            for place, instruction in enumerate(row["instructions"]):
                for sample in range(settings.samples):
                    key = f"{row['id']}/{place}/{name}/{sample}"
                    about[key] = {"key": key, "image": row["id"], "instruction": instruction, "model": name}
                    requests.append(
                        Request(key, row["id"], path, instruction, instruction, settings.max_tokens, False, ())
                    )
        done = frozenset(row["key"] for row in read_lines(file)) & about.keys()
        spread = {"workers": settings.workers, "ray": settings.ray}
        model = load_model(name, {"temperature": settings.temperature, "seed": seed} | spread)
        with progress_bar(f"responses of {name}", len(requests)) as progress:
            progress(len(done))
            for batch in model.answer(requests, done):
                new = [(request, answer) for request, answer in batch if request.key not in done]
                rows = [
                    about[r.key] | {"text": a.text, "tokens": a.tokens, "finish": a.finish}
                    for r, a in new
                    if a.error is None
                ]
                append_lines(file, rows)
                failed += len(new) - len(rows)
                progress(len(new))
    return {"responses": len(read_lines(file)), "failed": failed}
