"""What every command shows a person: errors, remarks, a progress bar."""

from __future__ import annotations

import errno
import functools
import io
import logging
import os
import re
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click
import typer

from bench import __version__
from bench.errors import BenchError, os_reason
from bench.escaping import uncoloured, visible
from bench.types import Progress

LINE_EVERY = {0: 60.0, 1: 5.0}  # seconds between lines of progress without a terminal, by verbosity
QUIET, USUAL, VERBOSE = -1, 0, 1
LONGEST = 2000  # characters of a remark, or of a part of an error: what was read may be in it
LOOK_EVERY = 0.5  # seconds between looks at what native code has printed
CLOSED_PIPE = 141  # as shells report it
# Of disks, permissions and names, which no code of ours can mend.
OF_THE_SYSTEM = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES),
        *(errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
        errno.EEXIST,
    }
)
OS_ERROR = re.compile(r"\(os error (\d+)\)")
INTERNAL_ERROR = 70  # as in BSD's sysexits


def show_error(error: BenchError) -> None:
    """Fact, reason and remedy on standard error."""
    parts = {"error: ": error.fact, "reason: ": error.reason, "remedy: ": error.remedy}
    for label, part in parts.items():
        if part:
            print(f"{label:>8}{visible(_cut(part))}", file=sys.stderr)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


class _Verbosity:
    """How much is said of what goes on: QUIET, USUAL or VERBOSE."""

    level = USUAL


def set_verbosity(level: int) -> None:
    """QUIET leaves out remarks and progress, VERBOSE tells of progress more often."""
    _Verbosity.level = level


