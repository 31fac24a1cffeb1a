"""What is false in MMHal-style answers, by kind, from the runs of recorded results.

    python docs/experiments/false_claims.py results.json

Prints the share of answers with a false object, a false number, and a false place, size or
position; and how many numbers above one an answer names. `results.json` is what
`bench align --json` printed, and is read where it was; the judge's reviews list the claims.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.metrics.claim_reviews import CheckedClaim, claims_in

OBJECT, NUMBER = "a false object", "a false number"
OTHER = "a false place, size or position"
KINDS = (OBJECT, NUMBER, OTHER)
ASKS_FOR_OBJECT = re.compile(r"Is there an? .+ in the image\?")
ASKS_FOR_NUMBER = re.compile(r"(?:Is|Are) there .+ in the image\?")
NUMBERS = re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten)\b")


def rows(file: Path) -> Iterator[dict[str, object]]:
    """The rows of a file of JSON lines."""
    for line in file.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def shares(run: Path) -> list[float]:
    """Of a run's answers: the share in percent with each kind of false claim; numbers an answer."""
    kinds_of = []
    for row in rows(run / "verdicts.jsonl"):
        claims = claims_in(str(row["text"])) or []
        # A false denial says of no object that it is there.
        kinds_of.append({_kind(item) for item in claims if not item.holds and not item.denied})
    values = []
    for kind in KINDS:
        values.append(100 * statistics.fmean(kind in kinds for kinds in kinds_of))
    texts = [str(row["text"]) for row in rows(run / "answers.jsonl")]
    values.append(statistics.fmean(len(NUMBERS.findall(text)) for text in texts))
    return values


def _kind(claim: CheckedClaim) -> str:
    if ASKS_FOR_OBJECT.fullmatch(claim.question):
        return OBJECT
    return NUMBER if ASKS_FOR_NUMBER.fullmatch(claim.question) else OTHER


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
