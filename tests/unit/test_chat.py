"""Servers of many makes: what they refuse is negotiated, what they say in their own form is read."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import threading
import time

import pytest

from bench.chat import Chat, NoReply, Parallel
from bench.errors import ModelError
from tests.conftest import BENCH, ROOT
from tests.loopback_chat import chat_server, completion


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("bench.chat.BUSY_PAUSES", (0.01, 0.02))


def body(**changes):
    """A completion "Yes" whose choice has these changes."""
    content = json.loads(completion("Yes")[2])
    content["choices"][0] |= changes
    return 200, "application/json", json.dumps(content).encode()


def refusal(status, words):
    return status, "application/json", json.dumps({"error": {"message": words}}).encode()


def ask(reply, times=1, **arguments):
    with chat_server(reply) as (url, seen):
        chat = Chat(f"m@{url}", ModelError)
        replies = [chat.ask("Dog?", 0, 8, logprobs=True, **arguments) for _ in range(times)]
    return replies[-1], seen, chat


@pytest.mark.parametrize("status", [400, 403, 422])
def test_fewer_alternatives_are_asked_for_if_more_are_refused(status):
    def reply(number, asked):
        if asked.get("top_logprobs", 0) > 5:
            return refusal(status, "Cannot request more than 5 top_logprobs.")
        return completion("Yes", {"Yes": 0.9, "No": 0.1})

    answer, seen, _ = ask(reply, times=2)
    assert dict(answer.first_token) == pytest.approx({"Yes": 0.9, "No": 0.1})
    assert [request.get("top_logprobs") for request in seen] == [20, 5, 5]


def test_a_server_without_logprobs_is_asked_without_and_it_is_said_once():
    def reply(number, asked):
        if "logprobs" in asked:
            return refusal(400, "logprobs is not supported")
        return completion("Yes")

    answer, seen, chat = ask(reply, times=2)
    assert (answer.text, list(answer.first_token)) == ("Yes", [])
    assert ["logprobs" in request for request in seen] == [True, True, False, False]
    assert list(chat.negotiated) == ["the server refuses logprobs: there is no P(yes)"]


@pytest.mark.parametrize("status", [400, 422])
def test_temperature_and_the_name_of_the_limit_are_negotiated(status):
    def reply(number, asked):
        if "max_tokens" in asked:
            return refusal(status, "Use 'max_completion_tokens' instead of 'max_tokens'.")
        if "temperature" in asked:
            return refusal(status, "Unsupported value: 'temperature' does not support 0.")
        return completion("Yes")

    answer, seen, chat = ask(reply, times=2)
    assert answer.text == "Yes" and len(seen) == 4
    assert "temperature" not in seen[-1] and seen[-1]["max_completion_tokens"] == 8
    assert next(iter(chat.negotiated)).startswith("the server refuses temperature 0")


def test_tokens_of_one_form_are_summed_and_the_same_token_counts_once():
    """vLLM lists "Yes" and "▁Yes" of SentencePiece models under one text."""
    top = [
        {"token": "Yes", "logprob": math.log(0.02), "bytes": [1]},
        {"token": "Yes", "logprob": math.log(0.91), "bytes": [2]},
        {"token": "Yes", "logprob": math.log(0.91), "bytes": [2]},
        {"token": "No", "logprob": math.log(0.05), "bytes": [3]},
    ]
    answer, _, _ = ask(lambda n, b: body(logprobs={"content": [top[0] | {"top_logprobs": top}]}))
    assert sum(p for token, p in answer.first_token if token == "Yes") == pytest.approx(0.93)


YES = {"token": "Yes", "logprob": -0.2, "bytes": None}


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [YES]},
        {"content": [YES | {"top_logprobs": None}]},
        {"content": [YES | {"top_logprobs": [YES | {"logprob": None}]}]},
        {"content": []},
        None,
        [YES],
    ],
)
def test_an_answer_without_usable_alternatives_is_kept(logprobs):
    answer, seen, chat = ask(lambda n, b: body(logprobs=logprobs))
    assert (answer.text, list(answer.first_token), len(seen)) == ("Yes", [], 1)
    assert list(chat.negotiated) == ["the server gives no alternatives of the first token"]


def test_parts_of_text_are_joined_and_thoughts_are_apart():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Is it?"}]},
        {"type": "text", "text": "Ye"},
        {"type": "text", "text": "s"},
    ]
    answer, _, _ = ask(lambda n, b: body(message={"role": "assistant", "content": parts}))
    assert (answer.text, answer.thoughts) == ("Yes", "Is it?")
    message = {"role": "assistant", "content": "Yes", "reasoning_content": "Hm."}
    answer, _, _ = ask(lambda n, b: body(message=message))
    assert (answer.text, answer.thoughts) == ("Yes", "Hm.")


def test_an_error_in_a_reply_of_status_200_is_told_and_a_busy_server_is_waited_for():
    def error(code):
        content = {"error": {"message": "quota exceeded", "code": code}}
        return 200, "application/json", json.dumps(content).encode()

    answer, seen, _ = ask(lambda n, b: error(429) if n < 3 else completion("Yes"))
    assert answer.text == "Yes" and len(seen) == 3
    with pytest.raises(NoReply, match="the server says: quota exceeded"):
        ask(lambda n, b: error(402))
    with pytest.raises(NoReply, match="the server says 429: quota exceeded"):
        ask(lambda n, b: error(429))


@pytest.mark.parametrize("usage", [{"prompt_tokens": 5}, {"completion_tokens": None}, None, {}])
def test_what_a_server_does_not_count_is_not_counted(usage):
    def reply(number, asked):
        content = json.loads(completion("Yes")[2]) | {"usage": usage}
        return 200, "application/json", json.dumps(content).encode()

    answer, _, _ = ask(reply)
    assert answer.tokens == 0
    assert answer.prompt_tokens == (usage or {}).get("prompt_tokens")


@pytest.mark.parametrize(
    ("spec", "model", "url"),
    [
        ("gpt-4o", "gpt-4o", None),
        ("m@http://h:1/v1", "m", "http://h:1/v1"),
        ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet@20240620", None),
        ("claude-3@2024@https://h/v1", "claude-3@2024", "https://h/v1"),
    ],
)
def test_a_models_name_may_hold_an_at_sign(monkeypatch, spec, model, url):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    chat = Chat(spec, ModelError)
    assert (chat.model, chat.url) == (model, url)


def keys_sent(monkeypatch, **arguments):
    """What two servers, of a model and of OPENAI_BASE_URL, are sent."""
    sent = []
    with chat_server(lambda n, b: completion("Yes")) as (url, seen):
        Chat(f"m@{url}", ModelError, **arguments).ask("Dog?", 0, 8)
        sent.append(seen[0]["authorization"])
    with chat_server(lambda n, b: completion("Yes")) as (url, seen):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        Chat("m", ModelError).ask("Dog?", 0, 8)
        sent.append(seen[0]["authorization"])
    return sent


def test_a_key_goes_only_to_its_own_host(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "openais")
    monkeypatch.setenv("MINE", "mine")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert keys_sent(monkeypatch) == ["Bearer none", "Bearer openais"]
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert keys_sent(monkeypatch, key_variable="MINE")[0] == "Bearer mine"
    monkeypatch.delenv("MINE")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ModelError, match="MINE is not set"):
        keys_sent(monkeypatch, key_variable="MINE")


def test_a_refused_server_is_told_how_its_key_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "openais")
    with (
        chat_server(lambda n, b: refusal(401, "no key")) as (url, _),
        pytest.raises(ModelError, match="--api-key-env NAME"),
    ):
        Chat(f"m@{url}", ModelError).ask("Dog?", 0, 8)


@pytest.mark.parametrize(
    ("path", "sent_to"),
    [
        (
            "/openai/deployments/gpt-4o?api-version=2024-10-21",
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        ),
        ("/v1?team=a&api-version=x", "/v1/chat/completions?team=a&api-version=x"),
        ("/openai/v1/", "/openai/v1/chat/completions"),
    ],
)
def test_addresses_of_deployments_are_asked_where_they_are(monkeypatch, path, sent_to):
    """Azure's have a version behind the path, and want the key in a header of its own."""
    monkeypatch.setenv("AZURE_KEY", "secret")
    with chat_server(lambda *_: completion("Yes")) as (url, seen):
        chat = Chat(f"gpt-4o@{url.removesuffix('/v1')}{path}", ModelError, "AZURE_KEY")
        assert chat.ask("Dog?", 0, 8).text == "Yes"
    assert seen[0]["path"] == sent_to
    assert seen[0]["api-key"] == ("secret" if "?" in path else None)
    assert seen[0]["authorization"] == "Bearer secret"
    described = json.dumps(chat.describe())
    assert "secret" not in described and "?" not in described


