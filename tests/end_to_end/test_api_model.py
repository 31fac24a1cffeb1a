"""`--model openai:…`: a real server that nobody here wrote, and one on loopback that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from bench.chat import GIVE_UP
from bench.errors import ModelError
from bench.models.openai_api import OpenAIModel, data_url
from bench.types import Request
from tests.conftest import bench, draw, metrics, run_of
from tests.loopback_chat import CUT, HANG_UP, chat_server, completion

TINY = Path(__file__).parents[2] / "bench" / "scenes" / "llava-tiny"
HTML = (200, "text/html", b"<html>busy</html>")
GARBLED = (200, "application/json", b'{"choices": [{"mess')
FAULTS = [
    (429, "application/json", b"{}"),
    (500, "text/plain", b"oops"),
    (HANG_UP, "", b""),
    HTML,
    GARBLED,
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The client's own retries, without their full waiting time."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.01,) * 6)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def said(body: dict) -> str:
    """What the loopback model answers: it depends on picture and question alone."""
    return "Yes" if hashlib.sha256(json.dumps(body["messages"]).encode()).digest()[0] % 2 else "No"


def honest(body: dict):
    return completion(
        said(body),
        {"Yes": 0.75, " yes": 0.05, "No": 0.2} if body.get("logprobs") else None,
        (500, 1),
    )


def answers(run: Path) -> dict[str, tuple]:
    rows = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows)
    return {
        row["key"]: (row["text"], row["p_yes"], row["p_no"], row["prompt_tokens"]) for row in rows
    }


def run_pope(url: str, pictures: Path, out: Path, *more: str):
    return bench(
        "run",
        "--model",
        f"openai:some-vlm@{url}",
        "--suite",
        "pope",
        "--data",
        pictures,
        "--out",
        out,
        "--json",
        *more,
    )


def test_a_third_of_the_requests_failing_moves_no_answer(pictures, tmp_path):
    with chat_server(lambda n, body: honest(body)) as (url, seen):
        clean = run_pope(url, pictures, tmp_path / "clean", "--price", "2.5,10")
        assert clean.returncode == 0, clean.stderr
        count = len(seen)
    rng = random.Random(7)
    shaky = [(CUT, *completion("Yes")[1:]), *FAULTS]
    with chat_server(lambda n, body: rng.choice(shaky) if rng.random() < 0.3 else honest(body)) as (
        url,
        seen,
    ):
        broken = run_pope(url, pictures, tmp_path / "broken")
        assert broken.returncode == 0, broken.stderr
        assert len(seen) > 1.2 * count, "a fault is retried"
    expected = answers(run_of(clean))
    assert answers(run_of(broken)) == expected and len(expected) == count, (
        "each distinct question is paid for once"
    )
    assert set(expected.values()) <= {(text, 0.8, 0.2, 500) for text in ("Yes", "No")}
    assert (
        f"{500 * count:,} prompt and {count} generated tokens: {count * (500 * 2.5 + 10) / 1e6:.2f}"
        in clean.stderr
    )
    assert ("auc", "all") in metrics(run_of(clean))
    record = (run_of(clean) / "run.json").read_text()
    assert "secret-key" not in record and json.loads(record)["model"]["server"].startswith(
        "127.0.0.1:"
    )


def test_the_picture_goes_before_the_question_as_it_lies_on_the_disk(tmp_path):
    image_file = draw(tmp_path / "a.png", 3)
    bitmap = tmp_path / "b.bmp"
    from PIL import Image

    Image.open(image_file).save(bitmap)
    (tmp_path / "c.png").write_bytes(image_file.read_bytes()[:50])
    requests = [
        Request(n, f"{n}", tmp_path / n, "Dog?", "Dog?", 9, n != "a.png", ())
        for n in ("a.png", "b.bmp", "c.png")
    ]
    with chat_server(lambda n, body: honest(body)) as (url, seen):
        got = {
            r.key: a
            for batch in OpenAIModel(f"m@{url}", {}).answer(requests, frozenset())
            for r, a in batch
        }
    assert "cannot be read" in got["c.png"].error and len(seen) == 2, (
        "a broken picture is no charge"
    )
    first = next(body for body in seen if "logprobs" not in body)
    image, text = first["messages"][0]["content"]
    assert (text["text"], first["max_tokens"], first["temperature"]) == ("Dog?", 9, 0)
    assert image["image_url"]["url"] == data_url(image_file) and got["a.png"].p_yes is None
    import base64

    assert base64.b64decode(data_url(image_file).partition(",")[2]) == image_file.read_bytes()
    assert data_url(bitmap).startswith("data:image/png;base64,")


@pytest.mark.parametrize("status", [400, 422])
def test_servers_without_logprobs_or_with_another_bound_are_understood(status, tmp_path):
    def reply(number, body):
        for name in ("logprobs", "max_tokens"):
            if name in body:
                words = (
                    f"'{name}' is not supported, use 'max_completion_tokens'"
                    if name == "max_tokens"
                    else f"no {name}"
                )
                return status, "application/json", json.dumps({"detail": words}).encode()
        return completion("No")

    requests = [
        Request(str(i), "a", draw(tmp_path / "a.png", 1), "?", "?", 9, True, ()) for i in range(5)
    ]
    with chat_server(reply) as (url, seen):
        model = OpenAIModel(f"m@{url}", {"workers": 1})
        got = [a for batch in model.answer(requests, frozenset()) for _, a in batch]
    assert [(a.text, a.p_yes, a.error) for a in got] == [("No", None, None)] * 5
    assert len(seen) == 5 + 3, "each is found out once: twenty, five and no logprobs"
    assert seen[-1]["max_completion_tokens"] == 9


def test_refusals_are_counted_and_a_dead_server_ends_the_run_with_what_was_answered(
    pictures, tmp_path
):
    refusal = json.loads(completion("")[2])
    refusal["choices"][0]["message"] |= {"content": None, "refusal": "I will not <b>look</b>."}
    refused = (200, "application/json", json.dumps(refusal).encode())
    with chat_server(
        lambda n, body: refused if "dog" in str(body["messages"]) else honest(body)
    ) as (url, _):
        done = run_pope(url, pictures, tmp_path / "a")
    assert done.returncode == 3 and "the model refuses: I will not <b>look</b>." in done.stderr
    assert metrics(run_of(done))["accuracy", "all"]["unscored"] > 0

    with chat_server(lambda n, body: honest(body) if n <= 10 else (503, "text/plain", b"")) as (
        url,
        seen,
    ):
        done = run_pope(url, pictures, tmp_path / "b")
        assert (
            done.returncode == 2 and "does not answer" in done.stderr and "is kept" in done.stderr
        )
        kept = (tmp_path / "b" / "pope" / "answers.jsonl").read_text().splitlines()
        assert len(kept) == 10 and len(seen) >= GIVE_UP
    # The same server is back: another port would be another server.
    with chat_server(lambda n, body: honest(body), urlsplit(url).port or 0) as (url, seen):
        done = run_pope(url, pictures, tmp_path / "b")
        assert done.returncode == 0 and len(seen) == len(answers(tmp_path / "b" / "pope")) - 10, (
            "no answer is paid twice"
        )


def test_a_wrong_key_no_server_and_a_wrong_protocol_are_one_clear_error(
    pictures, tmp_path, monkeypatch
):
    with chat_server(
        lambda n, body: (401, "application/json", b'{"error": {"message": "bad key"}}')
    ) as (url, seen):
        done = run_pope(url, pictures, tmp_path / "a", "--workers", "2")
        assert (
            done.returncode == 2
            and "401" in done.stderr
            and "bad key" in done.stderr
            and len(seen) <= 2
        )
        assert "secret-key" not in done.stderr
        done = run_pope(url, pictures, tmp_path / "a", "--protocol", "llava")
        assert (
            done.returncode == 2
            and "A server cannot be asked by the protocol 'llava'" in done.stderr
        )
    done = run_pope(url, pictures, tmp_path / "c")  # nobody listens there any more
    assert done.returncode == 2 and re.search(r"Connection refused|does not answer", done.stderr)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        list(OpenAIModel("gpt-4o", {}).answer([], frozenset()))


@contextmanager
def transformers_server(checkpoint: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [
        program,
        "serve",
        checkpoint,
        "--port",
        str(port),
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.mark.slow
def test_transformers_own_server_says_what_the_local_adapter_says(tmp_path):
    more = ("--suite", "pope,mmhal", "--data", "scenes", "--limit", "120")
    with transformers_server(TINY) as url:
        done = bench(
            "run",
            "--model",
            f"openai:{TINY}@{url}",
            *more,
            "--workers",
            "2",
            "--out",
            tmp_path / "server",
        )
    assert done.returncode == 0, done.stderr
    assert bench("run", "--model", TINY, *more, "--out", tmp_path / "local").returncode == 0
    for benchmark in ("pope", "mmhal"):
        rows = []
        for where in ("server", "local"):
            file = tmp_path / where / benchmark / "answers.jsonl"
            rows.append(
                {r["key"]: r["text"] for r in map(json.loads, file.read_text().splitlines())}
            )
        assert rows[0] == rows[1] and len(rows[0]) > 60
        assert Counter(rows[0].values()).most_common(1)[0][1] < 100


def response(text: str, **more) -> bytes:
    """A well-formed reply of the Responses API, with the first token's alternatives."""
    alternatives = [
        {"token": "Yes", "logprob": -0.1, "bytes": [89]},
        {"token": "No", "logprob": -2.5, "bytes": [78]},
    ]
    content = {
        "type": "output_text", "text": text, "annotations": [],
        "logprobs": [{"token": "Yes", "logprob": -0.1, "bytes": [89], "top_logprobs": alternatives}],
    }  # fmt: skip
    message = {
        "type": "message", "id": "m", "role": "assistant", "status": "completed",
        "content": [content],
    }  # fmt: skip
    thought = {
        "type": "reasoning", "id": "r",
        "summary": [{"type": "summary_text", "text": "It looks so."}],
    }  # fmt: skip
    return json.dumps(
        {
            "id": "x", "object": "response", "created_at": 0, "model": "m", "status": "completed",
            "output": [thought, message], "parallel_tool_calls": False, "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": 11, "output_tokens": 3, "total_tokens": 14,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }
        | more
    ).encode()  # fmt: skip


