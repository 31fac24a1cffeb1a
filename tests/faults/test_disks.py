"""A command whose disk is full or read-only says so in one clear error, and goes on when there is room again.

A disk is full by a limit on the size of files, beyond which each write fails, whatever writes; or it is a small disk of
its own (tmpfs), where whoever runs the tests may mount one.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import forked
from tests.faults.commands import NAMES, SECONDS, differing, ended, prepare

pytestmark = pytest.mark.slow


class Disk:
    """A disk in memory, of a size that changes, at a folder.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(
            ("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder), capture_output=True
        )
        self.is_mounted = done.returncode == 0

    def remount(self, options: str) -> None:
        subprocess.run(
            ("mount", "-o", f"remount,{options}", self.folder), check=True, capture_output=True
        )

    def used(self) -> int:
        """Bytes."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def unmount(self) -> None:
        if self.is_mounted:
            subprocess.run(("umount", self.folder), check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    if not disk.is_mounted:
        pytest.skip("a disk can be mounted by root alone")
    yield disk
    disk.unmount()


def with_room(command: Callable[[], None], size: int) -> forked.Outcome:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        command()

    return forked.in_child(limited, SECONDS)


@pytest.mark.parametrize("name", NAMES)
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
        fault = fault_of(outcome, command, here, expected)
        if fault:
            found.append(f"{size}: {fault}")
        shutil.rmtree(here)
    assert not found, f"{len(found)} of {asked}:\n" + "\n".join(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_on_a_small_disk_says_so_and_goes_on(base, disk, name, pytestconfig):
    from bench.cli import main  # noqa: F401

    here = disk.folder / "here"
    command = prepare(base, here, name)
    before = disk.used()
    assert forked.in_child(command, SECONDS).code in (0, 3)
    needed = disk.used() - before
    expected = ended(here)
    shutil.rmtree(here)
    rng = random.Random(pytestconfig.getoption("--fault-seed"))
    asked = max(4, pytestconfig.getoption("--faults") // 50)
    found = []
    for number in range(asked):
        command = prepare(base, here, name)
        room = rng.randrange(needed + 1)
        disk.remount("ro" if number == 0 else f"size={before + room}")
        outcome = forked.in_child(command, SECONDS)
        disk.remount("rw,size=1g")
        fault = fault_of(outcome, command, here, expected)
        if fault:
            found.append(f"{room if number else 'read-only'}: {fault}")
        shutil.rmtree(here)
    assert not found, f"{len(found)} of {asked}:\n" + "\n".join(found)


def fault_of(
    outcome: forked.Outcome, command: Callable[[], None], here: Path, expected: dict[str, Any]
) -> str | None:
    """What is wrong with how a command ended without room, or ends with it; None if nothing is."""
    if "Traceback" in outcome.err or outcome.code == 70 or outcome.code < 0:
        return f"exit code {outcome.code}: {outcome.err[-500:]}"
    again = forked.in_child(command, SECONDS)
    if again.code in (0, 3):
        wrong = differing(ended(here), expected)
        return f"other content in {', '.join(wrong[:6])}" if wrong else None
    # What was finished without more room may refuse to be made twice.
    return None if outcome.code in (0, 3) else f"then exit code {again.code}: {again.err[-300:]}"
