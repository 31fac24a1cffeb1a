"""Chat templates: programs of a checkpoint, in jinja's sandbox, limited in time and memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line

LONGEST = 20  # seconds; a template takes milliseconds
LARGEST = 2**30  # bytes; a template takes kilobytes
VIRTUAL_PAGES = Path("/proc/self/statm")  # its first number; Linux has it


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
        BenchError: The template is broken, does not end, writes gigabytes or nothing.
    """
    try:
        with _time_limit(LONGEST), _memory_limit(LARGEST):
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


@contextmanager
def _memory_limit(size: int) -> Iterator[None]:
    """Raises MemoryError in what asks for more, where the system knows how much there is now."""
    if not VIRTUAL_PAGES.is_file():
        yield
        return
    import resource  # not everywhere

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(VIRTUAL_PAGES.read_text(encoding="ascii").split()[0])
    limits = [pages * resource.getpagesize() + size]
    limits += [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    except MemoryError:
        raise MemoryError(f"it asked for more than {size / 2**30:g} GiB of memory") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
