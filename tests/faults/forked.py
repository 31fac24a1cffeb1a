"""One command in a child of this process: limited in time and memory, unable to break anything here.

A fork shares what is imported, so that a command costs milliseconds and not the seconds of torch.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SECONDS = 20
MEMORY = 2 * 2**30  # bytes beside what this process has


class Outcome(NamedTuple):
    """How a command ended.

    Args:
        code: Its exit code; minus the signal that killed it.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        seconds: How long it took.
        memory: The most that it had in memory beside this process, in bytes.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int


def run(words: Sequence[str], seconds: int = SECONDS) -> Outcome:
    """Runs `bench WORDS` in a child."""

    def command() -> None:
        from bench.cli.main import app

        app(list(words))

    return in_child(command, seconds)


def in_child(command: Callable[[], None], seconds: int = SECONDS) -> Outcome:
    """Runs a function in a child; what it raises beside SystemExit is written as a traceback."""
    start, here = time.monotonic(), _memory()
    # Pipes and no files: what a child says is not bound by the limits that it gets.
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _become(command, out_end, err_end, seconds, here)
    texts: dict[int, str] = {}
    readers = []
    for source, end in ((out, out_end), (err, err_end)):
        os.close(end)
        readers.append(threading.Thread(target=_read_all, args=(source, texts)))
        readers[-1].start()
    _, status, usage = os.wait4(child, 0)
    for reader in readers:
        reader.join(SECONDS)
    memory = max(0, usage.ru_maxrss * 1024 - here)
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, texts[out], texts[err], time.monotonic() - start, memory)


def started(command: Callable[[], None], seconds: int = SECONDS) -> Future[Outcome]:
    """As `in_child`, without waiting for its end."""
    waiting = ThreadPoolExecutor(1)
    outcome = waiting.submit(in_child, command, seconds)
    waiting.shutdown(wait=False)
    return outcome


def _read_all(source: int, texts: dict[int, str]) -> None:
    with os.fdopen(source, "rb") as pipe:
        texts[source] = pipe.read().decode(errors="backslashreplace")


def _become(command: Callable[[], None], out: int, err: int, seconds: int, here: int) -> None:
    code = 70
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # As Python opens them where no terminal is.
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (virtual + 2 * MEMORY, virtual + 2 * MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        command()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
