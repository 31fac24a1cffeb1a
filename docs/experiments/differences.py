"""Differences between two conditions over seeds, with intervals that hold images and trainings.

    python docs/experiments/differences.py FIRST SECOND results.json [results.json …]

FIRST and SECOND are `base`, `grounding` or variants; the files are what `bench align --json`
printed, with the runs that they name still there. Prints the figures of the protocol.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.metrics.paired import Paired, paired_over_seeds
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


@cache
def run_of(folder: Path) -> Run:
    """A run whose scores are read once, however many comparisons it is in."""
    return Run(folder)


def differences(
    runs: dict[str, dict[int, Runs]], first: str, second: str
) -> Iterator[tuple[Paired, list[int]]]:
    """Each figure of the second condition against the first, over the seeds that both have."""
    seeds = sorted(runs[first].keys() & runs[second].keys())
    for benchmark in runs[first][seeds[0]]:
        sides = []
        for seed in seeds:
            sides.append([run_of(runs[name][seed][benchmark]) for name in (first, second)])
        for figure in sides[0][0].figures:
            if figure.title in FIGURES:
                found = paired_over_seeds(figure, [(one.scores, two.scores) for one, two in sides])
                if found is not None:
                    yield found.paired, seeds


def in_words(item: Paired) -> str:
    """Such as "58.3 → 28.8, −29.5 [−33.2, −25.9]", in percent."""
    scale, change = scale_of(item.figure.unit), item.difference
    ends = f"[{scale * change.low:+.1f}, {scale * change.high:+.1f}]"
    values = f"{scale * item.first.value:.1f} → {scale * item.second.value:.1f}"
    return f"{values}, {scale * change.value:+.1f} {ends}".replace("-", "−")


def main() -> None:
    """Prints a line for each figure."""
    first, second, *files = sys.argv[1:]
    for item, seeds in differences(read(files), first, second):
        listed = ", ".join(map(str, seeds))
        print(f"{item.figure.title}: {in_words(item)}, p {item.difference.p:.2g}, seeds {listed}")


if __name__ == "__main__":
    main()
