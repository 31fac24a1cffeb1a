"""Values that are nearly what is asked for, each of a kind that once ended in a traceback, a hang or a wrong number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file, save_file

from bench import registry
from bench.benchmarks.objhal import image_name as objhal_image
from bench.cli.lmms_words import decoding_options
from bench.data.answer_files import image_name, read_answer_file
from bench.data.images import read_image
from bench.data.picture_sheet import Panel, Paragraph, picture_sheet
from bench.errors import BenchError, DataError, JudgeError, ModelError
from bench.judges.replay import ReplayJudge
from bench.metrics.ratings import rubric_rating
from bench.metrics.seeds import seed_of
from bench.models.protocol import read_protocol
from bench.terminal import LONGEST, show_error
from bench.yaml_text import parse_yaml
from tests.conftest import BENCH, ROOT, bench, draw

HUGE = "9" * 5000  # more digits than Python converts
SUPERSCRIPT = "\u00b2"  # a digit to str.isdigit, and no number


@pytest.mark.parametrize(
    "value",
    [
        "2001-13-45",
        "9999-99-99T99:99:99Z",
        "0x_",
        "!!int abc",
        "!!float x",
        "!!bool maybe",
        "!!timestamp abc",
        '"\\ud800"',
        HUGE,
    ],
)
def test_a_value_of_yaml_that_cannot_be_is_no_yaml(tmp_path, value):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(f"name: {value}")
    file = tmp_path / "protocol.yaml"
    file.write_text(f"name: {value}")
    with pytest.raises(ModelError, match="is not YAML"):
        read_protocol(str(file))


@pytest.mark.parametrize("base", ["[a]", "{a: b}", "1"])
def test_a_protocol_with_a_base_that_is_no_name_is_told(tmp_path, base):
    file = tmp_path / "protocol.yaml"
    file.write_text(f"base: {base}")
    with pytest.raises(ModelError, match="Its base is"):
        read_protocol(str(file))


def test_numbers_that_are_none_are_names_and_no_ratings():
    assert rubric_rating(f"It is fine.\nRating: 6/{HUGE}") is None
    assert rubric_rating(f"It is fine.\nRating: {HUGE}") is None
    assert rubric_rating("It is fine.\nRating: 6/6") == 6
    assert seed_of(f"a#seed{SUPERSCRIPT}") is seed_of(f"a#seed{HUGE}") is None
    assert seed_of("a#seed12") == 12
    assert objhal_image(SUPERSCRIPT) == SUPERSCRIPT and objhal_image(HUGE) == HUGE
    assert objhal_image(42) == "COCO_val2014_000000000042.jpg"
    assert image_name(f"COCO_val2014_{HUGE}.jpg") == f"COCO_val2014_{HUGE}.jpg"


@pytest.mark.parametrize("count", ["0", SUPERSCRIPT, "-1", "1.5", HUGE])
def test_an_answer_of_no_token_is_not_asked_for(count):
    with pytest.raises(BenchError, match="cannot take"):
        decoding_options(f"max_new_tokens={count}")


@pytest.mark.parametrize(
    "values",
    [
        {"p_yes": 1.5},
        {"p_yes": -0.1},
        {"p_yes": [0.9]},
        {"p_yes": 10**400},
        {"p_yes": True},
        {"p_no": "much"},
        {"p_yes": 0.9, "p_no": 0.9},
    ],
)
def test_probabilities_that_cannot_be_are_told_with_their_row(tmp_path, values):
    rows = [{"image": "a.jpg", "question": "Is it?", "answer": "Yes", "p_yes": 0.9, "p_no": None}]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps([*rows, *({**row, **values} for row in rows)]))
    with pytest.raises(ModelError, match=r"item 2 has .*impossible"):
        read_answer_file(file)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "nan"), "is no number of samples"),
        (("--limit", "inf"), "is no number of samples"),
        (("--decoding", "beam:1000000000"), "less than or equal to 100"),
        (("--model", "openai:m@http://[bad/v1"), "names no model"),
        (("--judge", "openai:m@http://[bad/v1"), "names no model"),
        (("--max-tokens", "99999999999999999999"), "less than or equal to 1000000"),
        (("--model", "openai:m@http://127.0.0.1:9/v1", "--price", "nan,inf"), "is not a price"),
        (("--model", "openai:m@http://127.0.0.1:9/v1", "--api-option", "a=0x_"), "a=0x_"),
    ],
)
def test_an_option_that_cannot_be_is_told(tmp_path, words, said):
    given = ("--suite", "pope", "--data", "scenes", "--out", tmp_path / "out")
    model = () if "--model" in words else ("--model", "llava-tiny")
    done = bench("run", *model, *words, *given)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_no_file_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DataError, match="cannot be read") as raised:
            read_image(tmp_path / name)
        assert "it is no regular file" in raised.value.reason


def test_a_word_of_millions_of_characters_is_drawn(tmp_path):
    panel = Panel(draw(tmp_path / "a.png", 0), [Paragraph("x" * 3_000_000)])
    assert picture_sheet("m" * 20_000, "n" * 20_000, [panel]).height < 2000


def test_an_error_is_shown_in_part_if_what_was_read_is_long(capsys):
    show_error(BenchError("x" * 2_000_000, "It is long.", "Shorten it."))
    shown = capsys.readouterr().err
    assert len(shown) < 2 * LONGEST and "It is long." in shown


NULL = '[{"sample": "s", "text": null}]'


@pytest.mark.parametrize("content", ["[{}]", '["a", 1]', '{"text": "a"}', NULL])
def test_reviews_of_another_shape_are_told_with_file_and_item(tmp_path, content):
    file = tmp_path / "reviews.json"
    file.write_text(content)
    with pytest.raises(JudgeError, match=r"reviews\.json: item [12] is no review"):
        ReplayJudge(str(file), {})


def test_names_of_a_checkpoint_that_libraries_log_are_shown_and_not_obeyed(tmp_path):
    folder = shutil.copytree(registry.MODEL_ALIASES["llava-tiny"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["\x1b]0;owned\x07\x1b[2J.weight"] = next(iter(tensors.values())).clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    words = ("run", "--model", folder, "--suite", "pope", "--data", "scenes", "--limit", "2")
    command = [*BENCH, *map(str, words), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and "LOAD REPORT" in done.stderr, "transformers tells of it too"
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


def test_a_library_that_logs_in_colours_is_read_without_them():
    command = (
        "import logging\nfrom bench.terminal import reports_errors\n"
        "reports_errors(lambda: logging.getLogger('x').warning('\\x1b[1m%s\\x1b[0m', 'a\\x07'))()"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stderr == "a\\u0007\n"


ODD = """
from bench.types import Answer


class Odd:
    OPTIONS = frozenset()
    reads_images = False
    source = adapter = recorded = None

    def __init__(self, text, options):
        self.p_yes = float(text)

    def describe(self):
        return {"kind": "odd", "name": "odd"}

    def suffix(self, benchmark):
        return benchmark.suffix

    def max_tokens(self, benchmark, sample):
        return benchmark.max_tokens(sample)

    def answer(self, requests, done):
        yield [(request, Answer("Yes", p_yes=self.p_yes, p_no=0.0)) for request in requests]
"""


@pytest.mark.parametrize(("p_yes", "code"), [("nan", 3), ("1.5", 3), ("1.0000001", 0)])
def test_an_impossible_probability_of_another_packages_model_is_no_answer(
    tmp_path, monkeypatch, p_yes, code
):
    (tmp_path / "odd_model.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.MODELS, "odd", "odd_model:Odd")
    words = ("--suite", "pope", "--data", "scenes", "--limit", "6", "--out", tmp_path / "runs")
    done = bench("run", "--model", f"odd:{p_yes}", *words)
    assert done.returncode == code, done.stderr
    assert ("a probability of" in done.stderr) == (code == 3)
