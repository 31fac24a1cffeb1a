"""What users of lmms-eval type works, and what goes on is told without a terminal."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest
import typer
from safetensors import SafetensorError

from bench import run as run_from_python
from bench import terminal
from bench.cli.lmms_words import decoding_options, model_options
from bench.cli.show import show_metrics
from bench.errors import BenchError, DataError, UnknownNameError
from bench.runs.jobs import Job, _limit_of
from bench.types import Metric
from tests.conftest import bench


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_new_tokens=64", (None, 64)),
        ("temperature=0,do_sample=False", (None, None)),
        ("do_sample=False,temperature=0.7", (None, None)),
        ("temperature=0.7,top_k=20,do_sample=True", ("sample:temperature=0.7,top_k=20", None)),
        ("num_beams=3", ("beam:3", None)),
    ],
)
def test_gen_kwargs_are_lmms_evals(text, expected):
    assert decoding_options(text) == expected


def test_model_args_are_lmms_evals():
    assert model_options("pretrained=a/b,dtype=float16,trust_remote_code=True") == {
        "model": "a/b",
        "dtype": "float16",
        "trust_remote_code": True,
    }
    with pytest.raises(BenchError, match="cannot take 'conv_template=vicuna_v1'"):
        model_options("pretrained=a/b,conv_template=vicuna_v1")
    for wrong in ("until=x", "max_new_tokens=many", "temperature"):
        with pytest.raises(BenchError, match="--gen_kwargs cannot take"):
            decoding_options(wrong)


def test_a_command_of_lmms_eval_runs(tiny, pictures, tmp_path):
    done = bench(
        "run", "--model", "llava_hf", "--model_args", f"pretrained={tiny('llava')},dtype=float32",
        "--tasks", "pope", "--data", pictures, "--gen_kwargs", "max_new_tokens=3", "--limit", "0.2",
        "--output_path", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "pope" / "run.json").read_text())
    assert record["prompt"]["max_tokens"] == [3] and record["model"]["dtype"] == "float32"
    assert record["limit"] == 18, "a fifth of 90"
    assert record["model"]["name"] == tiny("llava").name


@pytest.mark.parametrize("limit", [0, -3, 1.5])
def test_a_limit_is_a_number_or_a_share(limit):
    job = Job(None, None, None, "", None, limit, None)
    with pytest.raises(DataError, match="is no number of samples"):
        _limit_of(job, 100)


def test_help_by_its_short_name():
    assert "Ask a model" in bench("run", "-h").stdout


def test_quiet_is_quiet(tiny, pictures, tmp_path):
    arguments = ["run", "--model", tiny("llava"), "--suite", "pope", "--data", pictures]
    loud = bench(*arguments, "--limit", 6, "--out", tmp_path / "loud")
    assert "limited:" in loud.stderr
    quiet = bench(*arguments, "--limit", 6, "--out", tmp_path / "quiet", "-q")
    assert quiet.returncode == 0 and quiet.stderr == ""
    assert loud.stdout.replace("loud", "quiet") == quiet.stdout


def test_progress_is_told_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setitem(terminal.LINE_EVERY, terminal.USUAL, 0.05)
    terminal.set_verbosity(terminal.USUAL)
    with terminal.progress_bar("pope: asking", 9000) as progress:
        progress(1000)  # recorded before
        time.sleep(0.08)
        progress(200)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pope: asking: 1,000 of 9,000, none yet in this start"
    assert re.fullmatch(r"pope: asking: 1,200 of 9,000, [\d.e+]+/s, \d+ (s|min) left", lines[-1])


def test_times_are_told_in_words():
    assert [terminal._duration(seconds) for seconds in (40, 700, 12_600)] == [
        "40 s",
        "12 min",
        "3.5 h",
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_no_fault_of_ours(capsys, code):
    @terminal.reports_errors
    def command():
        raise OSError(code, os.strerror(code), "some/file")

    with pytest.raises(typer.Exit) as leaving:
        command()
    said = capsys.readouterr().err
    assert leaving.value.exit_code == 2 and "Traceback" not in said
    assert " error: some/file cannot be used." in said and os.strerror(code) in said


def test_a_reference_may_go_to_a_pipe_and_questions_nowhere(pictures, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ("--suite", "pope", "--data", pictures, "--limit", 6, "--out", tmp_path)
    assert bench("run", "--model", "llava-tiny", *words).returncode == 0
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert bench("check", tmp_path / "pope", "--save", pipe).returncode == 0
    reader.join(10)
    assert '"benchmarks"' in read[0] and pipe.is_fifo()
    (tmp_path / "file").write_text("")
    done = bench("data", "pope", "--objects", pictures / "objects.json", "--out", tmp_path / "file")
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_a_table_shows_tags_in_names_as_they_are(capsys):
    metrics = []
    for subset in ("[/x]", "[red]y", "\x1b[2J"):
        metrics.append(Metric("a[bold]", subset, 0.5, 0.4, 0.6, 10, 0, "higher", "fraction"))
    show_metrics("[/title]", "m[/]", metrics)
    shown = capsys.readouterr().out
    for text in ("[/title] · m[/]", "[/x]", "[red]y", "\\u001b[2J", "a[bold]"):
        assert text in shown


def test_a_folders_last_part_names_the_model_in_tables(tmp_path):
    from bench.cli.run import _shown_name

    (tmp_path / "a+b" / "model").mkdir(parents=True)
    (tmp_path / "lora").mkdir()
    assert _shown_name(f"{tmp_path}/a+b/model") == "model"
    assert _shown_name(f"llava+{tmp_path}/lora") == "llava+lora"
    assert _shown_name(f"replay:{tmp_path}/lora") == "replay:lora"
    assert _shown_name("openai:m@http://u:secret@h:1/v1?k=s") == "openai:m@http://h:1/v1"
    assert _shown_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_the_options_of_a_run_stand_under_headings():
    """Forty options in one list are read by nobody."""
    shown = bench("run", "--help").stdout
    order = ["What is run:", "  --model", "  --out", "How it answers:", "  --decoding"]
    order += ["Models on this machine:", "  --device ", "Models behind a server:", "  --api-option"]
    order += ["Options:", "  --json", "  -h, --help"]
    places = [shown.index(f"\n{words}") for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("model", "judge"), [("llava-tiny", "openai:gpt-4o"), ("openai:gpt-4o", "scene")]
)
def test_a_missing_key_is_told_before_data_is_fetched(tmp_path, monkeypatch, model, judge):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    words = ("--suite", "mmhal", "--data", "hub", "--out", tmp_path / "out")
    done = bench("run", "--model", model, "--judge", judge, *words)
    assert done.returncode == 2 and "OPENAI_API_KEY is not set" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_list_of_nothing_names_what_there_is():
    done = bench("list")
    assert done.returncode == 0
    assert "bench list models\n" in done.stdout and "bench list runs" in done.stdout


def test_what_a_library_says_of_a_full_disk_is_no_fault_of_ours(monkeypatch, tmp_path):
    """safetensors raises no OSError."""

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    monkeypatch.setattr("bench.models.convert.convert", full)
    done = bench("convert", "llava-tiny", tmp_path / "out")
    assert done.returncode == 2 and "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_benchmark_is_told_before_a_model_is_fetched(monkeypatch):
    def fetched(*_):
        raise AssertionError("a checkpoint of gigabytes")

    monkeypatch.setattr("bench.runs.jobs.load_model", fetched)
    done = bench("run", "--model", "owner/large", "--suite", "pope,quik", "--data", "scenes")
    assert done.returncode == 2 and "Did you mean 'quick'?" in done.stderr
    with pytest.raises(UnknownNameError, match="quik"):
        run_from_python("owner/large", ["pope", "quik"], data="scenes")


def test_what_native_code_prints_is_no_result():
    """The tokenizers of some checkpoints do, and a program that reads `--json` stumbles over it."""
    code = (
        "import os, sys, typer\n"
        "from bench.terminal import reports_errors, show\n"
        "def command():\n"
        "    os.write(1, b'Ignored unknown kwarg option \\x1b[0m\\x07\\n')\n"
        "    show('{}')\n"
        "reports_errors(command)()\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{}\nafter\n", "Ignored unknown kwarg option \\u0007\n")
