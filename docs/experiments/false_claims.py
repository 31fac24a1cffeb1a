"""What is false in MMHal-style answers, by kind, from the runs of recorded results.

    python docs/experiments/false_claims.py results.json

Prints the share of answers with a false object, a false number, and a false place, size or
position; and how many numbers above one an answer names. `results.json` is what
`bench align --json` printed, and is read where it was; the judge's words name each false claim.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

KINDS = {
    "a false object": {"objects"},
    "a false number": {"counts"},
    "a false place, size or position": {"places", "sizes", "larger", "positions", "leftmost"},
}
CLAIM = re.compile(r"\('(\w+)'")
NUMBERS = re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten)\b")


def rows(file: Path) -> Iterator[dict[str, object]]:
    """The rows of a file of JSON lines."""
    for line in file.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def shares(run: Path) -> list[float]:
    """Of a run's answers: the share in percent with each kind of false claim; numbers an answer."""
    kinds_of = []
    for row in rows(run / "verdicts.jsonl"):
        false = str(row["text"]).partition("Gives ")[0]
        kinds_of.append(set(CLAIM.findall(false)))
    values = []
    for kinds in KINDS.values():
        values.append(100 * statistics.fmean(bool(kinds & false_kinds) for false_kinds in kinds_of))
    texts = [str(row["text"]) for row in rows(run / "answers.jsonl")]
    values.append(statistics.fmean(len(NUMBERS.findall(text)) for text in texts))
    return values


def main() -> None:
    """Prints a table: means over the seeds."""
    runs_of: dict[str, list[Path]] = {}
    for item in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["aligned"]:
        for base, aligned in item["runs"]:
            if Path(base).name == "mmhal":
                runs_of.setdefault("base", [Path(base)])
                name = item["recipe"].removeprefix("grounding-")
                runs_of.setdefault(name, []).append(Path(aligned))
    print(f"| % of MMHal-style answers with | {' | '.join(KINDS)} | numbers above one an answer |")
    print(f"|---|{'---:|' * (len(KINDS) + 1)}")
    for name, runs in runs_of.items():
        means = [statistics.fmean(values) for values in zip(*map(shares, runs), strict=True)]
        print(
            f"| {name} | {' | '.join(f'{value:.1f}' for value in means[:-1])} | {means[-1]:.2f} |"
        )


if __name__ == "__main__":
    main()
