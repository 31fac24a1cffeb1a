"""Names are found lazily, and typos are answered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import registry
from bench.errors import UnknownNameError
from tests.conftest import ROOT, bench


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        registry.load("benchmarks", "mmhall")
    assert (
        "mmhall" in error.value.fact
        and "mmhal" in error.value.reason
        and "bench list suites" in error.value.remedy
    )
    with pytest.raises(UnknownNameError, match="Known: grounding, hf, openai, replay"):
        registry.load("judges", "xyz")


@pytest.mark.parametrize("table", list(registry.TABLES))
def test_every_built_in_name_loads(table):
    for name in registry.TABLES[table]:
        assert registry.load(table, name) is not None


@pytest.mark.parametrize("arguments", [("--help",), ("list", "suites"), ("run", "--no-such-flag")])
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom bench.cli.main import app\n"
        f"try: app({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'datasets', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("module", ["bench", "bench.cli"])
def test_the_command_runs_as_a_module(module):
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("synth-align ")


def test_benchmarks_are_listed_under_what_people_call_them():
    listed = bench("list", "suites").stdout
    assert listed == bench("list", "benchmarks").stdout == bench("list", "tasks").stdout
    assert "HallusionBench" in listed


def test_shipped_recipes_are_listed_and_found_by_name(tmp_path):
    listed = bench("list", "recipes").stdout
    assert "scenes-tiny" in listed and "synthalign-llava-7b" in listed
    done = bench("align", "scenes-tiny", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("scenes-tiny: items")
    wrong = bench("align", "scenes-tinny", cwd=tmp_path)
    assert wrong.returncode == 2 and "scenes-tiny" in wrong.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lmms", "The form is lmms:NAME"),
        ("pope:x", "The form is pope"),
        ("mmhall", "Did you mean 'mmhal'?"),
        ("lms:x", "Known|Did you mean"),
    ],
)
def test_benchmarks_of_a_wrong_form_are_answered(name, reason):
    with pytest.raises(UnknownNameError, match=reason):
        registry.benchmark(name)
