"""The live view: a real server on loopback shows finished runs and those that go on, to nobody
without the token."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
import urllib.error
import urllib.request

import pytest
from PIL import Image

from bench.cli.outgoing import reopen
from bench.files import read_lines, replace_lines
from reports.live import LiveView, ViewError, server_of
from tests.conftest import bench


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A finished run of llava-tiny, one of llava-tiny-b half answered, and the address."""
    folder = tmp_path_factory.mktemp("view")
    for name in ("llava-tiny", "llava-tiny-b"):
        words = ("run", "--model", name, "--suite", "chair", "--data", "scenes", "--limit", "20")
        assert bench(*words, "--out", folder / name).returncode == 0
    going_on = folder / "llava-tiny-b" / "chair"
    rows = read_lines(going_on / "answers.jsonl")
    for file in ("metrics.json", "scores.jsonl"):
        shutil.move(going_on / file, folder / file)
    replace_lines(going_on / "answers.jsonl", rows[:12])
    server, address = server_of(
        LiveView([folder / "llava-tiny", folder / "llava-tiny-b"], reopen), 0
    )
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, going_on, rows, address
        server.shutdown()


def get(address, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(address, method=method)) as answer:
        return answer.read()


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.decode())
    return json.loads(text[1])


def test_a_run_that_goes_on_is_shown_with_its_answers_so_far(served):
    *_, rows, address = served
    data = data_of(get(address))
    (progress,) = data["progress"]
    assert (progress["answered"], progress["questions"]) == (12, 20)
    assert progress["model"] == "llava-tiny-b on scenes"
    (part,) = data["samples"]
    texts = {row["a"][1]["t"] for row in part["rows"] if row["a"][1]}
    assert texts == {row["text"] for row in rows[:12]}
    assert [run["model"] for run in data["runs"]] == ["llava-tiny on scenes"]
    assert data["verdicts"] == []
    thumbnail, whole = data["pictures"][3]
    assert thumbnail.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(get(address + whole))).size == (128, 128)


def test_what_changes_changes_the_state_and_the_page(served):
    folder, going_on, rows, address = served
    before = get(address + "state").decode()
    assert before == data_of(get(address))["live"]
    replace_lines(going_on / "answers.jsonl", rows)
    for file in ("scores.jsonl", "metrics.json"):
        shutil.copy(folder / file, going_on / file)
    assert get(address + "state").decode() != before
    data = data_of(get(address))
    assert data["progress"] == []
    assert [verdict["second"] for verdict in data["verdicts"]] == ["llava-tiny-b on scenes"]


@pytest.mark.parametrize(
    "path",
    ["", "wrong/", "wrong/state", "TOKENx/", "TOKEN/images/999.jpg", "TOKEN/images/-1.jpg",
     "TOKEN/images/../state", "TOKEN/run.json", "TOKEN/images/1.png"],
)  # fmt: skip
def test_nothing_else_is_served(served, path):
    *_, address = served
    root, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)([\w-]{22})/", address).groups()
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(root + path.replace("TOKEN", token))
    assert refused.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(address, "POST")
    assert refused.value.code == 501


def test_a_port_that_is_taken_is_told(served):
    *_, address = served
    port = int(re.search(r":(\d+)/", address)[1])
    with pytest.raises(ViewError, match="cannot be used"):
        server_of(LiveView([], reopen), port)


def test_damaged_answers_are_left_out_and_the_rest_is_shown(served, capsys):
    folder, going_on, _, address = served
    good = folder / "llava-tiny" / "chair"
    kept = {}
    for run in (good, going_on):
        kept[run] = (run / "answers.jsonl").read_text(), (run / "run.json").read_text()
    (going_on / "answers.jsonl").write_text("{}\n" + kept[going_on][0])
    data = data_of(get(address))
    assert [part["models"] for part in data["samples"]] == [["llava-tiny on scenes"]]
    assert f"the answers of {going_on} are left out" in capsys.readouterr().err
    (good / "run.json").write_text("{")
    (going_on / "run.json").write_text("{")
    page = get(address)
    assert page  # whatever is left, the server answers
    for run, (answers, record) in kept.items():
        (run / "answers.jsonl").write_text(answers)
        (run / "run.json").write_text(record)
