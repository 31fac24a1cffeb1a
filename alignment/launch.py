"""Training in several processes, on several GPUs or machines, by `accelerate launch`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.dpo import run
from alignment.recipe import RecipeError, Training
from bench.errors import BenchError
from bench.store import read_json, write_json
from bench.terminal import show_error

SHIPPED = Path(__file__).parent / "accelerate"


def launched(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """`dpo.run` in the processes that `accelerate launch` starts with the arguments of `launch`.

    Its first word may be the name of a shipped configuration: fsdp, zero2.
    """
    job, done = out / "job.json", out / "done.json"
    folders = {name: str(path.resolve()) for name, path in inputs.items()}
    write_json(job, {"settings": settings.model_dump(mode="json"), "inputs": folders, "out": str(out), "seed": seed})
    first, *others = shlex.split(settings.launch)
    config = SHIPPED / f"{first}.yaml"
    words = ["--config_file", str(config), *others] if config.is_file() else [first, *others]
    command = [sys.executable, "-m", "accelerate.commands.launch", *words, "-m", __name__, str(job)]
    code = subprocess.run(command, check=False).returncode
    if code or not done.exists():
        raise RecipeError(
            f"The training in several processes ended with exit code {code}.",
            "The processes' own messages are above.",
            "Mend what they name, or `launch:`, and start the same command again: it goes on at the last checkpoint.",
        )
    counts: dict[str, Any] = read_json(done)
    job.unlink()
    done.unlink()
    return counts


def main() -> None:
    """One of the processes."""
    job = read_json(Path(sys.argv[1]))
    settings = Training.model_validate(job["settings"] | {"launch": ""})
    try:
        counts = run(
            settings, {name: Path(path) for name, path in job["inputs"].items()}, Path(job["out"]), job["seed"]
        )
    except BenchError as error:
        show_error(error)
        raise SystemExit(2) from error
    if int(os.environ.get("RANK", 0)) == 0:
        write_json(Path(job["out"]) / "done.json", counts)


if __name__ == "__main__":
    main()
