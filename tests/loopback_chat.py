"""A real HTTP server on loopback that speaks the OpenAI chat protocol, well or badly."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import serving

Reply = tuple[int, str, bytes]


HANG_UP, CUT = 0, -1  # in place of a status: no reply at all; half of a reply


def completion(
    text: Any,
    first: dict[str, float] | None = None,
    usage: tuple[int, int] | None = None,
    finish: str = "stop",
) -> Reply:
    """A well-formed chat completion, maybe with the probabilities of the first token and the
    tokens used."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
    }
    if first is not None:
        top = [
            {"token": token, "logprob": math.log(p), "bytes": None} for token, p in first.items()
        ]
        choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [choice],
    }
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return 200, "application/json", json.dumps(body).encode()


@contextmanager
def chat_server(
    reply: Callable[[int, dict[str, Any]], Reply], port: int = 0
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serves `reply(number of the request, its body)`; yields the base URL and the bodies seen."""
    seen: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                about = {name: self.headers.get(name) for name in ("authorization", "api-key")}
                seen.append(body | about | {"path": self.path})
                number = len(seen)
            status, kind, content = reply(number, body)
            if status == HANG_UP:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status if status > 0 else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if status > 0 else content[: len(content) // 2])

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler, port) as own_port:
        yield f"http://127.0.0.1:{own_port}/v1", seen
