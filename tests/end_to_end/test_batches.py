"""`--batch` against a server with the Batch API: submitted, resumed, lost, refused."""

from __future__ import annotations

import hashlib
import json

import pytest

from bench.files import read_lines
from tests.conftest import bench, metrics
from tests.loopback_batches import batch_server
from tests.loopback_chat import chat_server, completion


def said(number, body):
    """An answer, and its probability, that depend on picture and question only.

    It holds a character at which some functions end a line.
    """
    is_yes = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()[0] % 2
    return completion(
        f"{'Yes' if is_yes else 'No'}.\u2028So it is.", {"Yes": 0.75 if is_yes else 0.25, "No": 0.2}
    )


def run(url, out, *more):
    return bench(
        "run", "--model", f"openai:m@{url}", "--suite", "pope,chair", "--data", "scenes",
        "--limit", 12, "--out", out, *more,
    )  # fmt: skip


def answers(run_folder):
    rows = {}
    for row in read_lines(run_folder / "answers.jsonl"):
        rows[row["key"]] = {name: row[name] for name in ("text", "p_yes", "finish", "image")}
    return rows


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """The run without batches, to compare with."""
    folder = tmp_path_factory.mktemp("once")
    with chat_server(said) as (url, _):
        done = run(url, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_answers_are_those_of_a_run_without_batches(tmp_path, at_once):
    with batch_server(said) as server:
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.batches) == 2 and len(server.chats) == 1, "one question tries the server"
        assert {batch["completion_window"] for batch in server.batches.values()} == {"24h"}
        for name in ("pope", "chair"):
            assert answers(tmp_path / "run" / name) == answers(at_once / name)
            assert metrics(tmp_path / "run" / name) == metrics(at_once / name)
        assert server.chats[0] in [row["body"] for row in server.requests()]
        # Another start asks nothing.
        files = len(server.files)
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0 and "nothing was asked" in done.stderr
        assert (len(server.files), len(server.batches), len(server.chats)) == (files, 2, 1)


def test_all_batches_are_under_way_before_the_first_ends(tmp_path):
    """A suite of ten benchmarks takes a day, not ten."""
    begun = []

    def counting(number, body):
        begun.append(len(server.batches))
        return said(number, body)

    with batch_server(counting) as server:
        done = run(server.url, tmp_path / "run", "--batch")
    assert done.returncode == 0, done.stderr
    # The first one is the question that tries the server.
    assert begun[0] == 0 and set(begun[1:]) == {2}


def test_a_start_after_a_kill_waits_for_the_batch_and_pays_nothing_again(
    tmp_path, at_once, monkeypatch
):
    with batch_server(said) as server:
        server.looks = 10**9

        def killed(seconds):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("bench.models.openai_batch.sleep", killed)
            assert run(server.url, tmp_path / "run", "--batch").returncode == 130
        assert (
            len(server.batches) == 2 and not (tmp_path / "run" / "pope" / "answers.jsonl").exists()
        )
        sent = len(server.requests())
        server.looks = 1
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.requests()) == sent and len(server.chats) == 1
    assert answers(tmp_path / "run" / "pope") == answers(at_once / "pope")


def test_a_batch_whose_replies_were_half_recorded_is_read_again(tmp_path, at_once):
    with batch_server(said) as server:
        assert run(server.url, tmp_path / "run", "--batch").returncode == 0
        file = tmp_path / "run" / "pope" / "answers.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:2]) + lines[2][:25])
        (file.parent / "metrics.json").unlink()
        batches = tmp_path / "run" / "pope" / "batches.jsonl"
        batches.write_text(batches.read_text().splitlines(keepends=True)[0])
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.batches) == 2 and len(server.chats) == 1
    assert answers(tmp_path / "run" / "pope") == answers(at_once / "pope")


def test_what_an_expired_batch_lacks_is_asked_at_the_next_start(tmp_path, at_once):
    with batch_server(said) as server:
        server.ends, server.lost = "expired", 2
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 3
        assert "the batch ended without it (expired)" in done.stderr
        assert metrics(tmp_path / "run" / "pope")["accuracy", "all"]["unscored"] > 0
        server.ends, server.lost = "completed", 0
        before = len(server.requests())
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.requests()) == before + 4, "two of each benchmark"
    assert answers(tmp_path / "run" / "pope") == answers(at_once / "pope")


