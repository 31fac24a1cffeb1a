"""Commands that change files, what they work on and what they leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import SHARED, bench
from tests.original_format import write_original
from tests.tiny_pipelines import recipe_in

# What differs from one undisturbed end to the next.
TIMES = ("created", "seconds", "sessions", "environment", "command", "date")


SECONDS = 240  # for one command
DOWNLOADED = ("repope", "chair")  # benchmarks whose files tests have
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": (
        "run", "--model", "llava-tiny", "--suite", "pope,mmhal,chair", "--data", "scenes",
        "--limit", "12", "--out", "{here}/runs",
    ),
    "judge": ("judge", "{here}/llava-tiny", "--judge", "grounding:llava-tiny"),
    "score": ("score", "{here}/llava-tiny"),
    "report": ("report", "{here}/llava-tiny", "{here}/llava-tiny-b", "--out", "{here}/report"),
    "export": ("export", "{here}/llava-tiny", "--format", "csv", "--out", "{here}/csv"),
    "save": ("check", "{here}/llava-tiny", "--save", "{here}/saved.json"),
    "scenes": ("data", "scenes", "--n", "6", "--out", "{here}/scenes"),
    "get": ("data", "get", *DOWNLOADED, "--out", "{here}/got"),
    "convert": ("convert", "{here}/original/llava", "{here}/converted"),
    "align": ("align", "{here}/recipe.yaml", "--out", "{here}/align"),
}  # fmt: skip
NAMES = [name for name in COMMANDS if name != "get" or SHARED.is_dir()]


def make_base(folder: Path) -> Path:
    """What the commands work on: a run, another one, a reference, a checkpoint to convert."""
    suite = ("--suite", "pope,mmhal,chair", "--data", "scenes", "--limit", "12")
    for name in ("llava-tiny", "llava-tiny-b"):
        assert bench("run", "--model", name, *suite, "--out", folder / name).returncode == 0
    assert (
        bench("check", folder / "llava-tiny", "--save", folder / "reference.json").returncode == 0
    )
    write_original(folder / "original")
    recipe_in(
        folder,
        "scenes-tiny.yaml",
        prompts={"count": 6, "per_prompt": 2},
        responses={"samples": 2},
        preferences={"margin": 0.0},
        dpo={"batch": 2},
        evaluate={"suite": ["pope"], "limit": 6},
    ).rename(folder / "recipe.yaml")
    return folder


def prepare(base: Path, here: Path, name: str) -> Callable[[], None]:
    """The command on a copy of what it works on."""
    shutil.copytree(base, here)
    return command_in(here, name)


def command_in(here: Path, name: str) -> Callable[[], None]:
    """The command on what lies in a folder."""
    words = tuple(word.format(here=here) for word in COMMANDS[name])

    def command() -> None:
        from bench.cli.main import app

        app(list(words))

    return command


def ended(folder: Path) -> dict[str, Any]:
    """What a command left, without times; of pictures and weights that they are there."""
    left: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or name.endswith((".lock", ".tmp")):
            continue
        if name.startswith(("scenes/", "got/")):
            left[name] = file.read_bytes()
        elif name.endswith(".jsonl"):
            lines = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
            left[name] = lines
        elif name.endswith("metrics.json"):
            left[name] = json.loads(file.read_text())["metrics"]
        elif name.endswith(".json"):
            left[name] = timeless(json.loads(file.read_text()))
        elif name.endswith((".csv", ".safetensors", ".tex", ".md")) and "align" not in str(folder):
            left[name] = file.read_bytes()
        else:
            left[name] = "there"
    return left


def differing(left: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of what is not alike in two of `ended`."""
    names = left.keys() | expected.keys()
    return sorted(name for name in names if left.get(name) != expected.get(name))


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return list(map(timeless, value)) if isinstance(value, list) else value
