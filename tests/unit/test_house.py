"""Who may import whom: the arrows of the house point down, and there is no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("bench", "alignment", "leaderboards", "reports")
# Rooms by floor, from the top. A room imports from itself and from lower floors.
FLOORS = (
    ("bench/__main__.py",),
    ("bench/cli/", "bench/api.py"),
    ("bench/integrations/", "bench/judges/", "alignment/", "reports/"),
    ("leaderboards/", "bench/scenes/", "bench/grounding/"),
    ("bench/runs/",),
    ("bench/models/",),
    ("bench/benchmarks/", "bench/data/"),
    (
        "bench/metrics/",
        "bench/registry.py",
        "bench/chat.py",
        "bench/files.py",
        "bench/training_curves.py",
        "bench/terminal.py",
    ),
    (
        "bench/stats.py",
        "bench/types.py",
        "bench/errors.py",
        "bench/escaping.py",
        "bench/plot_style.py",
        "bench/text_tables.py",
        "bench/yaml_text.py",
        "bench/language/",
        "bench/__init__.py",
    ),
)
# The built-in world is a source of data like the hub, and is opened where the hub is.
# `from bench import run` is the API, which is read on demand.
UPWARD = {("bench/runs/sources.py", "bench/scenes/data.py"), ("bench/__init__.py", "bench/api.py")}
STANDARD_LIBRARY_ONLY = ("bench/types.py", "bench/errors.py", "bench/registry.py")
WITHOUT_TORCH = ("bench/metrics/", "bench/language/", "bench/runs/", "leaderboards/", "reports/")
FILES = sorted(
    file.relative_to(ROOT).as_posix() for name in PACKAGES for file in (ROOT / name).rglob("*.py")
)


def import_nodes(tree: ast.Module, executed_only: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports of a module; without those under TYPE_CHECKING if only executed ones count."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_typing and executed_only:
            skipped |= {inner for part in node.body for inner in ast.walk(part)}
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in skipped:
            yield node


def imported_names(file: str, executed_only: bool = False) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    names = set()
    for node in import_nodes(tree, executed_only):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def file_of(name: str) -> str | None:
    """Our file that holds an imported name, None for other people's."""
    while name:
        path = name.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in FILES:
                return candidate
        name = name.rpartition(".")[0]
    return None


def imported_files(file: str, executed_only: bool = False) -> set[str]:
    files = map(file_of, imported_names(file, executed_only))
    return {target for target in files if target is not None}


def room_of(file: str) -> tuple[int, str]:
    """The floor, counted from the top, and the room."""
    matches = []
    for floor, rooms in enumerate(FLOORS):
        matches += [(floor, room) for room in rooms if file.startswith(room)]
    assert len(matches) == 1, f"{file} lies in {matches or 'no room'}"
    return matches[0]


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down(file):
    floor, room = room_of(file)
    for target in imported_files(file) - {file}:
        target_floor, target_room = room_of(target)
        is_down = target_floor > floor or target_room == room
        assert is_down or (file, target) in UPWARD, f"{file} imports {target}"


def test_the_upward_arrow_is_still_needed():
    for file, target in UPWARD:
        assert target in imported_files(file)


def test_no_circle():
    """Depth-first over the files, by what is imported when the code runs."""
    done: set[str] = set()

    def visit(file: str, path: tuple[str, ...]) -> None:
        assert file not in path, " → ".join([*path[path.index(file) :], file])
        if file in done:
            return
        for target in imported_files(file, executed_only=True) - {file}:
            visit(target, (*path, file))
        done.add(file)

    for file in FILES:
        visit(file, ())


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(WITHOUT_TORCH)])
def test_numbers_and_reports_do_not_need_torch(file):
    assert not {"torch", "transformers"} & {name.split(".")[0] for name in imported_names(file)}


@pytest.mark.parametrize("file", STANDARD_LIBRARY_ONLY)
def test_the_foundations_use_the_standard_library_only(file):
    packages = {name.split(".")[0] for name in imported_names(file)}
    assert not packages - set(sys.stdlib_module_names) - {"bench"}


def test_the_packages_of_the_distribution_are_those_of_the_house():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    there = {Path(file).parent.as_posix().replace("/", ".") for file in FILES}
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize(
    ("looked_for", "file", "text"),
    [
        ("the LLaVA prompt", "bench/models/conversations.py", "USER:"),
        ("the yes/no rule", "bench/metrics/yes_no.py", "def pope_answer"),
        ("how the interval is computed", "bench/stats.py", "sandwich"),
        ("where the DPO loss lives", "alignment/training/trainer.py", "dpo_loss"),
        ("add a reward", "alignment/rewards/reward.py", "class Reward"),
        ("what a run is", "bench/runs/run.py", "class Run"),
        ("what CHAIRs is", "bench/benchmarks/chair.py", "CHAIRs = captions"),
    ],
)
def test_a_newcomer_finds_it_at_the_first_guess(looked_for, file, text):
    assert text in (ROOT / file).read_text(), looked_for


def test_git_ignores_no_source_file():
    """A pattern for what runs leave behind once hid a package of that name from every commit."""
    tests = [file.relative_to(ROOT).as_posix() for file in (ROOT / "tests").rglob("*.py")]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join([*FILES, *tests]),
        capture_output=True,
        text=True,
    )
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout == ""


def test_no_two_classes_have_one_name():
    files_of: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.ClassDef):
                files_of.setdefault(node.name, []).append(file)
    assert {name: files for name, files in files_of.items() if len(files) > 1} == {}
