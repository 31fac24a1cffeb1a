"""Repositories of the hub that are nearly right, and replies of the hub that are: each is read, or refused with one clear error.

Afterwards the same command with the right files ends well: nothing broken was kept.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.source_table import table
from bench.files import read_lines
from tests.conftest import ROOT, bench
from tests.end_to_end.test_hub import ALONE, DEFAULT, MMHAL, POPE
from tests.faults import forked
from tests.faults.mutations import mutated
from tests.faults.test_reading import fault_of
from tests.loopback_hub import Files, Hub, Reply, client_of, hub_server

pytestmark = pytest.mark.slow
MODEL = ("model", "owner/tiny")
TINY = ROOT / "bench" / "scenes" / "llava-tiny"
(ARCHIVE,) = [file for file in table()["mmhal"].files if file.is_archive]
CARD = b"---\nconfigs:\n" + DEFAULT
SECONDS = 60  # the client asks again after a pause


def pope(data: Path) -> Files:
    """The questions about built-in scenes as lmms-lab/POPE has such."""
    from datasets import Dataset, Features, Image, Value

    names = ("id", "question_id", "question", "answer", "image_source", "category")
    features = Features(dict.fromkeys(names, Value("string")) | {"image": Image()})
    rows: list[dict[str, Any]] = []
    for category in ("random", "popular", "adversarial"):
        for item in read_lines(data / "pope" / "coco" / f"coco_pope_{category}.json")[:12]:
            picture = next(data.rglob(item["image"])).read_bytes()
            row = {"id": str(len(rows)), "question_id": str(item["question_id"])}
            row |= {"question": item["text"], "answer": item["label"], "category": category}
            row |= {"image_source": item["image"], "image": {"bytes": picture, "path": None}}
            rows.append(row)
    Dataset.from_list(rows, features=features).to_parquet(shard := io.BytesIO())
    return {"README.md": CARD, "data/test-00000-of-00001.parquet": shard.getvalue()}


def mmhal(data: Path) -> Files:
    """The same for MMHal-Bench."""
    template = data / "mmhal" / "mmhal-bench_answer_template.json"
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for picture in sorted((data / "images").rglob("*.png")):
            archive.write(picture, f"images/{picture.name}")
    return {"response_template.json": template.read_bytes(), "test_data.zip": packed.getvalue()}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Files]:
    data = tmp_path_factory.mktemp("data") / "data"
    assert bench("data", "scenes", "--n", "12", "--out", data).returncode == 0
    model = {file.name: file.read_bytes() for file in TINY.iterdir() if file.is_file()}
    return {POPE: pope(data), MMHAL: mmhal(data), MODEL: model}


def words_of(repository: tuple[str, str], out: Path) -> tuple[str, ...]:
    suite = "mmhal" if repository == MMHAL else "pope"
    data, name = ("scenes", MODEL[1]) if repository == MODEL else ("hub", "llava-tiny")
    # Of the hub's pictures nobody knows that they are of the built-in world.
    judge = ("--judge", "scene") if data == "scenes" else ()
    rest = ("--data", data, "--limit", "2", *judge, "--out", str(out), "--json")
    return ("run", "--model", name, "--suite", suite, *rest)


def start(hub: Hub, home: Path, words: tuple[str, ...]) -> forked.Outcome:
    """The command in a child whose hub it is."""

    def command() -> None:
        from bench.cli.main import app

        with pytest.MonkeyPatch.context() as patch, client_of(hub, home):
            for name, value in ALONE.items():
                patch.setenv(name, value)
            app(list(words))

    return forked.in_child(command, SECONDS)


def badly(reply: Callable[..., Reply], rng: random.Random) -> Callable[..., Reply]:
    """The hub's replies, of which every third is mutated."""

    def mutating(*asked: Any) -> Reply:
        status, headers, body, is_file = reply(*asked)
        if rng.random() < 0.33:
            body = mutated(body, "reply.json" if body[:1] in (b"{", b"[") else "reply", rng)
        return Reply(status, headers, body, is_file)

    return mutating


def test_repositories_and_replies_that_are_nearly_right(repositories, tmp_path, pytestconfig):
    from bench.cli import main  # noqa: F401

    asked = max(20, pytestconfig.getoption("--faults") // 4)
    first = pytestconfig.getoption("--fault-seed")
    rng = random.Random(f"hub {first}")
    found = []
    for number in range(asked):
        repository = rng.choice(list(repositories))
        files = repositories[repository]
        words = words_of(repository, tmp_path / f"out-{number}")
        home = tmp_path / f"home-{number}"
        with hub_server(repositories) as hub:
            hub.pinned.add(ARCHIVE.commit)
            honest = hub.reply
            if rng.random() < 0.25:
                what = "replies"
                hub.reply = badly(honest, rng)  # type: ignore[method-assign]
            else:
                what = rng.choice(sorted(files))
                hub.repositories[repository] = {**files, what: mutated(files[what], what, rng)}
            name = f"{first}-{number}: {what} of {repository[1]}"
            fault = fault_of(start(hub, home, words), words)
            if fault:
                found.append(f"{name}: {fault}")
            hub.reply = honest  # type: ignore[method-assign]
            hub.repositories[repository] = files
            if repository == MMHAL and what != "replies":
                continue  # its commit is pinned: the same commit never has other files
            again = start(hub, home, words_of(repository, tmp_path / f"whole-{number}"))
            if again.code not in (0, 3):
                found.append(f"{name}, then whole: {again.code} {again.err[-400:]}")
    assert not found, "\n".join(found)
