"""A run's folder survives kills, full disks, other processes and other experiments."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from functools import partial

import pytest

from bench.errors import StoreError
from bench.files import append_lines, dump, read_lines, replace_file
from bench.runs.store import RunFolder, differences
from bench.types import Answer, Metric, Request, Score, Verdict
from tests.faults import forked
from tests.recorded_runs import pope_run, record_of

RECORD = record_of("m", created="2026-01-01T00:00:00", model={"name": "m", "sha": "1"})


def request(key: str) -> Request:
    return Request(key, "a.png", None, "q?", "q?\nsuffix", 5, True, ("s/1",))


@pytest.fixture
def store(tmp_path) -> RunFolder:
    store = RunFolder(tmp_path / "run")
    with store.locked():
        store.begin(RECORD)
    return store


def test_answers_come_back_as_they_were(store):
    answer = Answer("Да, “ja” \u2028 {x}\n</script>", 7, 0.25, "length", 0.1, 0.2)
    store.append_answers([(request("k1"), answer, "ab12"), (request("k2"), Answer(""), None)])
    assert store.answers() == {"k1": (answer, "ab12"), "k2": (Answer(""), None)}


def test_lone_surrogates_in_model_text_are_stored(store):
    store.append_answers([(request("k"), Answer("broken \ud800 text"), None)])
    assert store.answers()["k"][0].text == "broken ? text"


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped_and_written_over(store, cut):
    store.append_answers(
        [(request("k1"), Answer("one"), None), (request("k2"), Answer("two"), None)]
    )
    content = store.answers_file.read_bytes()
    store.answers_file.write_bytes(content[:-cut])
    with pytest.warns(UserWarning, match="torn last line"):
        assert list(store.answers()) == ["k1"]
    store.append_answers([(request("k2"), Answer("two"), None)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(store.answers()) == ["k1", "k2"]
    assert store.answers_file.read_bytes() == content


def test_a_corrupt_line_in_the_middle_is_named(store):
    store.append_answers(
        [(request("k1"), Answer("one"), None), (request("k2"), Answer("two"), None)]
    )
    lines = store.answers_file.read_text().splitlines(keepends=True)
    store.answers_file.write_text(lines[0][:20] + "\n" + lines[1])
    with pytest.raises(StoreError, match="corrupt in line 1"):
        store.answers()


def test_a_second_process_is_refused(store):
    code = (
        "import sys; from pathlib import Path; from bench.runs.store import RunFolder\n"
        f"with RunFolder(Path({str(store.path)!r})).locked(): pass"
    )
    with store.locked():
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode != 0 and "is in use" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_two_processes_that_write_one_file_leave_a_whole_one(tmp_path):
    """As two downloads into one cache do."""
    file = tmp_path / "newest"
    contents = ["a" * 100_000, "b" * 10]
    replace_file(file, contents[0])

    def writes(content):
        for _ in range(100):
            replace_file(file, content)

    writers = [forked.started(partial(writes, content), 60) for content in contents]
    texts_read = set()
    while not all(writer.done() for writer in writers):
        texts_read.add(file.read_text())
    for writer in writers:
        outcome = writer.result()
        assert (outcome.code, outcome.err) == (0, "")
    assert texts_read <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]


def test_another_experiment_is_refused_naming_what_changed(store):
    changed = {
        **RECORD,
        "model": {"name": "m", "sha": "2"},
        "limit": 9,
        "created": "2026-01-02T00:00:00",
    }
    with pytest.raises(StoreError) as error:
        store.begin(changed)
    assert "model.sha (1 → 2)" in error.value.reason and "limit (absent → 9)" in error.value.reason
    assert "created" not in error.value.reason


def test_a_judge_may_be_added_later_and_stands_beside_his_own_figures_only(store, monkeypatch):
    def score(value: float) -> Metric:
        return Metric("score", "all", value, value, value, 1, 0, "higher", "rating")

    figures = [score(3.5)]
    store.write_results(store.record(), [], figures)
    judged = {**RECORD, "judge": {"kind": "openai"}}
    store.begin({**judged, "created": "2026-01-02T00:00:00"})
    assert store.record()["judge"] is None and store.metrics() == figures, "not judged yet"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.store.replace_file", full)
        with pytest.raises(OSError, match="No space"):
            store.write_results(judged, [Score("a", "b", "c")], [score(1.0)])
    with pytest.raises(StoreError, match="has no metrics"):
        store.metrics()
    store.write_results(judged, [], [score(1.0)])
    assert store.record()["judge"] == {"kind": "openai"}
    assert [metric.value for metric in store.metrics()] == [1.0]


def test_a_session_is_recorded_if_it_can_ask_and_replaced_if_it_gave_nothing(store):
    def session(created: str, torch: str) -> dict:
        return {
            **RECORD,
            "created": created,
            "model": {**RECORD["model"], "software": {"t": torch}},
        }

    store.begin(session("2026-01-02", "2"), ["k1", "k2"])
    store.begin(session("2026-01-03", "3"), ["k1", "k2"])
    store.begin(session("2026-01-03", "3"), ["k1", "k2"])
    store.append_answers([(request("k1"), Answer("yes"), None)])
    store.begin(session("2026-01-04", "4"), ["k1", "k2"])
    store.append_answers([(request("k2"), Answer("no"), None)])
    store.begin(session("2026-01-05", "5"), ["k1", "k2"])
    sessions = store.record()["sessions"]
    assert [(item["created"], item["answers"]) for item in sessions] == [
        ("2026-01-03", 0),
        ("2026-01-04", 1),
    ]
    assert [item["software"] for item in sessions] == [{"t": "3"}, {"t": "4"}]


def test_a_session_is_told_from_the_one_before_by_what_it_asks_by_not_by_its_clock(store):
    """A clock may be set back by as much as has passed."""
    store.append_answers([(request("k1"), Answer("yes"), None)])
    same_time = {**RECORD, "model": {**RECORD["model"], "software": {"t": "2"}}}
    store.begin({**RECORD, "created": "2026-01-02T00:00:00"}, ["k1", "k2"])
    assert "sessions" not in store.record(), "nothing is another"
    store.begin(same_time, ["k1", "k2"])
    (session,) = store.record()["sessions"]
    assert session["answers"] == 1 and session["software"] == {"t": "2"}


def test_verdicts_belong_to_their_judge(store):
    store.append_verdicts([("s1", Verdict("Rating: 6"))], "aaa")
    store.append_verdicts([("s1", Verdict("Rating: 0"))], "bbb")
    assert store.verdicts("aaa")["s1"].text == "Rating: 6"
    assert store.verdicts("ccc") == {}


def test_a_full_disk_is_a_clear_error_and_loses_nothing(store):
    """A real limit on the size of files: the write fails in the middle of a batch."""
    code = f"""
