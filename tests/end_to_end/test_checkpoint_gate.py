"""A checkpoint gated in somebody's own tests: the shipped model passes against itself, noise on
its weights fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.files import read_lines
from bench.models.checkpoints import locate
from tests.conftest import bench

TEST = "def test_the_checkpoint_is_no_worse(bench_gate):\n    assert bench_gate.passed, bench_gate.report\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Somebody's project: a test, a reference of llava-tiny on 300 questions, and what it was made
    from."""
    from bench import registry

    folder = tmp_path_factory.mktemp("project")
    (folder / "test_checkpoint.py").write_text(TEST)
    done = bench(
        "run",
        "--model",
        "llava-tiny",
        "--suite",
        "pope",
        "--data",
        "scenes",
        "--limit",
        "300",
        "--out",
        folder / "runs",
    )
    assert done.returncode == 0, done.stderr
    assert bench("check", folder / "runs", "--save", folder / "reference.json").returncode == 0
    source = locate(registry.MODEL_ALIASES["llava-tiny"], None)
    noisy = shutil.copytree(source, folder / "noisy")
    weights = load_file(noisy / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for weight in weights.values():
        if weight.ndim == 2:
            weight += (
                0.3
                * weight.float().std()
                * torch.randn(weight.shape, generator=generator).to(weight.dtype)
            )
    save_file(weights, noisy / "model.safetensors", metadata={"format": "pt"})
    return folder


def gated(folder, *words):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        *words,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_model_of_the_reference_passes(project):
    done = gated(project, "--bench-model", "llava-tiny", "--bench-ref", "reference.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_noise_on_the_weights_fails_and_the_samples_are_named(project):
    done = gated(project, "--bench-model", "noisy", "--bench-ref", "reference.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL  POPE accuracy" in done.stdout
    named = re.findall(r"^E +(\w+)/\d+ \((\w+)\): 1 → 0$", done.stdout, re.MULTILINE)
    assert len(named) == 10
    assert all(
        name == subset and name in ("random", "popular", "adversarial") for name, subset in named
    )


def test_without_a_model_the_test_is_skipped(project):
    done = gated(project)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


def test_a_missing_reference_is_told(project):
    alone = gated(project, "--bench-ref", "reference.json").stdout
    assert "--bench-model and --bench-ref belong together" in alone
    lost = gated(project, "--bench-model", "llava-tiny", "--bench-ref", "lost.json").stdout
    assert "lost.json cannot be read" in lost


def test_a_project_with_a_folder_bench_of_its_own_keeps_its_pytest(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    (tmp_path / "test_own.py").write_text(
        "import bench\ndef test_own():\n    assert bench.__file__\n"
    )
    done = gated(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "test_gate.py").write_text(TEST)
    (tmp_path / "reference.json").write_text("{}")
    hidden = gated(tmp_path, "--bench-model", "llava-tiny", "--bench-ref", "reference.json")
    assert hidden.returncode != 0
    assert "1 passed" in hidden.stdout


@pytest.mark.slow
def test_the_options_of_the_model_reach_it(project):
    words = ("--bench-model", "llava-tiny", "--bench-ref", "reference.json")
    done = gated(project, *words, "--bench-decoding", "wild")
    assert done.returncode != 0
    assert "wild" in done.stdout and "beam" in done.stdout, "it is refused, and told what there is"


def test_samples_that_lost_stand_with_question_picture_and_both_answers(project, tmp_path):
    words = ("run", "--model", project / "noisy", "--suite", "pope", "--data", "scenes")
    assert bench(*words, "--limit", "300", "--out", tmp_path / "noisy").returncode == 0
    done = bench("check", tmp_path / "noisy", "--against", project / "reference.json")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("FAIL  POPE acc"))
    sample, asked, before, now = (line.strip() for line in lines[start + 1 : start + 5])
    name = re.match(r"(\w+/\d+) \(\w+\): 1 → 0$", sample)[1]
    question, picture = asked.split(" · ")
    assert re.fullmatch(r"Is there an? .+ in the image\?", question)
    assert picture.endswith(".png") and Path(picture).is_file()
    assert {before, now} in ({"before: Yes", "now: No"}, {"before: No", "now: Yes"})
    # The surest mistakes first.
    scores = {
        row["sample"]: row for row in read_lines(tmp_path / "noisy" / "pope" / "scores.jsonl")
    }
    shown = re.findall(r"^ +(\w+/\d+) \(\w+\): 1 → 0$", done.stdout, re.MULTILINE)[:10]
    sureness = [abs(scores[name]["values"]["p_yes"] - 0.5) for name in shown]
    assert shown[0] == name and sureness == sorted(sureness, reverse=True)
