"""Runs against a first one, sample by sample: what is more than noise, what flipped, what could have been seen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError, StoreError
from bench.figures import Paired, figures_of, paired, read_scores
from bench.stats import detectable, holm, mcnemar
from bench.store import RunFolder, flatten
from bench.types import p_text, scale_of

COMPARED = ("benchmark", "data.files", "prompt", "judge", "model.protocol")  # what must be the same in both runs


class CompareError(BenchError):
    """Runs that cannot be compared as asked."""


@dataclass(frozen=True)
class Flips:
    """Samples that the first run had right and the second wrong, and the other way round, by subset."""

    worse: Mapping[str, Sequence[str]]
    better: Mapping[str, Sequence[str]]

    @property
    def p(self) -> float:
        """McNemar's exact test, as if all samples were independent."""
        return mcnemar(*(sum(map(len, side.values())) for side in (self.worse, self.better)))


@dataclass(frozen=True)
class Row:
    """One figure: `p_holm` is corrected over the whole table, `detectable` is the difference seen with 80 % power.

    `needed` is the number of samples at which the observed difference would have been detectable; NaN where it is 0.
    """

    paired: Paired
    p_holm: float
    detectable: float
    needed: float


@dataclass(frozen=True)
class Comparison:
    """A run of one benchmark against the first one; `differs` names what is not the same in runs compared by force."""

    benchmark: str
    first: Path
    second: Path
    matched: int
    only_first: int
    only_second: int
    differs: Sequence[str]
    rows: Sequence[Row]
    flips: Flips


def compare(first: Path, others: Sequence[Path], force: bool = False) -> list[Comparison]:
    """All benchmarks of `others` that `first` has too; both are runs or folders of runs.

    Raises CompareError where runs are not comparable (unless `force`) or share no sample.
    """
    found = []
    base = runs_in(first)
    for other in others:
        shared = [(name, base[name], folder) for name, folder in runs_in(other).items() if name in base]
        if not shared:
            raise CompareError(
                f"{first} and {other} have no benchmark in common.",
                f"One has {', '.join(base)}, the other {', '.join(runs_in(other))}.",
                "Compare runs of the same benchmark.",
            )
        found += [_compared(name, one, two, force) for name, one, two in shared]
    return corrected(found)


def runs_in(folder: Path) -> dict[str, Path]:
    """The runs in a folder by benchmark: itself, or those right below it. Raises StoreError where there is none."""
    if (folder / "run.json").is_file():
        return {str(RunFolder(folder).record()["benchmark"]["name"]): folder}
    found = {str(RunFolder(file.parent).record()["benchmark"]["name"]): file.parent
             for file in sorted(folder.glob("*/run.json"))}  # fmt: skip
    if not found:
        raise StoreError(
            f"{folder} holds no run.", "It has no run.json.", "`bench list runs` shows the runs there are."
        )
    return found


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being compared; what a record does not tell, a replay's protocol for one, keeps none."""
    told = []
    for name in COMPARED:
        one, two = (_part(record, name) for record in (first, second))
        if one is None or two is None or one == two:
            continue
        flat = [flatten(part) if isinstance(part, dict) else {"": part} for part in (one, two)]
        changed = [key for key in sorted(flat[0].keys() | flat[1].keys()) if flat[0].get(key) != flat[1].get(key)]
        told += [f"{name}{'.' if key else ''}{key}: {_short(flat[0].get(key))} and {_short(flat[1].get(key))}"
                 for key in changed]  # fmt: skip
    return told