ONLY_RESPONSES = json.dumps(
    {"error": {"message": "This model is only supported in v1/responses and not in "
               "v1/chat/completions.", "type": "invalid_request_error"}}
).encode()  # fmt: skip


def responses_server(number, body):
    if "messages" in body:
        return 404, "application/json", ONLY_RESPONSES
    return 200, "application/json", response("Yes.")


def test_a_model_of_the_responses_api_alone_is_asked_by_it(pictures, tmp_path):
    with chat_server(responses_server) as (url, seen):
        done = bench(
            "run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures, "--limit",
            3, "--api-option", "reasoning={effort: low}", "--workers", 1, "--out", tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = [request for request in seen if request["path"].endswith("/responses")]
    assert asked and len(seen) - len(asked) == 1, "one refusal is enough"
    request = asked[0]
    kinds = [part["type"] for part in request["input"][-1]["content"]]
    assert kinds == ["input_image", "input_text"]
    assert request["max_output_tokens"] == 128 and request["temperature"] == 0
    assert request["reasoning"] == {"effort": "low"} and request["store"] is False
    rows = [json.loads(line) for line in (tmp_path / "pope/answers.jsonl").read_text().splitlines()]
    for row in rows:
        assert (row["text"], row["tokens"], row["thoughts"]) == ("Yes.", 3, "It looks so.")
        assert row["p_yes"] == pytest.approx(0.9048, abs=1e-3)
    record = json.loads((tmp_path / "pope" / "run.json").read_text())
    assert record["model"]["options"] == {"reasoning": {"effort": "low"}}
    assert "asked through the Responses API" in record["negotiated"][0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            response(" ", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "only thought, and was cut off",
        ),
        (response("x", output=[]), "nothing was said"),
        (b"<html>busy</html>", "not a chat completion"),
        (response("x", error={"code": "server_error", "message": "out of order"}), "out of order"),
    ],
)
def test_responses_without_an_answer_are_told(pictures, tmp_path, monkeypatch, reply, reason):
    def serve(number, body):
        if "messages" in body:
            return 404, "application/json", ONLY_RESPONSES
        return 200, "application/json", reply

    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.0,))
    with chat_server(serve) as (url, _):
        done = bench(
            "run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures, "--limit",
            1, "--out", tmp_path,
        )  # fmt: skip
    assert done.returncode == 3 and reason in done.stderr, done.stderr


