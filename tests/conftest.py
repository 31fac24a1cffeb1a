"""What many tests share: the public evaluation data, tiny checkpoints, the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# readline tells it to the processes of pytest-xdist; what is tested is a pipe without a width.
os.environ.pop("COLUMNS", None)
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny models: threads that wait for each other cost more than they give
ROOT = Path(__file__).resolve().parents[1]
BENCH = [sys.executable, "-c", "from bench.cli.main import app; app()"]
SHARED = ROOT.parent / "shared" / "data"
OBJECTS = {
    "kitchen.png": ["cup", "bottle", "oven", "bowl"],
    "street.png": ["car", "bus", "person"],
    "park.png": ["dog", "person", "frisbee", "bench"],
    "zoo.png": ["zebra", "giraffe", "bird"],
    "room.png": ["couch", "tv", "cat"],
}


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real questions, photographs and answers; they stay outside the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the public evaluation data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny(kind): the folder of a tiny random checkpoint, made once a session."""
    from tests.tiny_models import NEED_TORCHVISION, make

    root = tmp_path_factory.mktemp("tiny")

    def folder_of(kind: str) -> Path:
        if kind in NEED_TORCHVISION:
            pytest.importorskip("torchvision", reason="transformers' Pixtral needs torchvision")
        return root / kind if (root / kind).is_dir() else make(kind, root / kind)

    return folder_of


def draw(path: Path, seed: int, size: tuple[int, int] = (90, 60)) -> Path:
    """A small picture that differs by seed and is not square."""
    image = Image.new(
        "RGB", size, ((seed * 67) % 256, (seed * 31 + 90) % 256, (seed * 151 + 40) % 256)
    )
    box = (5 + seed % 17, 5, size[0] // 2 + seed % 23, size[1] - 8)
    ImageDraw.Draw(image).ellipse(
        box, fill=((seed * 97 + 130) % 256, (seed * 13) % 256, 255 - seed % 256)
    )
    image.save(path)
    return path


def scene_stages(root: Path, texts: Callable[[int], tuple[str, str, str]]) -> dict[str, Path]:
    """Stage folders with six scenes and a pair about each.

    `texts` gives instruction, chosen and rejected response by number.
    """
    from bench.files import append_lines
    from bench.scenes.render import render
    from bench.scenes.world import scenes

    (root / "images" / "images").mkdir(parents=True)
    (root / "preferences").mkdir()
    rows = []
    for number, item in enumerate(scenes("train", 3, 6)):
        render(item).save(root / "images" / "images" / item.name)
        instruction, chosen, rejected = texts(number)
        rows.append(
            {
                "image": f"images/{item.name}",
                "instruction": instruction,
                "chosen": chosen,
                "rejected": rejected,
            }
        )
    append_lines(root / "preferences" / "pairs.jsonl", rows)
    return {"images": root / "images", "preferences": root / "preferences"}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with POPE questions about five drawn pictures, made by `bench data pope`."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "images" / "coco").mkdir(parents=True)
    for seed, name in enumerate(OBJECTS):
        draw(root / "images" / "coco" / name, seed)
    (root / "objects.json").write_text(json.dumps(OBJECTS))
    done = bench("data", "pope", "--objects", root / "objects.json", "--out", root)
    assert done.returncode == 0, done.stderr
    return root


class Terminal(io.StringIO):
    """What is written to a terminal; how wide it is, COLUMNS says."""

    def isatty(self) -> bool:
        return True


def bench(
    *arguments: Any, cwd: Path | None = None, out: io.StringIO | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process, which spares the seconds that importing torch takes."""
    from bench.cli.main import app

    words = [str(argument) for argument in arguments]
    out, err, code = out or io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app(words)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def bench_process(
    *arguments: Any, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the real command in a process of its own."""
    return subprocess.run(
        [*BENCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=300,
    )


def metrics(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """A run's metrics by (name, subset)."""
    rows = json.loads((run / "metrics.json").read_text())["metrics"]
    return {(row["name"], row["subset"]): row for row in rows}


def run_of(done: subprocess.CompletedProcess[str]) -> Path:
    """The folder of the only run in --json output."""
    (run,) = json.loads(done.stdout)["runs"]
    return Path(run["folder"])
