"""Differences between two conditions over seeds, with intervals that hold images and trainings.

    python docs/experiments/differences.py FIRST SECOND results.json [results.json …]

FIRST and SECOND are `base`, `grounding` or variants; the files are what `bench align --json`
printed, with the runs that they name still there. Prints the figures of the protocol.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from bench.metrics.paired import paired_over_seeds
from bench.runs.run import Run
from bench.types import scale_of

FIGURES = (
    "MMHal hallucination rate",
    "CHAIRs",
    "CHAIRi, objects once",
    "CHAIR recall",
    "AMBER Cover",
    "POPE AUC",
)
Runs = dict[str, Path]  # of one training, by benchmark


def read(files: list[str]) -> dict[str, dict[int, Runs]]:
    """The runs by condition and seed."""
    runs: dict[str, dict[int, Runs]] = defaultdict(lambda: defaultdict(dict))
    for file in files:
        for item in json.loads(Path(file).read_text(encoding="utf-8"))["aligned"]:
            for base, aligned in item["runs"]:
                name = item["recipe"].removeprefix("grounding-")
                runs["base"][item["seed"]][Path(base).name] = Path(base)
                runs[name][item["seed"]][Path(aligned).name] = Path(aligned)
    return runs


def main() -> None:
    """Prints a line for each figure."""
    first, second, *files = sys.argv[1:]
    runs = read(files)
    seeds = sorted(runs[first].keys() & runs[second].keys())
    for benchmark in runs[first][seeds[0]]:
        sides = []
        for seed in seeds:
            sides.append((Run(runs[first][seed][benchmark]), Run(runs[second][seed][benchmark])))
        for figure in sides[0][0].figures:
            if figure.title not in FIGURES:
                continue
            found = paired_over_seeds(figure, [(one.scores, two.scores) for one, two in sides])
            if found is None:
                continue
            scale, change = scale_of(figure.unit), found.paired.difference
            ends = f"[{scale * change.low:+.1f}, {scale * change.high:+.1f}]"
            print(
                f"{figure.title}: {scale * found.paired.first.value:.1f} → "
                f"{scale * found.paired.second.value:.1f}, {scale * change.value:+.1f} {ends}, "
                f"p {change.p:.2g}, seeds {', '.join(map(str, seeds))}"
            )


if __name__ == "__main__":
    main()
