"""`bench view`: the report's page from run folders as they are now, also while a run goes on.

One process, standard library, read-only, on this machine only. The address holds a token, so that
no other user and no other page of the browser can read it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.errors import BenchError, os_reason
from bench.escaping import visible
from bench.runs.run import Run, find_runs
from bench.terminal import note
from bench.types import Metric, Score
from leaderboards.board import board_of
from reports.page import BESIDE, jpeg, opened, page_html, thumbnail
from reports.page_data import Progress, RunSamples, page_data
from reports.report import gather

HOST = "127.0.0.1"
Reopen = Callable[[Run], RunSamples | None]


class ViewError(BenchError):
    """A view that cannot be served."""


class UnfinishedRun(Run):
    """A run that has answers and no figures yet."""

    @cached_property
    def metrics(self) -> list[Metric]:
        """None yet."""
        return []

    @cached_property
    def scores(self) -> dict[str, Score]:
        """None yet."""
        return {}


class LiveView:
    """The page of some folders, made anew when their files have changed.

    Args:
        folders: Runs, or folders of runs; the first one's are what the others are compared with.
        reopen: Gives what a run asked, None if its data is not at hand.
    """

    def __init__(self, folders: Sequence[Path], reopen: Reopen) -> None:
        self.folders = folders
        self.reopen = reopen
        self._lock = threading.Lock()
        self._made: tuple[str, str] = ("", "")  # state, page
        self._images: list[Path] = []
        self._thumbnails: dict[Path, str | None] = {}

    def state(self) -> str:
        """What tells whether anything has changed since."""
        digest = hashlib.sha256()
        for folder in self.folders:
            for file in sorted(folder.glob("**/*.json*")):
                try:
                    known = file.stat()
                except OSError:  # replaced just now
                    continue
                digest.update(f"{file} {known.st_mtime_ns} {known.st_size}\n".encode())
        return digest.hexdigest()[:16]

    def page(self) -> str:
        """The page as of now."""
        # Two tabs that reload must not read everything twice.
        with self._lock:
            state = self.state()
            if self._made[0] != state:
                self._made = (state, self._make(state))
            return self._made[1]

    def image(self, number: int) -> bytes | None:
        """A picture at full size, None if there is none of that number."""
        if not 0 <= number < len(self._images):
            return None
        image = opened(self._images[number])
        return None if image is None else jpeg(image)

    def _make(self, state: str) -> str:
        gathered = gather(self.folders)
        runs, run_samples, progress = list(gathered.runs), [], []
        for run in [*runs, *self._unfinished()]:
            asked = self._asked(run)
            if asked is None:
                continue
            run_samples.append(asked)
            if isinstance(run, UnfinishedRun):
                questions = len(set(asked.key_of.values()))
                progress.append(Progress(run.benchmark, run.label, len(run.answers), questions))
        images: dict[str, Path] = {}
        for asked in run_samples:
            images |= asked.images
        self._images = list(images.values())
        data = page_data(
            board_of(runs), runs, run_samples, gathered.comparisons, (), list(images), progress
        )
        data["pictures"] = [self._picture(*item) for item in enumerate(self._images)]
        data["live"] = state
        return page_html(data)

    def _asked(self, run: Run) -> RunSamples | None:
        """What a run asked, None if its data is not at hand or it was damaged."""
        try:
            _ = run.answers, list(run.store.all_verdicts())
            return self.reopen(run)
        except BenchError as error:
            note(f"the answers of {run.folder} are left out: {error.fact} {error.reason}")
            return None

    def _unfinished(self) -> list[UnfinishedRun]:
        unfinished = []
        for folder in self.folders:
            try:
                runs = find_runs(folder)
            except BenchError:  # nothing there yet
                continue
            for run in runs:
                if not run.finished and run.store.answers_file.is_file():
                    unfinished.append(UnfinishedRun(run.folder))
        return unfinished

    def _picture(self, number: int, path: Path) -> list[str] | None:
        if path not in self._thumbnails:
            image = opened(path)
            self._thumbnails[path] = None if image is None else thumbnail(image)
        small = self._thumbnails[path]
        return None if small is None else [small, f"{BESIDE}/{number}.jpg"]


def server_of(view: LiveView, port: int) -> tuple[ThreadingHTTPServer, str]:
    """A server that is not started yet, and its address.

    Args:
        view: What it shows.
        port: The port, 0 for a free one.

    Raises:
        ViewError: The port cannot be taken.
    """
    token = secrets.token_urlsafe(16)
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(view, token))
    except (OSError, OverflowError) as error:
        raise ViewError(
            f"Port {port} cannot be used.",
            f"{os_reason(error) if isinstance(error, OSError) else error}.",
            "Name another with --port, or 0 for any.",
        ) from error
    server.daemon_threads = True
    return server, f"http://{HOST}:{server.server_address[1]}/{token}/"


def _handler(view: LiveView, token: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            head, _, rest = self.path.removeprefix("/").partition("/")
            if not secrets.compare_digest(head.encode(), token.encode()):
                self.send_error(404)
            elif rest == "":
                self._send_page()
            elif rest == "state":
                self._send("text/plain", view.state().encode())
            else:
                folder, _, name = rest.partition("/")
                number = name.removesuffix(".jpg")
                is_image = folder == BESIDE and number.isdecimal() and len(number) < 9
                content = view.image(int(number)) if is_image else None
                if content is None:
                    self.send_error(404)
                else:
                    self._send("image/jpeg", content)

        def _send_page(self) -> None:
            try:
                page = view.page()
            except BenchError as error:  # it is damaged beyond what can be left out
                self._send("text/plain; charset=utf-8", visible(str(error)).encode())
            else:
                self._send("text/html; charset=utf-8", page.encode())

        def _send(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            # The token must not travel to where a link leads.
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the token would stand in a log."""

    return Handler
