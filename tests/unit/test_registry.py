"""Names are found lazily, typos are answered, and other people's packages plug in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench import registry
from bench.errors import BenchError, UnknownNameError
from tests.conftest import ROOT, bench_process

PLUGIN = '''
"""A benchmark, a model, a judge and a reward in somebody else's package."""
from dataclasses import dataclass
from bench.types import Answer, Metric, Sample, Score, Verdict

@dataclass(frozen=True)
class Colours:
    name: str = "colours"; title: str = "Colours"; version: str = "1"; suffix: str = ""; judged: bool = True
    def samples(self, data):
        return [Sample(str(i), f"{i}.png", "What color?", "red", str(i), "all") for i in range(4)]
    def max_tokens(self, sample): return 5
    def yes_no(self, sample): return False
    def score(self, sample, answer, verdict):
        return Score(sample.id, "all", sample.cluster, {"right": verdict.text == "good"})
    def metrics(self, scores):
        right = sum(s.values["right"] for s in scores)
        return [Metric("right", "all", right / len(scores), 0.0, 1.0, len(scores), 0, "higher", "fraction")]

COLOURS = Colours()

class Always:
    reads_images = False
    def __init__(self, text, options): self.text = text
    def describe(self): return {"kind": "always", "name": f"always-{self.text}"}
    def suffix(self, benchmark): return ""
    def max_tokens(self, benchmark, sample): return 5
    def recorded_images(self): return None
    def answer(self, requests, done): yield [(r, Answer(self.text)) for r in requests if r.key not in done]

class Echo:
    def __init__(self, spec, options): self.spec = spec
    def describe(self): return {"kind": "echo", "spec": self.spec}
    def judge(self, items): yield [(s, Verdict("good" if a.text == s.reference else "bad")) for s, a in items]
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "colour-plugin"
version = "1"
[project.entry-points."synth_align.benchmarks"]
colours = "colour_plugin:COLOURS"
[project.entry-points."synth_align.models"]
always = "colour_plugin:Always"
[project.entry-points."synth_align.judges"]
echo = "colour_plugin:Echo"
[project.entry-points."synth_align.rewards"]
brightness = "colour_plugin:missing"
[tool.setuptools]
py-modules = ["colour_plugin"]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> str:
    """A PYTHONPATH on which the small package is really installed."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    (source / "colour_plugin.py").write_text(PLUGIN)
    (source / "pyproject.toml").write_text(PROJECT)
    install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
        source,
    ]
    subprocess.run([sys.executable, *map(str, install)], check=True, capture_output=True)
    return os.pathsep.join([str(ROOT), str(target)])


def test_an_installed_package_adds_benchmark_model_judge_and_reward(plugin, tmp_path):
    for what, name in {"suites": "colours", "models": "always", "judges": "echo", "rewards": "brightness"}.items():
        assert name in bench_process("list", what, PYTHONPATH=plugin).stdout
    arguments = ("run", "--model", "always:red", "--suite", "colours", "--judge", "echo:x", "--data", tmp_path)
    done = bench_process(*arguments, "--out", tmp_path / "out", "--json", PYTHONPATH=plugin)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["benchmark"] == "colours" and run["metrics"][0]["value"] == 1.0


def test_a_plugin_that_cannot_be_loaded_is_named(plugin, monkeypatch):
    monkeypatch.setattr(sys, "path", [*plugin.split(os.pathsep), *sys.path])
    with pytest.raises(BenchError, match="reward 'brightness' cannot be loaded from colour_plugin:missing"):
        registry.load("rewards", "brightness")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        registry.load("benchmarks", "mmhall")
    assert "mmhall" in error.value.fact and "mmhal" in error.value.reason and "bench list suites" in error.value.remedy
    with pytest.raises(UnknownNameError, match="Known: hf, openai, replay"):
        registry.load("judges", "xyz")


@pytest.mark.parametrize("table", list(registry.TABLES))
def test_every_built_in_name_loads(table):
    for name in registry.TABLES[table]:
        assert registry.load(table, name) is not None


@pytest.mark.parametrize("arguments", [("--help",), ("list", "suites"), ("run", "--no-such-flag")])
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom bench.cli import app\n"
        f"try: app({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'datasets', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
