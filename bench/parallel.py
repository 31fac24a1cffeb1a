"""Requests to a server, several at a time, whose answers are handed over as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from bench.errors import BenchError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Parallel(Generic[Item, Result]):
    """Does `work` on every item in threads.

    They are daemons: a process that is to end does not wait for a server that hangs, as it would
    for the threads of concurrent.futures.

    Args:
        work: What is done with an item. A BenchError that it raises is its result, and no new item
            is begun.
        items: The items.
        threads: How many are under way at a time.
    """

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> None:
        self.work, self.threads = work, min(threads, len(items))
        self._todo: SimpleQueue[tuple[int, Item]] = SimpleQueue()
        for pair in enumerate(items):
            self._todo.put(pair)
        # (index, item, result), or None from a thread that has nothing more to do.
        self._done: SimpleQueue[tuple[int, Item, Result | Exception] | None] = SimpleQueue()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begins no new item; what is under way is still handed over."""
        self._stopped.set()

    def __iter__(self) -> Iterator[tuple[Item, Result | BenchError]]:
        """Every item with its result, in the order in which they come.

        Raises what `work` raises, if it is no BenchError.
        """
        for _, item, result in self._results():
            yield item, result

    def in_order(self) -> Iterator[tuple[Item, Result | BenchError]]:
        """The same in the order of the items."""
        ready: dict[int, tuple[Item, Result | BenchError]] = {}
        following = 0
        for index, item, result in self._results():
            ready[index] = item, result
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _results(self) -> Iterator[tuple[int, Item, Result | BenchError]]:
        for _ in range(self.threads):
            threading.Thread(target=self._run, daemon=True).start()
        running = self.threads
        try:
            while running:
                done = self._done.get()
                if done is None:
                    running -= 1
                    continue
                index, item, result = done
                if isinstance(result, Exception) and not isinstance(result, BenchError):
                    raise result
                yield index, item, result  # type: ignore[misc]
        finally:
            self.stop()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                index, item = self._todo.get_nowait()
            except Empty:
                break
            try:
                self._done.put((index, item, self.work(item)))
            except Exception as error:
                self.stop()
                self._done.put((index, item, error))
        self._done.put(None)