@pytest.mark.parametrize("option", ["temperature=1", "reasoning", "x={", "=3"])
def test_an_option_that_is_none_is_told(option):
    done = bench(
        "run", "--model", "openai:m@http://127.0.0.1:9/v1", "--suite", "pope", "--api-option",
        option,
    )  # fmt: skip
    assert done.returncode == 2 and "--api-option" in done.stderr


def test_images_are_scaled_only_if_asked_and_the_record_says_so(tmp_path):
    """A picture of 90 × 60 and one of 300 × 200; the small one goes as it is."""
    sizes = []

    def reply(number, body):
        if "messages" not in body:
            return completion("Yes.")
        url = body["messages"][-1]["content"][0]["image_url"]["url"]
        sizes.append(Image.open(BytesIO(base64.b64decode(url.split(",")[1]))).size)
        return completion("Yes.")

    paths = [draw(tmp_path / "small.png", 1), draw(tmp_path / "large.png", 2, (300, 200))]
    requests = [
        Request(path.name, path.name, path, "Is it?", "Is it?", 5, False, ()) for path in paths
    ]
    with chat_server(reply) as (url, _):
        for options in ({}, {"image_side": 150}):
            model = OpenAIModel(f"m@{url}", {"workers": 1, **options})
            answers = list(model.answer(requests, frozenset()))
            assert len(answers) == 2
            assert model.describe().get("image_side") == options.get("image_side")
    assert sizes == [(90, 60), (300, 200), (90, 60), (150, 100)]


@pytest.mark.parametrize(
    ("text", "tokens", "reason", "finish"),
    [
        ("There is a dog", 5, "stop", "length"),
        ("There is a dog.", 5, "stop", "stop"),
        ("There is", 2, "stop", "stop"),
        ("There is", 2, "length", "length"),
        ("There is", 0, "stop", "stop"),
    ],
)
def test_a_server_that_calls_every_end_a_stop(tmp_path, text, tokens, reason, finish):
    """An answer of all 5 tokens that breaks off was cut off, whatever the server says."""
    path = draw(tmp_path / "picture.png", 1)
    request = Request("key", path.name, path, "What?", "What?", 5, False, ())
    with chat_server(lambda *_: completion(text, None, (9, tokens), reason)) as (url, _):
        ((_, answer),) = next(iter(OpenAIModel(f"m@{url}", {}).answer([request], frozenset())))
    assert (answer.text, answer.finish) == (text, finish)
