"""A server of files on loopback."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote


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

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requested
    finally:
        server.shutdown()
        server.server_close()