def _part(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"


def _compared(name: str, first: Path, second: Path, force: bool) -> Comparison:
    differs = differing(RunFolder(first).record(), RunFolder(second).record())
    if differs and not force:
        raise CompareError(
            f"{first} and {second} are not comparable.",
            f"They differ in {'; '.join(differs)}.",
            "Run both alike, or compare them all the same with --force, which marks the table.",
        )
    scores = [read_scores(folder) for folder in (first, second)]
    matched = scores[0].keys() & scores[1].keys()
    if not matched:
        raise CompareError(
            f"{first} and {second} have no scored sample in common.",
            f"They have {len(scores[0])} and {len(scores[1])}.",
            "Finish the runs, or compare runs on the same data.",
        )
    found = [paired(figure, *scores) for figure in figures_of(name)]
    rows = [_row(item) for item in found if item]
    flips = _flips(*scores)
    only_first, only_second = (len(side) - len(matched) for side in scores)
    return Comparison(name, first, second, len(matched), only_first, only_second, differs, rows, flips)


def _row(item: Paired) -> Row:
    seen = detectable(item.difference.error)
    needed = item.samples * (seen / item.difference.value) ** 2 if item.difference.value else math.nan
    return Row(item, math.nan, seen, needed)


def _flips(first: Mapping[str, Any], second: Mapping[str, Any]) -> Flips:
    worse: dict[str, list[str]] = {}
    better: dict[str, list[str]] = {}
    for name, row in first.items():
        before, after = row["values"].get("correct"), second.get(name, {"values": {}})["values"].get("correct")
        if before is not None and after is not None and bool(before) != bool(after):
            (worse if before else better).setdefault(row["subset"], []).append(name)
    return Flips(worse, better)


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons, p_holm by Holm's correction over all their figures that have a better side."""
    tested = [row for item in found for row in item.rows if row.paired.figure.better != "neither"]
    sure = dict(zip(map(id, tested), holm([row.paired.difference.p for row in tested]), strict=True))
    return [
        replace(item, rows=[replace(row, p_holm=sure.get(id(row), math.nan)) for row in item.rows]) for item in found
    ]


SHOWN_FLIPS = 3


def as_text(found: Sequence[Comparison]) -> str:
    """Tables for a terminal."""
    parts = []
    for item in found:
        alone = item.only_first + item.only_second
        lines = [
            f"{item.benchmark}: {item.first} → {item.second}",
            f"{item.matched} samples that both scored, {alone} that one did; intervals by image, p after Holm over all",
        ]
        lines += [f"NOT RUN ALIKE: {difference}" for difference in item.differs]
        lines += [_line(row) for row in item.rows]
        worse, better = (sum(map(len, side.values())) for side in (item.flips.worse, item.flips.better))
        lines.append(f"  flipped to wrong {worse}, to right {better}; McNemar's exact p {p_text(item.flips.p)}")
        for direction, side in (("wrong", item.flips.worse), ("right", item.flips.better)):
            for subset, names in side.items():
                more = ", …" * (len(names) > SHOWN_FLIPS)
                lines.append(f"    {len(names):5} to {direction} in {subset}: {', '.join(names[:SHOWN_FLIPS])}{more}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(row: Row) -> str:
    item = row.paired
    scale = scale_of(item.figure.unit)
    values = f"{scale * item.first.value:8.2f} →{scale * item.second.value:7.2f}"
    change, low, high = (scale * end for end in item.difference[:3])
    seen = f"detectable {scale * row.detectable:.2f}"
    if abs(item.difference.value) < row.detectable and math.isfinite(row.needed):
        seen += f", for this one {math.ceil(row.needed):,} samples would be needed"
    p = "" if item.figure.better == "neither" else f"p {p_text(row.p_holm)}  "
    return f"  {item.figure.name:26}{values}  {f'{change:+7.2f} [{low:+.2f}, {high:+.2f}]':27}{p}{seen}"


def as_json(found: Sequence[Comparison]) -> str:
    """Everything, flips in full, for machines."""
    rows = []
    for item in found:
        figures = [
            {
                "figure": row.paired.figure.name,
                "unit": row.paired.figure.unit,
                "better": row.paired.figure.better,
                "samples": row.paired.samples,
                "first": row.paired.first,
                "second": row.paired.second,
                "difference": row.paired.difference[:3],
                "p": row.paired.difference.p,
                "p_holm": row.p_holm,
                "detectable": row.detectable,
                "needed": row.needed,
            }
            for row in item.rows
        ]
        rows.append(vars(item) | {
            "first": str(item.first), "second": str(item.second), "rows": figures,
            "flips": {"worse": item.flips.worse, "better": item.flips.better, "p_mcnemar": item.flips.p},
        })  # fmt: skip
    return json.dumps({"comparisons": _plain(rows)}, indent=2)


def _plain(value: Any) -> Any:
    """NaN as null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
