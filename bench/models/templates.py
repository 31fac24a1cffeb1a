"""Chat templates: programs that a checkpoint brings, in jinja's sandbox and with a time limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.errors import BenchError, one_line

LONGEST = 20  # seconds; a template takes milliseconds


def by_template(
    renderer: Any,
    messages: Sequence[Mapping[str, Any]],
    error: type[BenchError],
    remedy: str,
    **options: Any,
) -> Any:
    """What `apply_chat_template` makes of a conversation.

    Args:
        renderer: A processor or tokenizer.
        messages: The conversation.
        error: What is raised.
        remedy: What the user can do.
        options: Further arguments of `apply_chat_template`.

    Raises:
        BenchError: The template is broken, does not end or writes nothing.
    """
    try:
        with _time_limit(LONGEST):
            written = renderer.apply_chat_template(messages, **options)
        if not written:
            raise ValueError("it writes nothing")
        return written
    except Exception as fault:  # a program of somebody raises anything
        raise error(
            "The checkpoint's chat template cannot be rendered.",
            f"{type(fault).__name__}: {one_line(fault)}",
            remedy,
        ) from fault


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer. In another thread than the main one it cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError(f"it did not end within {seconds:g} seconds")

    earlier = signal.signal(signal.SIGALRM, end)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Somebody else's alarm goes on.
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, earlier)
