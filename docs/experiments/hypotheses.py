"""The protocol's tests: each comparison of H1 to H5, with Holm's correction over all of them.

    python docs/experiments/hypotheses.py docs/experiments/tests.json results.json [results.json …]

The results are what `bench align --json` printed, with the runs that they name still there. What is
found goes into tests.json, in the place of an earlier finding of the same comparison, so that the
conditions may be run on different days. Prints a Markdown table of all that stands there; a
comparison that was never made is named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

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
    """Makes the comparisons that can be made, and prints a row for each figure of all."""
    file, *results = map(Path, sys.argv[1:])
    known: dict[str, list[dict[str, Any]]] = {}  # comparison → its figures
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
    runs = read(list(map(str, results)))
    for _, first, second in COMPARISONS:
        if not runs[first].keys() & runs[second].keys():
            continue
        rows = []
        for item, seeds in differences(runs, first, second):
            change = {"difference": in_words(item), "p": item.difference.p, "seeds": seeds}
            rows.append({"figure": item.figure.title, **change})
        known[f"{first} → {second}"] = rows
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = []
    for hypothesis, first, second in COMPARISONS:
        name = f"{first} → {second}"
        if name not in known:
            print(f"{hypothesis}, {name}: not made yet", file=sys.stderr)
        lines += [(hypothesis, name, row) for row in known.get(name, ())]
    corrected = holm([row["p"] for *_, row in lines])
    print("| | comparison | seeds | figure | difference | p, Holm |")
    print("|---|---|---:|---|---:|---:|")
    for (hypothesis, name, row), p in zip(lines, corrected, strict=True):
        seeds = str(len(row["seeds"]))
        cells = (hypothesis, name, seeds, row["figure"], row["difference"], format_p(p))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
