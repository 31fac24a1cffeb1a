"""A command whose disk is full says so in one clear error, and goes on when there is room again.

The disk is full by a limit on the size of files: each write beyond it fails as on a full disk, whatever writes.
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.faults import forked
from tests.faults.commands import COMMANDS, SECONDS, differing, ended, prepare

pytestmark = pytest.mark.slow


def with_room(command: Callable[[], None], size: int) -> forked.Outcome:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        command()

    return forked.in_child(limited, SECONDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_room_says_so_and_goes_on(base, tmp_path, name, pytestconfig):
    from bench.cli import main  # noqa: F401

    here = tmp_path / "work" / "here"
    command = prepare(base, here, name)
    before = {file: file.stat().st_size for file in here.rglob("*") if file.is_file()}
    assert forked.in_child(command, SECONDS).code in (0, 3)
    expected = ended(here)
    sizes = [
        file.stat().st_size
        for file in here.rglob("*")
        if file.is_file() and before.get(file) != file.stat().st_size
    ]
    shutil.rmtree(here)
    rng = random.Random(pytestconfig.getoption("--fault-seed"))
    asked = max(4, pytestconfig.getoption("--faults") // 50)
    found = []
    for _ in range(asked):
        size = int(rng.choice(sizes or [1000]) * rng.random())
        command = prepare(base, here, name)
        outcome = with_room(command, size)
        if "Traceback" in outcome.err or outcome.code == 70 or outcome.code < 0:
            found.append(f"{size}: exit code {outcome.code}: {outcome.err[-500:]}")
        again = forked.in_child(command, SECONDS)
        if again.code not in (0, 3):
            # What was finished within the limit may refuse to be made twice.
            if outcome.code not in (0, 3):
                found.append(f"{size}: then exit code {again.code}: {again.err[-300:]}")
        else:
            wrong = differing(ended(here), expected)
            if wrong:
                found.append(f"{size}: other content in {', '.join(wrong[:6])}")
        shutil.rmtree(here)
    assert not found, f"{len(found)} of {asked}:\n" + "\n".join(found)
