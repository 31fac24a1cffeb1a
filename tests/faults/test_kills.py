"""A command that is killed before any change of a file, or at any instant, ends as an undisturbed one.

Each command runs in a fork that kills itself: before its n-th change of a file, for every n that there is (or as many
as `--faults` allows), or after a random time; then the last line that it appended is torn. The same command again must
end as if nothing had been.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import bench
from tests.faults import forked
from tests.original_format import write_original
from tests.tiny_pipelines import recipe_in

pytestmark = pytest.mark.slow
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
SECONDS = 240
# What differs from one undisturbed end to the next.
TIMES = ("created", "seconds", "sessions", "environment", "command", "date")


class Changes:
    """Counts the changes of files below a folder, and kills this process before one of them."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.folder, self.at, self.count = str(folder), at, 0
        self.appended: str | None = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (
                os.O_WRONLY | os.O_RDWR
            )
            if not writes:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(
            self.folder
        ):
            return
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def changes_of(command: Callable[[], None], folder: Path) -> int:
    """How many changes of files an undisturbed command makes."""
    counted = folder.parent / "count"

    def counting() -> None:
        changes = Changes(folder, None)
        sys.addaudithook(changes)
        try:
            command()
        finally:
            folder_of_count = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(folder_of_count, str(changes.count).encode())

    outcome = forked.in_child(counting, SECONDS)
    assert outcome.code in (0, 3), outcome.err
    return int(counted.read_text())


def killed_at(command: Callable[[], None], folder: Path, at: int) -> forked.Outcome:
    def dying() -> None:
        sys.addaudithook(Changes(folder, at))
        command()

    return forked.in_child(dying, SECONDS)


def killed_after(command: Callable[[], None], seconds: float) -> forked.Outcome:
    def dying() -> None:
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        command()

    return forked.in_child(dying, SECONDS)


def torn(folder: Path, since: int, rng: random.Random) -> None:
    """The last line that was appended is half there, as after a power cut."""
    growing = []
    for file in folder.rglob("*.jsonl"):
        # Scores are replaced whole; an artifact with a manifest grows no more, and what was there
        # before the figures had come to the disk before them.
        is_done = (file.parent / "manifest.json").exists() or file.name == "scores.jsonl"
        state, figures = file.stat(), file.parent / "metrics.json"
        is_done |= figures.exists() and figures.stat().st_mtime_ns >= state.st_mtime_ns
        if state.st_size and state.st_mtime_ns > since and not is_done:
            growing.append((state.st_mtime_ns, file))
    if growing:
        _, file = max(growing)
        size = file.stat().st_size
        last = file.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
        os.truncate(file, size - rng.randrange(1, len(last) + 1))


def ended(folder: Path) -> dict[str, Any]:
    """What a command left, without times; of pictures and weights that they are there."""
    left: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or name.endswith((".lock", ".tmp")):
            continue
        if name.startswith("scenes/"):
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


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return list(map(timeless, value)) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """What the commands work on: a run, another one, a reference."""
    folder = tmp_path_factory.mktemp("base")
    suite = ("--suite", "pope,mmhal,chair", "--data", "scenes", "--limit", "12")
    for name in ("llava-tiny", "llava-tiny-b"):
        assert bench("run", "--model", name, *suite, "--out", folder / name).returncode == 0
    assert (
        bench("check", folder / "llava-tiny", "--save", folder / "reference.json").returncode == 0
    )
    write_original(folder / "original")
    return folder


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
    "convert": ("convert", "{here}/original/llava", "{here}/converted"),
    "align": ("align", "{here}/recipe.yaml", "--out", "{here}/align"),
}  # fmt: skip


def prepare(base: Path, here: Path, name: str) -> Callable[[], None]:
    """The command on a copy of what it works on."""
    shutil.copytree(base, here)
    if name == "align":
        recipe_in(
            here,
            "scenes-tiny.yaml",
            prompts={"count": 6, "per_prompt": 2},
            responses={"samples": 2},
            preferences={"margin": 0.0},
            dpo={"batch": 2},
            evaluate={"suite": ["pope"], "limit": 6},
        ).rename(here / "recipe.yaml")
    words = tuple(word.format(here=here) for word in COMMANDS[name])

    def command() -> None:
        from bench.cli.main import app

        app(list(words))

    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_ends_as_an_undisturbed_one(base, tmp_path, name, pytestconfig):
    from bench.cli import main  # noqa: F401

    here = tmp_path / "work" / "here"
    command = prepare(base, here, name)
    changes = changes_of(command, here)
    expected = ended(here)
    shutil.rmtree(here)
    rng = random.Random(pytestconfig.getoption("--fault-seed"))
    asked = max(4, pytestconfig.getoption("--faults") // 10)
    instants: list[int | float] = list(range(changes))
    if len(instants) > asked:
        instants = rng.sample(instants, asked)
    instants += [rng.uniform(0.05, 3.0) for _ in range(asked // 4)]
    found = []
    for instant in instants:
        command = prepare(base, here, name)
        by_change, start = isinstance(instant, int), time.time_ns()
        outcome = killed_at(command, here, instant) if by_change else killed_after(command, instant)
        if outcome.code >= 0:
            if by_change:
                found.append(f"{instant}: exit code {outcome.code}, not killed")
            shutil.rmtree(here)  # it ended before its time
            continue
        if rng.random() < 0.5:
            torn(here, start, rng)
        again = forked.in_child(command, SECONDS)
        if again.code not in (0, 3):
            found.append(f"{instant}: exit code {again.code}: {again.err[-400:]}")
        else:
            left = ended(here)
            wrong = sorted(
                name
                for name in left.keys() | expected.keys()
                if left.get(name) != expected.get(name)
            )
            if wrong:
                found.append(f"{instant}: other content in {', '.join(wrong[:6])}")
        shutil.rmtree(here)
    assert not found, f"{len(found)} of {len(instants)} ({changes} changes):\n" + "\n".join(found)
