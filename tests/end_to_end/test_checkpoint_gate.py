"""A checkpoint gated in somebody's own tests: the shipped model passes against itself, noise on
its weights fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    assert "--bench-model needs --bench-ref" in gated(project, "--bench-model", "llava-tiny").stdout
    lost = gated(project, "--bench-model", "llava-tiny", "--bench-ref", "lost.json").stdout
    assert "lost.json cannot be read" in lost
