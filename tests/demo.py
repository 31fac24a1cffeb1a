"""A first run without network, weights or GPU: five drawn pictures and a LLaVA with random weights.

    python -m tests.demo [FOLDER]

The model knows nothing, so its POPE accuracy is chance and most of its answers are unparsed: that is what an honest
table shows of it. Everything else is as with a real checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.cli import app
from tests.conftest import OBJECTS, draw
from tests.tiny_models import make


def main(folder: Path) -> None:
    """Writes pictures, questions and checkpoint into `folder` and runs `bench run` on them."""
    images = folder / "images" / "coco"
    images.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(OBJECTS):
        draw(images / name, seed)
    (folder / "objects.json").write_text(json.dumps(OBJECTS))
    if not (folder / "llava-random").is_dir():
        make("llava", folder / "llava-random")
    objects = ["data", "pope", "--objects", folder / "objects.json", "--out", folder]
    asked = ["run", "--model", folder / "llava-random", "--suite", "pope", "--data", folder]
    for command in (objects, asked):
        words = [str(word) for word in command]
        print(f"\n$ bench {' '.join(words)}")
        try:
            app(words)
        except SystemExit as leaving:
            if leaving.code:
                raise


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
