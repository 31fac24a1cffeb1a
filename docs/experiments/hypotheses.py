"""The protocol's tests: each comparison of H1 to H5, with Holm's correction over all of them.

    python docs/experiments/hypotheses.py results.json [results.json …]

The files are what `bench align --json` printed, with the runs that they name still there. Prints a
Markdown table; a comparison without runs is left out of the family and named.
"""

from __future__ import annotations

import sys

from differences import differences, in_words, read

from bench.stats import holm
from bench.types import format_p

COMPARISONS = (
    ("H1", "base", "grounding"),
    ("H2", "wrong-image", "grounding"),
    ("H2", "blank-image", "grounding"),
    ("H2", "shuffled", "grounding"),
    ("H2", "random", "grounding"),
    ("H3", "text-only", "grounding"),
    ("H4", "base", "own-8"),
    ("H5", "own-4", "own-8"),
    ("H5", "own-8", "own-16"),
    ("H5", "pairs-350", "pairs-700"),
    ("H5", "pairs-700", "pairs-1400"),
    ("H5", "pairs-1400", "grounding"),
)


def main() -> None:
    """Prints a row for each figure of each comparison."""
    runs = read(sys.argv[1:])
    rows = []
    for hypothesis, first, second in COMPARISONS:
        if not runs[first].keys() & runs[second].keys():
            print(f"{hypothesis}, {first} → {second}: not in the family, no runs", file=sys.stderr)
            continue
        for item, seeds in differences(runs, first, second):
            rows.append((hypothesis, f"`{first}` → `{second}`", item, len(seeds)))
    corrected = holm([item.difference.p for *_, item, _ in rows])
    print("| | comparison | seeds | figure | difference | p, Holm |")
    print("|---|---|---:|---|---:|---:|")
    for (hypothesis, comparison, item, seeds), p in zip(rows, corrected, strict=True):
        cells = (hypothesis, comparison, str(seeds), item.figure.title, in_words(item), format_p(p))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
