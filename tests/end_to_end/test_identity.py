"""A run continues only what it is, is called by the shortest text that tells it from others, and
is never paid for twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bench.registry import split_adapter
from bench.runs.labels import give_labels
from bench.runs.run import Run
from tests.conftest import BENCH, ROOT, bench, metrics
from tests.loopback import send, serving
from tests.loopback_chat import chat_server, completion
from tests.recorded_runs import metric_row, pope_run, record_of, score_row, write_run


def run_of(folder: Path, name: str, path: Path | None = None, benchmark: str = "pope", **model):
    """A recorded run of a model called `name` that was read from `path`."""
    record = record_of(name, benchmark={"name": benchmark, "version": "1"})
    record["model"] |= model
    record["source"] = record["source"] | {"model": path and str(path)}
    return Run(pope_run(folder, [True] * 40, record, [metric_row("accuracy", "mean", 1.0)]))


def labels(*runs: Run) -> list[str]:
    give_labels(runs)
    return [run.label for run in runs]


def test_one_model_is_called_by_its_name(tmp_path):
    pope = run_of(tmp_path / "a", "m", weights_sha256="1")
    aokvqa = run_of(tmp_path / "b", "m", benchmark="pope-aokvqa", weights_sha256="1")
    assert labels(pope, aokvqa) == ["m", "m"]


def test_checkpoints_of_one_name_are_told_apart_by_the_shortest_path(tmp_path):
    runs = []
    for folder in ("expA/merged", "expB/merged", "other/expB/merged"):
        path = tmp_path / folder
        run = run_of(tmp_path / "runs" / folder, "merged", path, weights_sha256=folder)
        runs.append(run)
    assert labels(*runs[:2]) == ["expA/merged", "expB/merged"]
    assert labels(*runs[1:]) == [f"{tmp_path.name}/expB/merged", "other/expB/merged"]


def test_answer_files_of_one_folder_are_told_apart_by_their_names(tmp_path):
    runs = []
    for name in ("good", "bad"):
        path = tmp_path / f"{name}.jsonl"
        runs.append(run_of(tmp_path / name, "answers", path, sha256=name))
    assert labels(*runs) == ["answers (good.jsonl)", "answers (bad.jsonl)"]


def test_two_runs_of_one_model_are_told_apart_by_their_folders(tmp_path):
    first, second = (run_of(tmp_path / n / "pope", "m", weights_sha256="1") for n in "ab")
    assert labels(first, second) == ["m (a/pope)", "m (b/pope)"]


def test_runs_that_were_asked_otherwise_never_share_a_row(tmp_path):
    runs = []
    more = ({}, {"limit": 24}, {"max_tokens": 64}, {"max_tokens": 64, "limit": 24})
    for benchmark, parts in zip(("pope", "pope-gqa", "pope-aokvqa", "repope"), more, strict=True):
        record = record_of("m", benchmark={"name": benchmark, "version": "1"}) | parts
        runs.append(Run(pope_run(tmp_path / benchmark, [True] * 40, record)))
    assert labels(*runs) == [
        "m (usual length, whole)",
        "m (usual length, limited)",
        "m (64 tokens, whole)",
        "m (64 tokens, limited)",
    ]
    assert labels(*runs[:2]) == ["m (whole)", "m (limited)"]
    assert labels(runs[2]) == ["m"]


def test_runs_of_other_protocols_are_told_apart_by_them(tmp_path):
    first = run_of(tmp_path / "a", "m", protocol={"name": "llava"})
    second = run_of(tmp_path / "b", "m", protocol={"name": "native"})
    assert labels(first, second) == ["m (llava)", "m (native)"]


def test_runs_that_somebody_gave_one_name_are_one_model(tmp_path):
    runs = []
    for benchmark, name in (("pope", "mine"), ("pope-gqa", "mine"), ("pope-aokvqa", None)):
        run = run_of(
            tmp_path / benchmark,
            "answers",
            tmp_path / f"{benchmark}.jsonl",
            benchmark,
            sha256=benchmark,
        )
        run.record["name"] = name
        runs.append(run)
    assert labels(*runs) == ["mine", "mine", "answers"]


def test_both_models_of_one_name_stand_on_board_and_paper_table_and_neither_is_best(tmp_path):
    for name in ("expA", "expB"):
        path = tmp_path / name / "checkpoint-500"
        run_of(tmp_path / "runs" / name, "checkpoint-500", path, weights_sha256=name)
    board = bench("board", tmp_path / "runs").stdout
    assert "expA/checkpoint-500" in board and "expB/checkpoint-500" in board
    done = bench("report", tmp_path / "runs", "--paper", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report" / "report.md").read_text()
    assert "expA/checkpoint-500, measured" in text and "expB/checkpoint-500, measured" in text
    assert "**" not in (tmp_path / "report" / "tables" / "pope.md").read_text()


def test_a_name_that_is_given_is_used(tiny, pictures, tmp_path):
    command = ("run", "--model", tiny("llava"), "--suite", "pope", "--data", pictures)
    command += ("--limit", 6, "--out", tmp_path / "out")
    assert bench(*command, "--name", "mine").returncode == 0
    assert Run(tmp_path / "out" / "pope").model == "mine"
    assert bench(*command, "--name", "ours").returncode == 0, "a name is not what a run is"
    assert Run(tmp_path / "out" / "pope").model == "ours"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("chat_template.jinja", lambda text: "{# new #}" + text),
        ("generation_config.json", lambda text: text.replace("{", '{"top_k": 7,', 1)),
        ("tokenizer_config.json", lambda text: text.replace("{", '{"mine": 1,', 1)),
        ("config.json", lambda text: text.replace("{", '{"mine": 1,', 1)),
        ("processor_config.json", lambda text: text.replace("{", '{"mine": 1,', 1)),
    ],
)
def test_a_run_does_not_go_on_with_a_changed_file(tmp_path, name, change):
    checkpoint = tmp_path / "m"
    shutil.copytree(Path(__file__).parents[2] / "bench" / "scenes" / "llava-tiny", checkpoint)
    command = ("run", "--model", checkpoint, "--suite", "pope", "--data", "scenes")
    command += ("--limit", 6, "--out", tmp_path / "out")
    assert bench(*command).returncode == 0
    answers = (tmp_path / "out" / "pope" / "answers.jsonl").read_bytes()
    file = checkpoint / name
    file.write_text(change(file.read_text()))
    refused = bench(*command)
    assert refused.returncode == 2
    assert f"model.files.{name}" in refused.stderr
    assert (tmp_path / "out" / "pope" / "answers.jsonl").read_bytes() == answers


def test_the_rendered_prompt_is_recorded(tiny, pictures, tmp_path):
    command = ("run", "--model", "llava-tiny", "--suite", "pope", "--data", "scenes")
    assert bench(*command, "--limit", 6, "--out", tmp_path).returncode == 0
    model = Run(tmp_path / "pope").record["model"]
    expected = "<s><|user|><image>Is there a dog in the image?<|assistant|>"
    assert model["rendered_prompt"] == expected


def test_a_template_that_writes_the_date_does_not_mix_two_days(tmp_path):
    checkpoint = tmp_path / "m"
    shutil.copytree(Path(__file__).parents[2] / "bench" / "scenes" / "llava-tiny", checkpoint)
    template = checkpoint / "chat_template.jinja"
    template.write_text("{{ strftime_now('%S%f') }} " + template.read_text())
    command = ("run", "--model", checkpoint, "--suite", "pope", "--data", "scenes")
    command += ("--protocol", "native", "--limit", 6, "--out", tmp_path / "out")
    assert bench(*command).returncode == 0
    refused = bench(*command)
    assert refused.returncode == 2 and "model.rendered_prompt" in refused.stderr


def test_a_finished_run_says_that_it_only_shows_what_was_recorded(pictures, tmp_path):
    with chat_server(lambda n, body: completion("Yes")) as (url, seen):
        command = ("run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures)
        command += ("--out", tmp_path)
        assert "nothing was asked" not in bench(*command).stderr
        asked = len(seen)
        created = Run(tmp_path / "pope").record["created"]
        again = bench(*command)
        assert len(seen) == asked
    # The server is gone: a finished run needs none.
    last = bench(*command)
    for done in (again, last):
        assert done.returncode == 0, done.stderr
        assert f"{asked} of {asked} answers were recorded on {created}" in done.stderr


@contextlib.contextmanager
def listing_server(root: str):
    """A chat server whose list of models says which checkpoint it serves, as vLLM's does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            send(self, {"object": "list", "data": [{"id": "m", "object": "model", "root": root}]})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            send(self, json.loads(completion("Yes")[2]))

        def log_message(self, *_): ...

    with serving(Handler) as port:
        yield port


