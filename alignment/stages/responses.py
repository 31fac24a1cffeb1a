"""Several responses of several models to every instruction, drawn at a temperature.

One image encoding serves all of them. Artifact: responses.jsonl (`alignment/rows.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field

from alignment.rows import ImageRow, ResponseRow
from alignment.settings import Settings
from bench.errors import StoreError
from bench.files import append_lines, read_lines
from bench.runs.jobs import check_server, load_model
from bench.runs.runner import without_thoughts
from bench.terminal import progress_bar
from bench.types import Request

VERSION = "1"


class Responses(Settings):
    """`samples` responses of each model to each instruction.

    `workers` and `ray` are those of `bench run`; who computes a response does not change it.
    """

    models: list[str] = Field(min_length=1)
    samples: int = Field(gt=0)
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(512, gt=0)
    workers: int | None = Field(None, gt=0)
    ray: str | None = None

    MOVES_NOTHING: ClassVar[frozenset[str]] = frozenset({"workers", "ray"})


def identity(settings: Responses) -> Any:
    """Every model as its adapter describes it, weights and decoding included."""
    options = {"temperature": settings.temperature}
    return [load_model(name, options).describe() for name in settings.models]


def check(settings: Responses) -> None:
    """Raises BenchError if a model behind a server cannot be asked."""
    for name in settings.models:
        check_model(name)


def check_model(name: str) -> None:
    """Raises BenchError if a model cannot be asked, as far as that is known without weights."""
    check_server(load_model(name, {}))


def run(settings: Responses, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Asks model after model. Requests that have no answer are dropped and counted."""
    file = out / "responses.jsonl"
    images = read_lines(inputs["images"] / "images.jsonl", ImageRow)
    failed = 0
    for name in settings.models:
        failed += _ask(settings, name, images, inputs["images"], file, seed)
    return {"responses": len(read_lines(file, ResponseRow)), "failed": failed}


def _ask(
    settings: Responses,
    name: str,
    images: Sequence[ImageRow],
    folder: Path,
    file: Path,
    seed: int,
) -> int:
    """Gets and records one model's responses; returns how many requests have none."""
    requests: list[Request] = []
    row_of: dict[str, dict[str, Any]] = {}  # what is known of a response before it is there
    for image in images:
        if not image["file"]:  # dropped, with its reason in images.jsonl
            continue
        path = folder / image["file"]
        for number, instruction in enumerate(image["instructions"]):
            for sample in range(settings.samples):
                key = f"{image['id']}/{number}/{name}/{sample}"
                row_of[key] = {
                    "key": key,
                    "image": image["id"],
                    "instruction": instruction,
                    "model": name,
                }
                requests.append(
                    Request(
                        key,
                        image["id"],
                        path,
                        instruction,
                        instruction,
                        settings.max_tokens,
                        False,
                        (),
                    )
                )
    # The file holds all models' responses.
    done = set()
    for row in read_lines(file, ResponseRow):
        known = row_of.get(row["key"])
        if known is not None:
            if not known.items() <= row.items():
                raise StoreError(
                    f"{file} is not as it was written.",
                    f"{row['key']} is of another image, instruction or model.",
                    f"Restore it, or delete {file.parent} and start the same command again.",
                )
            done.add(row["key"])
    options = {
        "temperature": settings.temperature,
        "seed": seed,
        "workers": settings.workers,
        "ray": settings.ray,
    }
    model = load_model(name, options)
    failed = 0
    with progress_bar(f"responses of {name}", len(requests)) as progress:
        progress(len(done))
        for batch in model.answer(requests, frozenset(done)):
            rows: list[ResponseRow] = []
            new = 0
            for request, raw_answer in batch:
                if request.key in done:
                    continue
                new += 1
                if raw_answer.error is not None:
                    failed += 1
                    continue
                # What a reasoning model thought is no part of its response.
                answer = without_thoughts(raw_answer)
                response = {"text": answer.text, "tokens": answer.tokens, "finish": answer.finish}
                rows.append(cast(ResponseRow, row_of[request.key] | response))
            append_lines(file, rows)
            progress(new)
    return failed
