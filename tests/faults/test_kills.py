"""A command that is killed before any change of a file, or at any instant, ends as an undisturbed one.

Each command runs in a fork that kills itself: before its n-th change of a file, for every n that there is (as often as
`--faults` allows), or after a random time; then the last line that it appended is torn. The same command again must
end as if nothing had been.
"""

from __future__ import annotations

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

from alignment.training.trainer import TRAINED
from tests.faults import forked
from tests.faults.commands import NAMES, SECONDS, differing, ended, prepare

pytestmark = pytest.mark.slow
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


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
        # before the figures, or the end of a training, had come to the disk before them.
        is_done = (file.parent / "manifest.json").exists() or file.name == "scores.jsonl"
        state = file.stat()
        for name in ("metrics.json", TRAINED):
            end = file.parent / name
            is_done |= end.exists() and end.stat().st_mtime_ns >= state.st_mtime_ns
        if state.st_size and state.st_mtime_ns > since and not is_done:
            growing.append((state.st_mtime_ns, file))
    if growing:
        _, file = max(growing)
        size = file.stat().st_size
        last = file.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
        os.truncate(file, size - rng.randrange(1, len(last) + 1))


@pytest.mark.parametrize("name", NAMES)
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
    # Again, with another tear of what was appended last.
    instants += [rng.randrange(changes) for _ in range(asked - len(instants))]
    instants += [rng.uniform(0.05, 3.0) for _ in range(asked // 4)]
    found, kills = [], 0
    for instant in instants:
        command = prepare(base, here, name)
        by_change, start = isinstance(instant, int), time.time_ns()
        outcome = killed_at(command, here, instant) if by_change else killed_after(command, instant)
        if outcome.code >= 0:
            if by_change:
                how = f"exit code {outcome.code}: {outcome.err[-400:]}"
                found.append(f"{instant}: not killed, {how}")
            shutil.rmtree(here)  # it ended before its time
            continue
        kills += 1
        if rng.random() < 0.5:
            torn(here, start, rng)
        again = forked.in_child(command, SECONDS)
        if again.code not in (0, 3):
            found.append(f"{instant}: exit code {again.code}: {again.err[-400:]}")
        else:
            wrong = differing(ended(here), expected)
            if wrong:
                found.append(f"{instant}: other content in {', '.join(wrong[:6])}")
        shutil.rmtree(here)
    print(f"{name}: {kills} kills, {changes} changes of files")
    assert not found, f"{len(found)} of {kills}:\n" + "\n".join(found)
