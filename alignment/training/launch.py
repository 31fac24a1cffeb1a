"""Training in several processes, on several GPUs or machines, by `accelerate launch`."""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.settings import RecipeError
from alignment.training.settings import Training
from alignment.training.trainer import train
from bench.errors import BenchError
from bench.files import read_json, write_json
from bench.terminal import show_error

STANDARD_ERROR = 2
SHIPPED = Path(__file__).parent / "accelerate"


def check_launch(settings: Training) -> None:
    """Raises RecipeError if a configuration needs a library that is not installed."""
    if settings.measure and "fsdp" in shlex.split(settings.launch):
        raise RecipeError(
            "`measure` does not go with `launch: fsdp`.",
            "No process has the whole model while it trains.",
            "Leave `measure` out, or use zero2.",
        )
    if "zero2" in shlex.split(settings.launch) and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(
            "DeepSpeed is not installed.",
            "`launch: zero2` shares gradients and optimizer states out with it.",
            "pip install 'synth-align[deepspeed]', or use `launch: fsdp`.",
        )


def launch(settings: Training, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """`train` in the processes that `accelerate launch` starts with the arguments of `launch`.

    Its first word may be the name of a shipped configuration: fsdp, zero2. Raises RecipeError if
    the processes fail.
    """
    job, done = out / "job.json", out / "done.json"
    write_json(
        job,
        {
            "settings": settings.model_dump(mode="json"),
            "inputs": {name: str(path.resolve()) for name, path in inputs.items()},
            "out": str(out),
            "seed": seed,
        },
    )
    # Settings go through a file: the processes share no memory with this one.
    arguments = shlex.split(settings.launch)
    config = SHIPPED / f"{arguments[0]}.yaml"
    if config.is_file():
        arguments = ["--config_file", str(config), *arguments[1:]]
    if not {"--main_process_port", "--num_machines"} & set(arguments):
        # A free port, else two trainings on one machine would meet on accelerate's own.
        arguments = ["--main_process_port", "0", *arguments]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", *arguments]
    command = [*accelerate, "-m", __name__, str(job)]
    # Standard output is for results; the processes' messages go to standard error.
    code = subprocess.run(command, check=False, stdout=STANDARD_ERROR).returncode
    if code or not done.exists():
        raise RecipeError(
            f"The training in several processes ended with exit code {code}.",
            "The processes' own messages are above.",
            "Correct what they name, or `launch:`, and start the same command again: it goes on at "
            "the last checkpoint.",
        )
    counts: dict[str, Any] = read_json(done)
    job.unlink()
    done.unlink()
    return counts


def main() -> None:
    """One of the processes."""
    job = read_json(Path(sys.argv[1]))
    settings = Training.model_validate(job["settings"] | {"launch": ""})
    inputs = {name: Path(path) for name, path in job["inputs"].items()}
    out = Path(job["out"])
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        counts = train(settings, inputs, out, job["seed"])
    except BenchError as error:
        show_error(error)
        raise SystemExit(2) from error
    # All processes have the same counts; one tells them.
    if int(os.environ.get("RANK", 0)) == 0:
        write_json(out / "done.json", counts)


if __name__ == "__main__":
    main()
