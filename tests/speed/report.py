"""Times the board and the report over runs of 9,000 answers each, made from one real run with answers flipped.

    python -m tests.speed.report RUN [--runs 20]

RUN is a folder with a finished run of POPE. The board of all runs is timed cold, with every pair's bootstrap against
the first (`bench compare`); then the report of two runs with its page.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.recorded_runs import sealed

ROOT = Path(__file__).resolve().parents[2]
BENCH = [sys.executable, "-c", "from bench.cli.main import app; app()"]


def copies(source: Path, folder: Path, count: int) -> list[Path]:
    """Runs like `source`, each with some answers turned round."""
    copied = []
    for number in range(count):
        target = folder / f"run-{number}" / source.name
        shutil.copytree(source, target)
        rng = random.Random(number)
        rows = [json.loads(line) for line in (target / "scores.jsonl").read_text().splitlines()]
        for row in rows:
            if rng.random() < 0.02:
                row["values"]["correct"] = not row["values"]["correct"]
        (target / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sealed(target)
        copied.append(target.parent)
    return copied


def timed(*words: object) -> float:
    """Seconds of a bench command in a process of its own."""
    started = time.perf_counter()
    subprocess.run([*BENCH, *map(str, words)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Prints seconds, and the page's size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        copied = copies(asked.run.resolve(), Path(name), asked.runs)
        print(f"board of {len(copied)} runs: {timed('board', *copied):.1f} s")
        print(f"compare {len(copied) - 1} with the first: {timed('compare', *copied):.1f} s")
        out = Path(name) / "report"
        print(f"report of 2 runs: {timed('report', *copied[:2], '--paper', '--out', out):.1f} s")
        print(f"page: {(out / 'index.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