def note(text: str) -> None:
    """A remark on standard error, so that standard output stays for results."""
    if _Verbosity.level > QUIET:
        print(visible(_cut(text)), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A result on standard output; what names and answers hold is shown and not obeyed."""
    print(visible(text), flush=True)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Progress]:
    """A live bar with rate and time left on a terminal's standard error; else a line a minute."""
    if _Verbosity.level == QUIET:
        yield lambda amount: None
        return
    if not sys.stderr.isatty():
        with _progress_lines(title, total) as progress:
            yield progress
        return
    # rich takes a tenth of a second to import, which a pipe need not pay.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "–/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("spent"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def _progress_lines(title: str, total: int) -> Iterator[Progress]:
    """A line now and then: how much of how many, how fast, how long it will take."""
    counted = _Counted()
    ended = threading.Event()

    def tell() -> None:
        # Nothing is said of what is done within the first interval.
        while not ended.wait(LINE_EVERY[_Verbosity.level]):
            note(counted.line(title, total))

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield counted.advance
    finally:
        ended.set()
        teller.join()


class _Counted:
    """What is done, and since when: what was there at the start is no work of this one."""

    def __init__(self) -> None:
        self.done = 0
        self.first: tuple[float, int] | None = None  # when the first amount came, and what it was

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.first is None:
            self.first = (time.monotonic(), self.done)

    def line(self, title: str, total: int) -> str:
        """Such as "pope: asking: 1,200 of 5,341, 45.2/s, 2 min left"."""
        text = f"{title}: {self.done:,} of {total:,}"
        if self.first is None:
            return text
        started, already = self.first
        rate = (self.done - already) / max(1e-9, time.monotonic() - started)
        if not rate:
            return f"{text}, none yet in this start"
        left = (total - self.done) / rate
        return f"{text}, {rate:.3g}/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    """Such as "40 s", "12 min", "3.5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a BenchError into its three lines and exit code 2, and warnings into plain remarks.

    Any other exception is a fault of ours: it ends with its traceback and exit code 70.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        _prepare_output()
        with _results_alone():
            _run_reporting(command, *args, **kwargs)

    return wrapped


def _run_reporting(command: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    try:
        with _flushed_output(), warnings.catch_warnings():
            # Libraries address these to the developers who call them, not to our users.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.showwarning = _show_warning
            command(*args, **kwargs)
    except BenchError as error:
        show_error(error)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:  # people stop runs that take days
        note("Interrupted. What was answered is kept: the same command continues.")
        raise typer.Exit(130) from error
    except (typer.Exit, typer.Abort, click.ClickException):
        raise
    except BrokenPipeError as error:
        # `bench … | head` has read enough.
        _write_no_more()
        raise typer.Exit(CLOSED_PIPE) from error
    except Exception as error:
        of_the_system = _as_os_error(error)
        refusal = None if of_the_system is None else _refusal_of_the_system(of_the_system)
        if refusal is not None:
            show_error(refusal)
            raise typer.Exit(2) from error
        # Exit code 1 is a failed gate's: a fault of ours must never look like one.
        traceback.print_exc()
        note(
            f"\nThis is a fault of synth-align {__version__}, not of what you typed. "
            "What was answered is kept.\n"
            "Please report it with the lines above and the command."
        )
        raise typer.Exit(INTERNAL_ERROR) from error


@contextmanager
def _results_alone() -> Iterator[None]:
    """What a library's native code prints goes to standard error: a program reads the results."""
    stream = sys.stdout
    try:
        is_own = stream.fileno() == 1
    except (OSError, ValueError):  # it is closed, or a test's
        is_own = False
    if not is_own:
        yield
        return
    results = os.dup(1)
    # A file and no pipe: native code may hold Python's lock until a full pipe is read.
    with _file_for_native_code() as printed:
        os.dup2(printed.fileno(), 1)
        is_over = threading.Event()
        shown = threading.Thread(target=_show_printed, args=(printed, is_over), daemon=True)
        shown.start()
        sys.stdout = os.fdopen(results, "w", encoding=stream.encoding, errors=stream.errors)
        try:
            yield
        finally:
            os.dup2(results, 1)
            with suppress(OSError, ValueError):
                sys.stdout.close()
            sys.stdout = stream
            is_over.set()
            shown.join()


def _file_for_native_code() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no room
        return Path(os.devnull).open("w+b")


def _show_printed(printed: IO[bytes], is_over: threading.Event) -> None:
    """Shows lines as they come; names of a checkpoint's may be in them."""
    read, rest, is_last = 0, b"", False
    while not is_last:
        is_last = is_over.wait(LOOK_EVERY)
        while block := os.pread(printed.fileno(), 65536, read):
            read += len(block)
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                _show_line(line)
    if rest:
        _show_line(rest)


def _show_line(line: bytes) -> None:
    with suppress(OSError, ValueError):  # nobody reads it
        print(uncoloured(_cut(line.decode(errors="backslashreplace"))), file=sys.stderr)


def _prepare_output() -> None:
    """A terminal that knows no ± shows a question mark; nobody reads what was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    logging.setLogRecordFactory(_ShownRecord)


class _ShownRecord(logging.LogRecord):
    """What a library logs may hold names of a checkpoint's."""

    def getMessage(self) -> str:  # noqa: N802
        return uncoloured(super().getMessage())


@contextmanager
def _flushed_output() -> Iterator[None]:
    """What cannot be written is told by us, and not by the interpreter when it ends."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _as_os_error(error: Exception) -> OSError | None:
    """The system's error that this one is, or that a library has put into words; None if none."""
    if isinstance(error, OSError):
        return error
    # safetensors: "I/O error: No space left on device (os error 28)"
    match = OS_ERROR.search(str(error))
    if match is None:
        return None
    number = int(match[1])
    return OSError(number, os.strerror(number))


def _refusal_of_the_system(error: OSError) -> BenchError | None:
    """What the system does not let us do; None if the error may be a fault of ours."""
    # An error of a file names it.
    if error.filename is None and not _can_write():
        return unwritable_output(error)
    if error.errno not in OF_THE_SYSTEM:
        return None
    return BenchError(
        f"{error.filename or 'A file'} cannot be used.",
        f"The system says: {os_reason(error)}.",
        "Free space or change the permissions, then start the same command again: "
        "what was computed is kept.",
    )


def unwritable_output(error: OSError) -> BenchError:
    """What is said if standard output takes nothing; it is not tried again."""
    _write_no_more()
    return BenchError(
        "Standard output cannot be written to.",
        f"{os_reason(error)}.",
        "What was computed is kept: `bench score RUN` shows a run's figures again.",
    )


def _can_write() -> bool:
    """Whether standard output takes another line. What it refused is not in its buffer any more."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _write_no_more() -> None:
    """What is left in the buffer goes nowhere when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"warning: {message}")