def test_another_checkpoint_behind_the_same_name_is_another_model(pictures, tmp_path):
    records = []
    for root in ("/ckpt-1", "/ckpt-2"):
        with listing_server(root) as port:
            spec = f"openai:m@http://127.0.0.1:{port}/v1"
            command = ("run", "--model", spec, "--suite", "pope", "--data", pictures, "--limit", 6)
            assert bench(*command, "--out", tmp_path / root[1:]).returncode == 0
            refused = bench(*command, "--out", tmp_path / "ckpt-1")
        records.append(Run(tmp_path / root[1:] / "pope").record["model"])
        assert records[-1]["server"] == f"127.0.0.1:{port}/v1"
    assert [model["served"]["root"] for model in records] == ["/ckpt-1", "/ckpt-2"]
    assert refused.returncode == 2 and "model.served.root" in refused.stderr


def test_what_cannot_move_an_answer_forfeits_none(pictures, tmp_path):
    with chat_server(lambda n, body: completion("Yes")) as (url, seen):
        command = ("run", "--model", f"openai:m@{url}", "--suite", "pope", "--data", pictures)
        assert bench(*command, cwd=tmp_path).returncode == 0
        (file,) = tmp_path.rglob("run.json")
        record = json.loads(file.read_text())
        record["environment"]["packages"]["scipy"] = "0.1"
        record["environment"]["git"] = "000000-dirty"
        file.write_text(json.dumps(record))
        (file.parent / "metrics.json").unlink()
        asked = len(seen)
        assert bench(*command, cwd=tmp_path).returncode == 0
        assert len(seen) == asked and len(list(tmp_path.rglob("run.json"))) == 1


