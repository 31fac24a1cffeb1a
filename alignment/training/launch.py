"""Training in several processes, on several GPUs or machines, by `accelerate launch`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.settings import RecipeError
from alignment.training.settings import Training
from alignment.training.trainer import train
from bench.errors import BenchError, one_line
from bench.files import read_json, write_json
from bench.terminal import show_error

STANDARD_ERROR = 2
SHIPPED = Path(__file__).parent / "accelerate"


def check_launch(settings: Training) -> None:
    """Raises RecipeError for what `accelerate launch` does not take, or names another script.

    The same for a configuration that needs a library which is not installed.
    """
    words = _words(settings.launch)
    if words:
        _check_options(settings.launch, _with_configuration(words))
    if settings.measure and "fsdp" in words:
        raise RecipeError(
            "`measure` does not go with `launch: fsdp`.",
            "No process has the whole model while it trains.",
            "Leave `measure` out, or use zero2.",
        )
    if "zero2" in words and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError(
            "DeepSpeed is not installed.",
            "`launch: zero2` shares gradients and optimizer states out with it.",
            "pip install 'synth-align[deepspeed]', or use `launch: fsdp`.",
        )


def _words(launch: str) -> list[str]:
    try:
        return shlex.split(launch)
    except ValueError as error:  # a quote without its end
        raise RecipeError(
            f"`launch: {launch}` cannot be read.", f"{error}.", "Correct the quotes."
        ) from error


def _with_configuration(words: Sequence[str]) -> list[str]:
    """The arguments with the file of a shipped configuration in the place of its name."""
    config = SHIPPED / f"{words[0]}.yaml"
    return ["--config_file", str(config), *words[1:]] if config.is_file() else list(words)


def _check_options(launch: str, arguments: Sequence[str]) -> None:
    """Raises RecipeError if something in the arguments would be run in the place of a training.

    The same for a configuration that accelerate cannot read: it would do so hours later.
    """
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import ComputeEnvironment

    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage), contextlib.redirect_stdout(io.StringIO()):
            parsed = launch_command_parser().parse_args([*arguments, "-m", __name__, "JOB"])
    except SystemExit as error:
        raise RecipeError(
            f"`launch: {launch}` holds no options of accelerate.",
            one_line(usage.getvalue().rpartition("error: ")[2] or "It asks for help."),
            "`accelerate launch --help` shows them.",
        ) from error
    if (parsed.training_script, parsed.training_script_args) != (__name__, ["JOB"]):
        raise RecipeError(
            f"`launch: {launch}` names something to run.",
            f"'{parsed.training_script}' would run in the place of the training.",
            "Give options of `accelerate launch` alone.",
        )
    if parsed.no_python:
        raise RecipeError(
            f"`launch: {launch}` has --no_python.",
            "The training is a module of Python.",
            "Leave it out.",
        )
    if parsed.config_file is None:
        return
    try:
        config = load_config_from_file(parsed.config_file)
    except Exception as error:  # accelerate asserts nothing of what stands in it
        raise RecipeError(
            f"{parsed.config_file} is no configuration of accelerate.",
            one_line(f"{type(error).__name__}: {error}"),
            "`accelerate config --config_file FILE` makes one.",
        ) from error
    if config.compute_environment != ComputeEnvironment.LOCAL_MACHINE:
        raise RecipeError(
            f"{parsed.config_file} sends the training to {config.compute_environment.value}.",
            "What it makes would stay there.",
            "Give a configuration for LOCAL_MACHINE.",
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
    arguments = _with_configuration(_words(settings.launch))
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
    counts = read_json(done, dict[str, Any])
    job.unlink()
    done.unlink()
    return counts


def main() -> None:
    """One of the processes."""
    job = read_json(Path(sys.argv[1]), dict[str, Any])
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