import resource, signal
from pathlib import Path
from bench.runs.store import RunFolder
from bench.types import Answer, Request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
store = RunFolder(Path({str(store.path)!r}))
for i in range(100):
    store.append_answers([(Request(f"k{{i}}", "a.png", None, "q", "q", 5, True, ()), Answer("x" * 200), None)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "StoreError" in done.stderr
        and "cannot be written" in done.stderr
        and "what was answered is kept" in done.stderr
    )
    answers = store.answers()
    assert 5 < len(answers) < 20 and store.answers_file.read_bytes().endswith(b"\n")
    store.append_answers([(request("next"), Answer("y"), None)])
    assert len(store.answers()) == len(answers) + 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_a_damaged_run_json_is_a_clear_error(store, content):
    (store.path / "run.json").write_text(content)
    with pytest.raises(StoreError, match=r"run\.json"):
        store.record()


def test_lines_are_canonical_json(tmp_path):
    file = tmp_path / "x.jsonl"
    append_lines(file, [{"b": 1, "a": "ü"}])
    assert file.read_text() == '{"b": 1, "a": "ü"}\n' == dump({"b": 1, "a": "ü"}) + "\n"
    assert read_lines(file) == [json.loads(file.read_text())]
    with pytest.raises(ValueError, match="Out of range"):
        dump({"p": float("nan")})


def test_differences_treat_tuples_as_the_lists_json_makes_of_them():
    assert differences({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}}) == []


@pytest.fixture
def finished(tmp_path):
    """A finished run of four POPE questions."""
    return RunFolder(pope_run(tmp_path / "pope", [1, 0, 1, 1]))


@pytest.mark.parametrize("name", ["run.json", "answers.jsonl", "scores.jsonl", "metrics.json"])
def test_a_flipped_bit_in_a_finished_run_is_told(finished, name):
    file = finished.path / name
    content = bytearray(file.read_bytes())
    place = content.index(b"random") if name == "scores.jsonl" else len(content) // 2
    content[place] ^= 1
    file.write_bytes(content)
    read = {
        "run.json": finished.record,
        "answers.jsonl": finished.answers,
        "scores.jsonl": finished.scores,
        "metrics.json": finished.metrics,
    }
    with pytest.raises(StoreError, match=r"is not (what|as it was)|not readable") as raised:
        read[name]()
    assert "bench score" in raised.value.remedy or "run again" in raised.value.remedy


def test_a_finished_runs_files_may_grow_but_not_shrink(finished):
    before = finished.answers()
    finished.append_answers([(request("later"), Answer("yes"), None)])
    assert finished.answers().keys() == {*before, "later"}
    lines = finished.answers_file.read_text().splitlines(keepends=True)
    finished.answers_file.write_text("".join(lines[:2]))
    with pytest.raises(StoreError, match="is not what the run's figures were made from"):
        finished.answers()
    finished.metrics_file.unlink()
    assert len(finished.answers()) == 2, "who means it deletes the figures"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"key": 3, "image": "a", "text": "x"}, "key is '3'"),
        ({"key": "k", "image": "a"}, "Field required: text"),
        ({"key": "k", "image": "a", "text": "x", "tokens": "12"}, "valid integer: tokens"),
        ({"key": "k", "image": "a", "text": "x", "finish": []}, "finish"),
    ],
)
def test_a_row_of_another_type_is_named(store, row, words):
    append_lines(store.answers_file, [row])
    with pytest.raises(StoreError, match="corrupt") as raised:
        store.answers()
    assert words in raised.value.reason


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_our_own_json_has_no_nan(store, number):
    store.answers_file.write_text(
        f'{{"key": "k", "image": "a", "text": "x", "seconds": {number}}}\n'
    )
    with pytest.raises(StoreError, match="corrupt in line 1"):
        store.answers()
