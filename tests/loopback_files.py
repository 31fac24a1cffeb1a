"""A server of files on loopback."""

from __future__ import annotations

import http.server
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from tests.loopback import serving


@contextmanager
def serve(files: dict[str, bytes], announced: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A server of these files; `announced` more bytes than it sends. Yields address and requests."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(unquote(self.path).lstrip("/"))
            content = files.get(requested[-1])
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"") + announced))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}", requested
