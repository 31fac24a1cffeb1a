"""Who may import whom: the arrows of the house point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

OURS = ("bench", "alignment", "leaderboards", "reports")
ALLOWED = {
    "bench/types.py": (),
    "bench/errors.py": (),
    "bench/stats.py": (),
    "bench/metrics/": ("bench.types", "bench.stats", "bench.metrics"),
    "bench/benchmarks/": ("bench.types", "bench.stats", "bench.errors", "bench.metrics", "bench.benchmarks"),
    "bench/models/": (
        "bench.types", "bench.errors", "bench.registry", "bench.models", "bench.chat", "bench.data.images",
        "bench.benchmarks.common",
    ),
    "bench/chat.py": ("bench.errors",),
    "bench/benchmarks/lmms.py": ("bench.types", "bench.stats", "bench.errors", "bench.data.images"),
    "bench/judges/": ("bench.types", "bench.errors", "bench.judges", "bench.chat"),
    "bench/judges/hf.py": ("bench.types", "bench.errors", "bench.judges", "bench.models.loading"),
    "bench/judges/scene.py": ("bench.types", "bench.errors", "bench.metrics", "bench.scenes"),
    "bench/scenes/world.py": (),
    "bench/scenes/render.py": ("bench.scenes.world",),
    "bench/scenes/facts.py": ("bench.scenes.world",),
    "bench/store.py": ("bench.types", "bench.errors"),
    "bench/figures.py": ("bench.types", "bench.stats", "bench.store"),
    "bench/runner.py": ("bench.types", "bench.errors", "bench.store"),
    "bench/": ("bench",),
    "alignment/": ("bench", "alignment"),
    "leaderboards/": ("bench.types", "bench.store", "bench.stats", "bench.figures", "bench.errors", "leaderboards"),
    "reports/": (
        "bench.types", "bench.store", "bench.stats", "bench.figures", "bench.errors", "leaderboards", "reports",
    ),
}  # fmt: skip
COMPOSED = (
    "bench/cli.py",
    "bench/cli_data.py",
    "bench/pytest_plugin.py",
)  # look upward, in functions
LIGHT = ("bench/types.py", "bench/errors.py", "bench/registry.py")
FILES = sorted(file.relative_to(ROOT).as_posix() for name in OURS for file in (ROOT / name).rglob("*.py"))


def imports(file: str, top_level_only: bool = False) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


@pytest.mark.parametrize("file", FILES)
def test_imports_follow_the_house(file):
    rule = max((prefix for prefix in ALLOWED if file.startswith(prefix)), key=len)
    for name in imports(file):
        if name.split(".")[0] in OURS and name not in OURS:
            allowed = any(name == ok or name.startswith(f"{ok}.") or ok.startswith(f"{name}.") for ok in ALLOWED[rule])
            assert allowed or file in COMPOSED, f"{file} imports {name}"


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith(("leaderboards/", "reports/", "bench/metrics/"))])
def test_numbers_and_reports_do_not_need_torch(file):
    assert not {"torch", "transformers"} & {name.split(".")[0] for name in imports(file)}


@pytest.mark.parametrize("file", LIGHT)
def test_the_foundations_use_the_standard_library_alone(file):
    import sys

    outside = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names) - {"bench"}
    assert not outside


def test_no_file_is_long_without_a_reason():
    long = [file for file in FILES if len((ROOT / file).read_text().splitlines()) > 400]
    assert long == []


def test_the_packages_of_the_distribution_are_those_of_the_house():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {Path(file).parent.as_posix().replace("/", ".") for file in FILES}
    assert sorted(listed) == sorted(there)
