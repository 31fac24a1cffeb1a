"""What every command shows a person: errors, remarks, a progress bar."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import typer

from bench import __version__
from bench.errors import BenchError
from bench.types import Progress

CLOSED_PIPE = 141  # as shells report it
INTERNAL_ERROR = 70  # as in BSD's sysexits


def show_error(error: BenchError) -> None:
    """Fact, reason and remedy on standard error."""
    parts = {"error: ": error.fact, "reason: ": error.reason, "remedy: ": error.remedy}
    for label, part in parts.items():
        if part:
            print(f"{label:>8}{part}", file=sys.stderr)


def note(text: str) -> None:
    """A remark on standard error, so that standard output stays for results."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Progress]:
    """A live bar with rate and time left on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda amount: None
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


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a BenchError into its three lines and exit code 2, and warnings into plain remarks.

    Any other exception is a fault of ours: it ends with its traceback and exit code 70.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
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
            # `bench … | head` has read enough; nothing more may be flushed at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from error
        except Exception as error:
            # Exit code 1 is a failed gate's: a fault of ours must never look like one.
            traceback.print_exc()
            note(
                f"\nThis is a fault of synth-align {__version__}, not of what you typed. "
                "What was answered is kept.\n"
                "Please report it with the lines above and the command."
            )
            raise typer.Exit(INTERNAL_ERROR) from error

    return wrapped


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"warning: {message}")