def test_after_an_upgrade_the_same_command_continues_the_run_and_says_so(tmp_path, monkeypatch):
    """The first half of the answers stands as if another torch had given it."""
    monkeypatch.chdir(tmp_path)
    command = ("run", "--model", "llava-tiny", "--suite", "pope", "--data", "scenes")
    command += ("--limit", 12)
    assert bench(*command).returncode == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = folder / "pope"
    whole = (run / "answers.jsonl").read_text().splitlines(keepends=True)
    record = json.loads((run / "run.json").read_text())
    torch_now = record["model"]["software"]["torch"]
    record["model"]["software"] |= {"torch": "1.0", "tokenizers": None}
    record["environment"]["git"] = "an earlier commit"
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.json").unlink()
    assert bench(*command).returncode == 0
    assert "sessions" not in Run(run).record, "nothing was asked"

    half = len(whole) // 2
    (run / "answers.jsonl").write_text("".join(whole[:half]))
    (run / "metrics.json").unlink()
    done = bench(*command)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
    (session,) = Run(run).record["sessions"]
    assert session["answers"] == half and session["software"]["torch"] == torch_now
    assert session["environment"]["git"] != "an earlier commit"
    assert Run(run).record["model"]["software"]["torch"] == "1.0"
    for caveat in (
        f"torch 1.0 → {torch_now} after {half} answers",
        f"tokenizers absent → {session['software']['tokenizers']} after {half} answers",
    ):
        assert f"‡ {caveat}" in done.stdout
        assert all(caveat in row["caveats"] for row in metrics(run).values())
    assert "transformers " not in done.stdout


