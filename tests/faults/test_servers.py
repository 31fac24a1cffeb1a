"""A server that fails in many ways moves no answer and no review, loses none and has none paid for twice.

Two shares of its replies are one of fifteen faults. The command is started until it ends whole; what it has recorded must
then be what an honest server says, and nothing that was recorded is asked again.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.files import read_lines
from tests.conftest import bench
from tests.faults import forked
from tests.faults.mutations import mutated
from tests.faults.test_reading import fault_of
from tests.loopback_batches import batch_server
from tests.loopback_chat import CUT, HANG_UP, Reply, chat_server, completion

pytestmark = pytest.mark.slow
JSON = "application/json"
FAULTS: dict[str, Reply] = {
    "too many requests": (429, JSON, b"{}"),
    "time-out": (408, JSON, b"{}"),
    "conflict": (409, JSON, b"{}"),
    "fault": (500, "text/plain", b"oops"),
    "bad gateway": (502, "text/html", b"<html>502</html>"),
    "overloaded": (503, JSON, b'{"error": "overloaded"}'),
    "hang-up": (HANG_UP, "", b""),
    "half a reply": (CUT, JSON, completion("Yes")[2]),
    "a page": (200, "text/html", b"<html>busy</html>"),
    "nothing": (200, JSON, b""),
    "half of JSON": (200, JSON, b'{"choices": [{"mess'),
    "a list": (200, JSON, b"[]"),
    "no choice": (200, JSON, b'{"id": "x", "object": "chat.completion", "choices": []}'),
    "an error as a success": (200, JSON, b'{"error": {"message": "busy", "code": 503}}'),
    "bytes that are no text": (200, JSON, b'{"choices": "\xff\xfe"}'),
}
STARTS = 12  # until a command has to have ended whole
SECONDS = 240  # of one start


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own retries, without their full waiting time."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("bench.chat.GARBLED_PAUSES", (0.01,) * 6)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def asked(body: dict[str, Any]) -> str:
    """What a request asks, the same for every time that it comes."""
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()


def answer(body: dict[str, Any]) -> Reply:
    """An honest answer: it depends on picture and question alone."""
    return completion("Yes" if int(asked(body), 16) % 2 else "No", {"Yes": 0.75, "No": 0.2})


def review(body: dict[str, Any]) -> Reply:
    """An honest review."""
    return completion(f"It is so.\nRating: {int(asked(body), 16) % 7}")


def given(file: Path) -> dict[str, tuple[Any, ...]]:
    """What is recorded, by its key, each once."""
    rows = read_lines(file)
    known = {row.get("key") or row["sample"]: (row["text"], row.get("p_yes")) for row in rows}
    assert len(known) == len(rows)
    return known


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> dict[str, Any]:
    """A run and a judging, with what an honest server's answers come to."""
    here = tmp_path_factory.mktemp("servers")
    data = here / "data"
    pictures = max(20, pytestconfig.getoption("--faults") // 10)
    assert bench("data", "scenes", "--n", pictures, "--out", data).returncode == 0
    run = ("run", "--suite", "pope", "--data", str(data), "--workers", "8")
    judged = here / "judged"
    words = ("--suite", "mmhal", "--data", data, "--out", judged)
    assert bench("run", "--model", "llava-tiny", *words).returncode == 3, "nobody has judged"
    return {"run": (run, answer), "judge": (judged / "mmhal", review)}


def words_of(job: Any, url: str, out: Path) -> tuple[str, ...]:
    if isinstance(job, Path):
        return ("judge", str(job), "--judge", f"openai:m@{url}")
    return (*job, "--model", f"openai:m@{url}", "--out", str(out))


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("name", ["run", "judge"])
def test_a_failing_server_moves_loses_and_repeats_nothing(
    jobs, tmp_path, name, share, pytestconfig
):
    from bench.cli import main  # noqa: F401

    job, honest = jobs[name]
    ends = {}
    paid: Counter[str] = Counter()
    rng = random.Random(f"{pytestconfig.getoption('--fault-seed')} {name} {share}")
    made: Counter[str] = Counter()

    def failing(number: int, body: dict[str, Any]) -> Reply:
        if rng.random() < share:
            kind = rng.choice(list(FAULTS))
            made[kind] += 1
            return FAULTS[kind]
        paid[asked(body)] += 1
        return honest(body)

    for which, reply in (("honest", lambda _, body: honest(body)), ("failing", failing)):
        here = tmp_path / which
        target = job
        if isinstance(job, Path):
            target = shutil.copytree(job, here / "mmhal")
        with chat_server(reply) as (url, _):
            words = words_of(target, url, here)
            for _ in range(STARTS):
                outcome = forked.run(words, SECONDS)
                assert outcome.code in (0, 1, 2, 3), outcome.err[-2000:]
                assert "Traceback" not in outcome.err and "secret-key" not in outcome.err
                if outcome.code == 0:
                    break
            assert outcome.code == 0, f"not whole after {STARTS} starts: {outcome.err[-800:]}"
        file = next(here.rglob("answers.jsonl" if name == "run" else "verdicts.jsonl"))
        ends[which] = given(file)
    assert ends["failing"] == ends["honest"] and len(ends["honest"]) > 20
    print(f"{name}: {sum(made.values())} replies of {len(made)} kinds were faults")
    assert sum(made.values()) > len(ends["honest"]) * share / 2, "the check would be empty"
    assert max(paid.values()) == 1, "an honest answer is recorded, and not asked for again"


def test_replies_that_are_nearly_right(jobs, tmp_path, pytestconfig):
    """Each reply, or what the Batch API sends back, is read, or refused with one clear error."""
    from bench.cli import main  # noqa: F401

    asked, first = pytestconfig.getoption("--faults"), pytestconfig.getoption("--fault-seed")
    rng = random.Random(f"replies {first}")
    found = []
    for number in range(asked):
        name = rng.choice(("run", "judge", "batch"))
        job, honest = jobs["judge" if name == "judge" else "run"]
        here, share = tmp_path / str(number), rng.choice((0.1, 1.0))

        def nearly(body: bytes, share: float = share) -> bytes:
            return mutated(body, "reply.json", rng) if rng.random() < share else body

        def reply(_: int, body: dict[str, Any], honest: Any = honest) -> Reply:
            status, kind, content = honest(body)
            return status, kind, nearly(content)

        target = shutil.copytree(job, here / "mmhal") if isinstance(job, Path) else job
        if name == "batch":
            target = (*target, "--batch", "--limit", "6")
            with batch_server(lambda _, body, honest=honest: honest(body)) as server:
                server.rewritten = nearly
                outcome = forked.run(words_of(target, server.url, here))
        else:
            limit = () if name == "judge" else ("--limit", "6")
            with chat_server(reply) as (url, _):
                outcome = forked.run((*words_of(target, url, here), *limit))
        fault = fault_of(outcome, ())
        if fault:
            found.append(f"{name} {first}-{number}: {fault}")
        shutil.rmtree(here)
    assert not found, "\n".join(found)
