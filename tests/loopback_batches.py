"""A real HTTP server on loopback with OpenAI's Files and Batch API beside chat completions.

Written by OpenAI's reference: a batch is a file of requests, its output a file of responses in any order.
"""

from __future__ import annotations

import email.message
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import send, serving
from tests.loopback_chat import Reply


@dataclass
class BatchServer:
    """What was asked of the server, and how it behaves.

    Args:
        url: Its base URL.
        looks: How often a batch is looked at before it ends.
        ends: The status with which batches end.
        errors: What a failed batch says.
        lost: How many requests of a batch are in no file.
        has_batches: Whether there is a Batch API.
        rewritten: What becomes of the bytes that it sends back.
    """

    url: str = ""
    looks: int = 1
    ends: str = "completed"
    errors: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0
    has_batches: bool = True
    rewritten: Callable[[bytes], bytes] = bytes
    chats: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def requests(self) -> list[dict[str, Any]]:
        """The requests of all batches."""
        rows = []
        for batch in self.batches.values():
            content = self.files[batch["input_file_id"]]
            rows += [json.loads(line) for line in content.splitlines()]
        return rows


@contextmanager
def batch_server(reply: Callable[[int, dict[str, Any]], Reply]) -> Iterator[BatchServer]:
    """Serves `reply(number of the request, its body)`, at once or in batches."""
    state = BatchServer()
    lock = threading.Lock()

    def look_at(batch: dict[str, Any]) -> None:
        """One look: the batch ends at the last one."""
        batch["looks"] += 1
        if batch["looks"] < state.looks or batch["status"] != "in_progress":
            return
        batch["status"] = state.ends
        if state.ends == "failed":
            batch["errors"] = {"object": "list", "data": state.errors}
            return
        output, faults = [], []
        lines = state.files[batch["input_file_id"]].splitlines()
        for number, line in enumerate(lines[state.lost :], 1):
            row = json.loads(line)
            status, _, content = reply(number, row["body"])
            response = {"status_code": status, "request_id": "r", "body": json.loads(content)}
            entry = {"id": f"e{number}", "custom_id": row["custom_id"], "response": response}
            line = json.dumps(entry | {"error": None}, ensure_ascii=False)
            (output if status == 200 else faults).append(line)
        for name, rows in (("output_file_id", output[::-1]), ("error_file_id", faults)):
            if rows:
                batch[name] = f"file-{batch['id']}-{name}"
                state.files[batch[name]] = ("\n".join(rows) + "\n").encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                if self.path == "/v1/files" and state.has_batches:
                    name = f"file-{len(state.files)}"
                    state.files[name] = _file_of(self.headers["Content-Type"], data)
                    send(self, {"id": name, "object": "file", "purpose": "batch"})
                elif self.path == "/v1/batches":
                    body = json.loads(data)
                    name = f"batch_{len(state.batches)}"
                    state.batches[name] = body | {
                        "id": name,
                        "object": "batch",
                        "created_at": 0,
                        "status": "in_progress",
                        "looks": 0,
                    }
                    send(self, state.rewritten(json.dumps(state.batches[name]).encode()))
                elif self.path == "/v1/chat/completions":
                    state.chats.append(json.loads(data))
                    status, kind, content = reply(len(state.chats), json.loads(data))
                    send(self, content, status, kind)
                else:
                    send(self, {"error": {"message": "not found"}}, status=404)

        def do_GET(self) -> None:
            parts = self.path.split("/")
            with lock:
                if parts[2].startswith("batches?"):
                    send(self, {"object": "list", "data": [*state.batches.values()]})
                elif parts[2] == "batches" and parts[3] in state.batches:
                    look_at(state.batches[parts[3]])
                    send(self, state.rewritten(json.dumps(state.batches[parts[3]]).encode()))
                elif parts[2] == "files" and parts[-1] == "content":
                    content = state.rewritten(state.files[parts[3]])
                    send(self, content, kind="application/octet-stream")
                else:
                    send(self, {"error": {"message": "not found"}}, status=404)

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as port:
        state.url = f"http://127.0.0.1:{port}/v1"
        yield state


def _file_of(content_type: str, data: bytes) -> bytes:
    """The file of a multipart form."""
    header = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\n\n" + data)
    for part in header.get_payload():
        if part.get_filename():
            return part.get_payload(decode=True)
    raise AssertionError("no file was uploaded")