def test_a_judge_who_was_killed_takes_nobodys_figures(tmp_path, monkeypatch):
    """A kill at any moment leaves a judge beside figures of his own, or no figures."""
    command = ("run", "--model", "llava-tiny", "--suite", "mmhal", "--data", "scenes")
    command += ("--limit", 12, "--out", tmp_path)
    run = tmp_path / "mmhal"
    assert bench(*command).returncode == 0
    before = (run / "run.json").read_bytes(), (run / "metrics.json").read_bytes()

    def killed(*_):
        raise SystemExit(137)

    other = (*command, "--judge", "grounding:llava-tiny")
    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.runner.judge_answers", killed)
        assert bench(*other).returncode == 137
    assert ((run / "run.json").read_bytes(), (run / "metrics.json").read_bytes()) == before
    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.store.replace_file", killed)
        assert bench(*other).returncode == 137
    assert not (run / "metrics.json").exists()
    assert "mmhal has no metrics" in bench("board", tmp_path).stdout
    assert bench(*other).returncode == 0
    assert Run(run).record["judge"]["kind"] == "grounding"
    caveats = {text for row in metrics(run).values() for text in row["caveats"]}
    assert any("llava-tiny" in text for text in caveats), caveats


def test_a_run_whose_data_has_moved_is_scored_judged_and_reported_there(pictures, tmp_path):
    data = tmp_path / "before"
    shutil.copytree(pictures, data)
    rows = []
    for line in (data / "pope" / "coco" / "coco_pope_random.json").read_text().splitlines():
        row = json.loads(line)
        rows.append({"image": row["image"], "question": row["text"], "response": "Yes"})
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("run", "--model", f"replay:{answers}", "--suite", "pope", "--data", data)
    assert bench(*command, "--out", tmp_path / "out").returncode == 0
    before = metrics(tmp_path / "out" / "pope")
    data.rename(tmp_path / "after")
    lost = bench("score", tmp_path / "out")
    assert lost.returncode == 2 and "There is no folder" in lost.stderr
    page = ("report", tmp_path / "out", "--out", tmp_path / "report")
    assert "no samples on the page" in bench(*page).stderr
    assert "no samples" not in bench(*page, "--data", tmp_path / "after").stderr
    assert bench("score", tmp_path / "out", "--data", tmp_path / "after").returncode == 0
    assert metrics(tmp_path / "out" / "pope") == before
    assert bench("score", tmp_path / "out").returncode == 0, "it is found there from now on"


def dead_url() -> str:
    """The address of a server that is gone."""
    with chat_server(lambda n, body: completion("")) as (url, _):
        return url


def test_a_dead_judge_is_noticed_before_the_first_answer(tiny, pictures, tmp_path, shared):
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    (data / "mmhal").mkdir()
    template = shared / "mmhal" / "mmhal-bench_answer_template.json"
    shutil.copy(template, data / "mmhal")
    shutil.copytree(shared / "images" / "mmhal", data / "images" / "mmhal")
    with chat_server(lambda n, body: completion("Yes")) as (url, seen):
        command = ("run", "--model", f"openai:m@{url}", "--suite", "pope,mmhal", "--data", data)
        command += ("--out", tmp_path / "out")
        done = bench(*command, "--judge", f"openai:j@{dead_url()}")
        assert done.returncode == 2
        assert "j cannot be reached" in done.stderr
        assert not seen


def test_a_folder_of_another_experiment_is_noticed_before_the_first_answer(pictures, tmp_path):
    with chat_server(lambda n, body: completion("Yes")) as (url, seen):
        command = ("run", "--model", f"openai:m@{url}", "--data", pictures, "--out", tmp_path)
        assert bench(*command, "--suite", "pope", "--limit", 6).returncode == 0
        asked = len(seen)
        chair = tmp_path / "chair"
        (tmp_path / "pope").rename(chair)
        record = json.loads((chair / "run.json").read_text())
        (tmp_path / "pope").mkdir()
        record["benchmark"]["name"] = "other"
        (tmp_path / "pope" / "run.json").write_text(json.dumps(record))
        refused = bench(*command, "--suite", "pope")
    assert refused.returncode == 2 and "another experiment" in refused.stderr
    assert len(seen) == asked