def test_a_request_that_fails_costs_its_own_sample_only(tmp_path):
    def sometimes(number, body):
        if server.batches and number == 1:
            return (
                500,
                "application/json",
                json.dumps({"error": {"message": "overloaded"}}).encode(),
            )
        return said(number, body)

    with batch_server(sometimes) as server:
        done = run(server.url, tmp_path / "run", "--batch")
    assert done.returncode == 3
    assert "the server says: overloaded" in done.stderr
    assert len(answers(tmp_path / "run" / "chair")) == 11


def test_a_batch_that_the_server_refuses_says_why_and_can_be_sent_again(tmp_path):
    with batch_server(said) as server:
        server.ends = "failed"
        server.errors = [
            {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
        ]
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 2 and "Enqueued token limit reached" in done.stderr
        server.ends = "completed"
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr


def test_a_server_without_batches_says_so_after_one_question(tmp_path):
    with batch_server(said) as server:
        server.has_batches = False
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 2 and "The server has no Batch API" in done.stderr, done.stderr
        assert len(server.chats) == 1


def test_large_runs_are_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.models.openai_batch.MOST_REQUESTS", 3)
    with batch_server(said) as server:
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        sizes = []
        for batch in server.batches.values():
            sizes.append(len(server.files[batch["input_file_id"]].splitlines()))
    assert max(sizes) == 3 and len(sizes) > 3


def test_batches_are_for_servers_only():
    done = bench("run", "--model", "llava-tiny", "--suite", "pope", "--data", "scenes", "--batch")
    assert done.returncode == 2 and "--batch does nothing for a local model" in done.stderr


@pytest.mark.parametrize(
    "garbled",
    [
        b"[" * 5000,
        b"[]",
        b'{"choices": {}}',
        b'{"id": "b", "status": "x"}',
        b'{"id": "b", "status": "completed", "output_file_id": "f\\u0001"}',
        b'{"id": "b\\n", "status": "in_progress"}',
    ],
)
def test_garbled_replies_about_batches_end_none_and_send_none_twice(
    tmp_path, at_once, monkeypatch, garbled
):
    """Of each batch the reply to its sending, and the first look at it."""
    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.01,))
    monkeypatch.setattr("bench.models.openai_batch.PAUSES", (0.01,))
    replies = []

    def rewritten(body):
        replies.append(body)
        is_batch = b'"input_file_id"' in body
        return garbled if is_batch and len(replies) in (1, 2, 3, 5) else body

    with batch_server(said) as server:
        server.rewritten = rewritten
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.batches) == 2 and len(server.chats) == 1
    for name in ("pope", "chair"):
        assert answers(tmp_path / "run" / name) == answers(at_once / name)


def test_a_batch_in_a_state_that_is_none_has_not_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.01,))
    with batch_server(said) as server:
        server.ends = "done"
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 2 and "its status is 'done'" in done.stderr
        server.ends = "completed"
        for batch in server.batches.values():
            batch["status"] = "in_progress"
        done = run(server.url, tmp_path / "run", "--batch")
        assert done.returncode == 0, done.stderr
        assert len(server.batches) == 2 and len(server.chats) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"choices": {"a": 1}},
        {"choices": [{"message": {"content": {"x": 1}}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": {"x": 1}}}]},
    ],
)
def test_a_body_that_is_no_completion_is_no_answer(tmp_path, monkeypatch, body):
    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.0,))
    reply = (200, "application/json", json.dumps(body).encode())
    deep = (200, "application/json", b"[" * 5000 + b"]" * 5000)
    with chat_server(lambda number, _: deep if number % 3 == 0 else reply) as (url, _):
        done = run(url, tmp_path / "run")
    assert done.returncode in (2, 3) and "Traceback" not in done.stderr
    assert "the reply is not a chat completion" in done.stderr


def test_what_is_no_probability_and_no_count_is_left_out(tmp_path):
    def strange(number, body):
        status, kind, content = completion("Yes", {"Yes": 1.5, "No": 0.2}, usage=(3, 4))
        content = json.loads(content)
        content["usage"] = {"prompt_tokens": -1, "completion_tokens": "many", "total_tokens": []}
        return status, kind, json.dumps(content).encode()

    with chat_server(strange) as (url, _):
        done = run(url, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for row in read_lines(tmp_path / "run" / "pope" / "answers.jsonl"):
        assert (row["tokens"], row["p_yes"], row["p_no"]) == (0, None, None)