def test_results_are_handed_over_as_they_come_or_in_order():
    def work(number):
        time.sleep(0.3 if number == 0 else 0)
        return number * 10

    as_they_come = list(Parallel(work, range(5), 3))
    assert [item for item, _ in as_they_come][-1] == 0
    assert dict(as_they_come) == {0: 0, 1: 10, 2: 20, 3: 30, 4: 40}
    assert [item for item, _ in Parallel(work, range(5), 3).in_order()] == [0, 1, 2, 3, 4]
    assert list(Parallel(work, [], 3)) == []


def test_an_error_of_ours_is_a_result_and_begins_nothing_new_any_other_is_raised():
    def work(number):
        if number == 1:
            raise ModelError("fact.", "reason.", "remedy.")
        return number

    results = dict(Parallel(work, range(50), 1))
    assert results.keys() == {0, 1} and isinstance(results[1], ModelError)

    def broken(number):
        raise KeyError(number)

    with pytest.raises(KeyError):
        list(Parallel(broken, range(3), 2))


def test_after_a_stop_what_is_under_way_is_handed_over():
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.05)
        return number

    asked = Parallel(work, range(50), 4)
    results = []
    for item, _ in asked:
        results.append(item)
        asked.stop()
    assert sorted(results) == sorted(begun) and len(begun) <= 8