def test_what_is_finished_is_printed_though_a_later_benchmark_fails(pictures, tmp_path, shared):
    """The server dies between two benchmarks."""
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    shutil.copytree(shared / "mmhal", data / "mmhal")
    shutil.copytree(shared / "images" / "mmhal", data / "images" / "mmhal")
    questions = len((data / "pope" / "coco" / "coco_pope_random.json").read_text().splitlines())

    def reply(number, body):
        text = str(body["messages"])
        if "Is there a" in text:
            return completion("Yes")
        return 401, "application/json", b'{"error": {"message": "expired"}}'

    with chat_server(reply) as (url, _):
        command = ("run", "--model", f"openai:m@{url}", "--suite", "pope,mmhal", "--data", data)
        done = bench(*command, "--out", tmp_path / "out")
    assert done.returncode == 2 and "expired" in done.stderr
    assert "accuracy" in done.stdout and questions
    assert metrics(tmp_path / "out" / "pope")["accuracy", "all"]["n"] > 0


def test_recorded_runs_without_a_source_are_read_as_before(tmp_path):
    record = record_of("m", benchmark={"name": "somebodys", "version": "1"})
    run = Run(write_run(tmp_path / "run", record, [score_row("1", "1", "all", right=True)], []))
    assert labels(run) == ["m"]


def test_a_closed_pipe_is_no_fault_of_ours(tmp_path):
    command = [*BENCH, "list", "suites"]
    shell = f"{shlex.join(command)} | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"for i in 1 2 3; do {shell}; done"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "fault of" not in done.stderr


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run that can be shown again."""
    out = tmp_path_factory.mktemp("scored")
    words = ("--suite", "pope", "--data", "scenes", "--limit", 12, "--out", out)
    assert bench("run", "--model", "llava-tiny", *words).returncode == 0
    return out / "pope"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_is_one_clear_error(scored):
    for words in (
        ["score", scored],
        ["score", scored, "--json"],
        ["list", "suites"],
        ["--version"],
        ["--help"],
        ["run", "--help"],
    ):
        for buffering in ("", "1"):
            command = shlex.join([*BENCH, *map(str, words)])
            done = shell(f"{command} > /dev/full", PYTHONUNBUFFERED=buffering)
            assert done.returncode == 2, done.stderr
            assert " error: Standard output cannot be written to." in done.stderr
            assert "Traceback" not in done.stderr


def test_a_reader_who_has_gone_is_not_told_that_a_gate_failed(scored):
    done = shell(f"{shlex.join([*BENCH, 'score', str(scored)])} | head -c 10")
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr, done.stderr


def test_a_terminal_of_few_characters_and_a_closed_one_lose_nothing_else(scored):
    command = shlex.join([*BENCH, "score", str(scored)])
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = shell(command, **plain)
    assert done.returncode == 0, done.stderr
    accuracy = metrics(scored)["accuracy", "all"]["value"]
    assert re.search(rf"^accuracy .* {100 * accuracy:.2f}", done.stdout, re.MULTILINE)
    assert shell(f"{command} >&-").returncode == 0
    assert shell(f"{command} 2>&-").returncode == 0


def test_a_folder_is_taken_before_an_alias_and_may_hold_a_plus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = ROOT / "bench" / "scenes" / "llava-tiny"
    for name in ("llava-13b", "a+b", "a"):
        shutil.copytree(source, tmp_path / name)
    command = ("run", "--suite", "pope", "--data", "scenes", "--limit", 6, "--model")
    for name in ("llava-13b", "a+b"):
        assert bench(*command, name, "--out", tmp_path / "out" / name).returncode == 0
        record = Run(tmp_path / "out" / name / "pope").record
        assert record["model"]["name"] == name
        assert record["source"]["model"] == str(tmp_path / name)
    assert split_adapter("a+b+c") == ("a+b", "c")
    assert split_adapter("a+c") == ("a", "c")
    assert split_adapter("owner/model+folder/x") == ("owner/model", "folder/x")
