"""`litellm:…`: the real package against a server on loopback that speaks Anthropic's protocol."""

from __future__ import annotations

import importlib.util
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from tests.conftest import bench, metrics
from tests.loopback import send, serving

HAS_LITELLM = importlib.util.find_spec("litellm") is not None
needs_litellm = pytest.mark.skipif(not HAS_LITELLM, reason="litellm is not installed")
CLAUDE = "litellm:anthropic/claude-of-loopback"


def message(text, stop_reason="end_turn"):
    """A reply of Anthropic's Messages API."""
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-of-loopback",
        "content": [{"type": "text", "text": text}], "stop_reason": stop_reason,
        "stop_sequence": None, "usage": {"input_tokens": 500, "output_tokens": 2},
    }  # fmt: skip
    return 200, body


@contextmanager
def anthropic_server(reply):
    """Serves `reply(number of the request, its body)`; yields the URL and what was asked."""
    seen = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.append(body | {"key": self.headers.get("x-api-key"), "path": self.path})
                number = len(seen)
            status, content = reply(number, body)
            send(self, content, status)

        def log_message(self, *_): ...

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}", seen


def run(model, pictures, out, *more):
    return bench(
        "run", "--model", model, "--suite", "pope", "--data", pictures, "--out", out, *more
    )


def said(number, body):
    return message("Yes." if "dog" in str(body["messages"][-1]["content"][-1]) else "No.")


@needs_litellm
def test_another_providers_protocol_gives_the_same_run(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    with anthropic_server(said) as (url, seen):
        done = run(f"{CLAUDE}@{url}", pictures, tmp_path, "--price", "3,15")
    assert done.returncode == 0, done.stderr
    assert {request["path"] for request in seen} == {"/v1/messages"}
    assert {request["key"] for request in seen} == {"secret-key"}
    image, question = seen[-1]["messages"][0]["content"]
    assert image["source"]["type"] == "base64" and image["source"]["data"]
    assert question["text"].startswith("Is there a")
    record = json.loads((tmp_path / "pope" / "run.json").read_text())
    assert record["model"]["kind"] == "litellm"
    assert "secret-key" not in json.dumps(record)
    # Claude gives no log-probabilities; that is told and nothing else is lost.
    assert record["negotiated"] == ["the server refuses logprobs: there is no P(yes)"]
    row = metrics(tmp_path / "pope")["accuracy", "all"]
    assert (row["n"], row["unscored"]) == (row["n"], 0) and row["n"] > 0
    assert "prompt and" in done.stderr and "generated tokens: 0." in done.stderr


@needs_litellm
def test_what_a_provider_does_not_take_is_left_out_and_told(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    with anthropic_server(said) as (url, seen):
        done = run(
            f"{CLAUDE}@{url}", pictures, tmp_path, "--limit", 2,
            "--decoding", "sample:temperature=0.7,seeds=2",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {request["temperature"] for request in seen} == {0.7}
    record = json.loads((tmp_path / "pope" / "run.json").read_text())
    assert "the server takes no seed: a draw cannot be repeated" in record["negotiated"]


@needs_litellm
def test_overload_is_waited_for_and_a_cut_off_answer_is_counted(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    monkeypatch.setattr("bench.chat.BUSY_PAUSES", (0.01,) * 8)

    def busy(number, body):
        if number % 3 == 0:
            return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        return message("No, there", "max_tokens")

    with anthropic_server(busy) as (url, _):
        done = run(f"{CLAUDE}@{url}", pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    row = metrics(tmp_path / "pope")["accuracy", "all"]
    assert row["unscored"] == 0 and row["cut_off"] == row["n"] > 0


@needs_litellm
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (CLAUDE, "ANTHROPIC_API_KEY is not set"),
        ("litellm:nobody-knows-this/model", "litellm knows no provider"),
        ("litellm:claude-of-loopback", "litellm knows no provider"),
    ],
)
def test_a_missing_key_or_provider_is_told_before_the_first_question(
    pictures, tmp_path, monkeypatch, model, words
):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    done = run(model, pictures, tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert "remedy:" in done.stderr


@needs_litellm
def test_a_refused_key_ends_the_run_with_the_reason(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER", "wrong-key")
    refusal = {"type": "error", "error": {"type": "authentication_error", "message": "bad key"}}
    with anthropic_server(lambda number, body: (401, refusal)) as (url, seen):
        done = run(f"{CLAUDE}@{url}", pictures, tmp_path, "--api-key-env", "OTHER")
    assert done.returncode == 2 and "bad key" in done.stderr
    assert {request["key"] for request in seen} == {"wrong-key"}


@pytest.mark.skipif(HAS_LITELLM, reason="litellm is installed")
def test_without_the_package_the_remedy_is_named(pictures, tmp_path):
    done = run(CLAUDE, pictures, tmp_path)
    assert done.returncode == 2 and "synth-align[litellm]" in done.stderr