@pytest.mark.parametrize("asks", ["model", pytest.param("judge", marks=pytest.mark.slow)])
def test_ctrl_c_does_not_wait_for_a_server_that_hangs(tmp_path, asks):
    """Three requests are answered and kept, the others hang for a minute."""
    release = threading.Event()

    def reply(number, asked):
        if number > 3:
            release.wait(60)
        return completion("Rating: 6" if asks == "judge" else "Yes")

    with chat_server(reply) as (url, seen):
        if asks == "model":
            what = ["--model", f"openai:m@{url}", "--suite", "pope"]
        else:
            what = ["--model", "llava-tiny", "--suite", "mmhal", "--judge", f"openai:m@{url}"]
        out = tmp_path / "run"
        command = [*BENCH, "run", *what, "--data", "scenes", "--limit", "24", "--out", str(out)]
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        kept = out / what[3] / ("answers.jsonl" if asks == "model" else "verdicts.jsonl")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(seen) >= 8 and kept.exists() and kept.read_text().count("\n") == 3:
                break
            time.sleep(0.05)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        seconds = time.monotonic() - started
        release.set()
    assert process.returncode == 130 and "Interrupted" in said
    assert seconds < 10, f"it took {seconds:.1f} s, and the server hangs for 60"
    assert kept.read_text().count("\n") == 3


def test_a_missing_key_is_told_by_the_check(monkeypatch):
    """Before the first question, not by it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ModelError, match="OPENAI_API_KEY is not set"):
        Chat("gpt-4o", ModelError).check()
