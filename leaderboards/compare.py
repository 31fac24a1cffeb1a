"""Runs against a first one, sample by sample.

What is more than noise, what flipped, and what could have been seen at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.files import indented
from bench.metrics.paired import Paired, change_of, paired
from bench.metrics.seeds import alike, question_of
from bench.runs.run import Run, by_benchmark, find_runs
from bench.runs.store import NOT_TOLD_BEFORE, flatten
from bench.stats import detectable, holm, sign_flip
from bench.text_tables import remark
from bench.types import CAVEAT, Score, caveats_of, format_p, scale_of

# What must be the same in both runs.
COMPARED = ("benchmark", "data.files", "prompt", "judge", "model.protocol")
SIGNIFICANT = 0.05
SHOWN_FLIPS = 3
TITLE_WIDTH = 24  # so that a line fits a terminal of 80 columns
SHOWN_LENGTH = 40  # characters of a value in an error


Verdict = Literal["better", "worse", "noise", ""]


class CompareError(BenchError):
    """Runs that cannot be compared as asked."""


@dataclass(frozen=True)
class Flips:
    """Samples that the first run had right and the second wrong, and the reverse, by subset.

    `nets` are, for each image with a flip, how many samples became better less worse.
    """

    worse: Mapping[str, Sequence[str]]
    better: Mapping[str, Sequence[str]]
    nets: Sequence[int] = ()

    @property
    def counts(self) -> tuple[int, int]:
        """How many samples became worse, and better."""
        return sum(map(len, self.worse.values())), sum(map(len, self.better.values()))

    @property
    def p(self) -> float:
        """The exact sign-flip test over images: questions about one image are not independent."""
        return sign_flip(self.nets)


@dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        paired: The comparison.
        p_holm: Its p-value corrected over the whole table; NaN if neither side is better.
        detectable: The difference that so many samples show with 80 % power.
        needed: How many samples would show the observed difference; NaN if it is 0.
    """

    paired: Paired
    p_holm: float
    detectable: float
    needed: float


@dataclass(frozen=True)
class Comparison:
    """A run of one benchmark against the first one.

    `differs` names what is not the same in runs that are compared by force. `caveats` are those of
    either run's numbers, with its folder. `seconds` are what an answer took on average in each,
    where both were timed.
    """

    benchmark: str
    first: Path
    second: Path
    matched: int
    only_first: int
    only_second: int
    differs: Sequence[str]
    rows: Sequence[Row]
    flips: Flips
    caveats: Sequence[tuple[Path, str]] = ()
    seconds: tuple[float, float] | None = None


def compare(first: Path, others: Sequence[Path], force: bool = False) -> list[Comparison]:
    """All benchmarks of `others` that `first` has too; both are runs or folders of runs.

    Raises StoreError if `first` has two runs of one benchmark, CompareError if runs are not
    comparable (unless `force`) or share no sample.
    """
    return compare_runs(find_runs(first), list(map(find_runs, others)), force)


def compare_runs(
    first: Sequence[Run], others: Sequence[Sequence[Run]], force: bool = False
) -> list[Comparison]:
    """As `compare`, of runs that are read already."""
    base = by_benchmark(first)
    comparisons = []
    for runs in others:
        # Several runs of one benchmark may stand here: each is compared with the first.
        shared = [run for run in runs if run.benchmark in base]
        if not shared:
            raise CompareError(
                f"{_folders(first)} and {_folders(runs)} have no benchmark in common.",
                f"One has {', '.join(base)}, the other "
                f"{', '.join(dict.fromkeys(run.benchmark for run in runs))}.",
                "Compare runs of the same benchmark.",
            )
        for run in shared:
            comparisons.append(_compare(base[run.benchmark], run, force))
    return corrected(comparisons)


def _folders(runs: Sequence[Run]) -> str:
    return ", ".join(map(str, dict.fromkeys(run.folder for run in runs)))


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What keeps two runs from being compared, from their records.

    What a record does not tell, a replay's protocol for one, keeps none.
    """
    differences = []
    for name in COMPARED:
        one, other = _part(first, name), _part(second, name)
        if one is None or other is None or one == other:
            continue
        flat_one = flatten(one) if isinstance(one, dict) else {"": one}
        flat_other = flatten(other) if isinstance(other, dict) else {"": other}
        for key in sorted(flat_one.keys() | flat_other.keys()):
            a, b = flat_one.get(key), flat_other.get(key)
            full_name = f"{name}.{key}" if key else name
            # A run of one subset has not read the files of the others.
            need_not_tell = name == "data.files" or full_name in NOT_TOLD_BEFORE
            if need_not_tell and None in (a, b):
                continue
            if a != b:
                differences.append(f"{full_name}: {_short(a)} and {_short(b)}")
    return differences


def _other_lists(first: Run, second: Run) -> list[str]:
    """Subsets in which each run has samples that the other was not asked.

    A part of a list, as under --limit, is no other list.
    """
    differences = []
    asked = [ids_by_subset(run) for run in (first, second)]
    for subset in asked[0].keys() & asked[1].keys():
        only = [asked[index][subset] - asked[1 - index][subset] for index in (0, 1)]
        if all(only):
            differences.append(
                f"samples of {subset}: {len(only[0]):,} only in one, {len(only[1]):,} in the other"
            )
    return sorted(differences)


def ids_by_subset(run: Run) -> dict[str, set[str]]:
    """The questions that a run was asked, scored or not."""
    ids: dict[str, set[str]] = {}
    for score in run.scores.values():
        ids.setdefault(score.subset, set()).add(question_of(score.sample))
    return ids


def _part(record: Mapping[str, Any], name: str) -> Any:
    value: Any = record
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:16]}…"


def _compare(first: Run, second: Run, force: bool) -> Comparison:
    differs = differing(first.record, second.record) + _other_lists(first, second)
    if differs and not force:
        raise CompareError(
            f"{first.folder} and {second.folder} are not comparable.",
            f"They differ in {'; '.join(differs)}.",
            "Run both alike, or compare them all the same with --force, which marks the table.",
        )
    scores = alike(first.scored, second.scored)
    matched = scores[0].keys() & scores[1].keys()
    if not matched:
        raise CompareError(
            f"{first.folder} and {second.folder} have no scored sample in common.",
            f"They have {len(scores[0])} and {len(scores[1])}.",
            "Finish the runs, or compare runs on the same data.",
        )
    rows = []
    for figure in first.figures:
        item = paired(figure, *scores)
        if item is not None:
            rows.append(_row(item))
    return Comparison(
        first.benchmark,
        first.folder,
        second.folder,
        len(matched),
        len(scores[0]) - len(matched),
        len(scores[1]) - len(matched),
        differs,
        rows,
        _flips(*scores),
        _caveats(first, second),
        _seconds(first, second),
    )


def _seconds(first: Run, second: Run) -> tuple[float, float] | None:
    means = []
    for run in (first, second):
        spent = [recorded.answer.seconds for recorded in run.answers.values()]
        means.append(sum(spent) / len(spent) if spent else 0.0)
    return (means[0], means[1]) if all(means) else None


def _caveats(*runs: Run) -> list[tuple[Path, str]]:
    caveats = []
    for run in runs:
        # A run may be compared before it has metrics.
        metrics = run.metrics if run.finished else []
        for caveat in caveats_of(metrics):
            caveats.append((run.folder, caveat))
    return list(dict.fromkeys(caveats))


def _row(item: Paired) -> Row:
    smallest = detectable(item.difference.error)
    needed = math.nan
    if item.difference.value:
        # The standard error falls with the square root of the number of samples.
        needed = item.samples * (smallest / item.difference.value) ** 2
    return Row(item, math.nan, smallest, needed)


def _flips(first: Mapping[str, Score], second: Mapping[str, Score]) -> Flips:
    worse: dict[str, list[str]] = {}
    better: dict[str, list[str]] = {}
    nets: dict[str, int] = {}
    for name, score in first.items():
        if name not in second:
            continue
        before, after = score.values.get("correct"), second[name].values.get("correct")
        # Not every benchmark can call an answer right or wrong.
        if before is None or after is None or bool(before) == bool(after):
            continue
        side = worse if before else better
        side.setdefault(score.subset, []).append(name)
        nets[score.cluster] = nets.get(score.cluster, 0) + (-1 if before else 1)
    return Flips(worse, better, list(nets.values()))


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p_holm, Holm's correction over all figures with a better side."""
    # A figure with no better side, such as the yes-ratio, is a description and no hypothesis.
    tested = []
    for comparison in comparisons:
        for row in comparison.rows:
            if row.paired.figure.better != "neither":
                tested.append(row.paired.difference.p)
    p_values = iter(holm(tested))
    done = []
    for comparison in comparisons:
        rows = []
        for row in comparison.rows:
            is_tested = row.paired.figure.better != "neither"
            rows.append(replace(row, p_holm=next(p_values) if is_tested else math.nan))
        done.append(replace(comparison, rows=rows))
    return done


def verdict(row: Row) -> Verdict:
    """Whether the second model is better or worse by more than noise; "" if neither side is better.

    By the p-value corrected over the whole table.
    """
    better = row.paired.figure.better
    if better == "neither" or math.isnan(row.p_holm):
        return ""
    if row.p_holm >= SIGNIFICANT:
        return "noise"
    is_higher = row.paired.difference.value > 0
    return "better" if is_higher == (better == "higher") else "worse"


def gain(row: Row) -> tuple[float, float, float]:
    """The difference as shown, its value, low and high turned so that above 0 is better."""
    figure = row.paired.figure
    scale = scale_of(figure.unit)
    value, low, high = (scale * end for end in row.paired.difference[:3])
    return (-value, -high, -low) if figure.better == "lower" else (value, low, high)


def as_text(comparisons: Sequence[Comparison]) -> str:
    """Tables for a terminal, and how many figures are better and worse."""
    verdicts: list[Verdict] = []
    for comparison in comparisons:
        verdicts += map(verdict, comparison.rows)
    counts = f"{verdicts.count('better')} better, {verdicts.count('worse')} worse"
    summary = f"{counts}, {verdicts.count('noise')} no more than noise"
    return "\n\n".join([*map(_comparison_text, comparisons), summary])


def with_sides(caveats: Iterable[tuple[object, str]]) -> list[str]:
    """Each caveat of two sides once, behind the side that it is of, or "both".

    Args:
        caveats: Sides with a caveat of theirs.
    """
    sides_of: dict[str, list[object]] = {}
    for side, caveat in caveats:
        sides_of.setdefault(caveat, []).append(side)
    texts = []
    for caveat, sides in sides_of.items():
        texts.append(f"{'both' if len(sides) > 1 else sides[0]}: {caveat}")
    return texts


def _comparison_text(comparison: Comparison) -> str:
    unmatched = comparison.only_first + comparison.only_second
    remarks = [
        f"{comparison.matched} samples that both scored, {unmatched} that one did; "
        "intervals by image, p by Holm's correction over all"
    ]
    remarks += [f"NOT RUN ALIKE: {difference}" for difference in comparison.differs]
    remarks += [f"{CAVEAT} {text}" for text in with_sides(comparison.caveats)]
    lines = [f"{comparison.benchmark}: {comparison.first} → {comparison.second}"]
    for text in remarks:
        lines += remark(text)
    lines += map(_line, comparison.rows)
    if comparison.seconds is not None:
        before, after = comparison.seconds
        lines.append(f"  seconds an answer: {before:.3g} → {after:.3g} ({after / before:.2f} ×)")
    flips = comparison.flips
    worse, better = flips.counts
    lines += remark(
        f"  flipped to wrong {worse}, to right {better}; p for no net change, by image, "
        f"{format_p(flips.p)}",
        "    ",
    )
    for direction, by_subset in (("wrong", flips.worse), ("right", flips.better)):
        for subset, names in by_subset.items():
            more = ", …" if len(names) > SHOWN_FLIPS else ""
            shown = ", ".join(names[:SHOWN_FLIPS])
            text = f"    {len(names):5} to {direction} in {subset}: {shown}{more}"
            lines += remark(text, " " * 10)
    return "\n".join(lines)


def _line(row: Row) -> str:
    """The change; and, if it is no more than noise, what could have been seen."""
    item = row.paired
    change = change_of(item, row.p_holm)
    values = f"{change.first:>7} →{change.second:>7}"
    p = f"p {change.p}" if change.p else ""
    title = item.figure.title
    if len(title) > TITLE_WIDTH:
        title = f"{title}\n  {'':{TITLE_WIDTH}}"
    line = (
        f"  {title:{TITLE_WIDTH}} {values} {change.difference:>7} {change.interval:18} {p}".rstrip()
    )
    found = verdict(row)
    if found != "noise":
        return f"{line}\n      {found}" if found else line
    smallest = scale_of(item.figure.unit) * row.detectable
    power = f"{item.samples:,} samples detect {smallest:.2f} or more"
    if abs(item.difference.value) < row.detectable and math.isfinite(row.needed):
        power += f"; about {math.ceil(row.needed):,} would detect this"
    return f"{line}\n      noise: {power}"


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Everything, flips in full, for machines."""
    objects = []
    for comparison in comparisons:
        content = dict(vars(comparison))
        content["first"], content["second"] = str(comparison.first), str(comparison.second)
        content["caveats"] = [
            {"run": str(folder), "caveat": caveat} for folder, caveat in comparison.caveats
        ]
        content["rows"] = list(map(_row_object, comparison.rows))
        flips = comparison.flips
        content["flips"] = {
            "worse": flips.worse,
            "better": flips.better,
            "p_sign_flip": flips.p,
        }
        objects.append(content)
    return indented({"comparisons": objects})


def _row_object(row: Row) -> dict[str, Any]:
    item = row.paired
    return {
        "figure": item.figure.title,
        "unit": item.figure.unit,
        "better": item.figure.better,
        "samples": item.samples,
        "first": item.first,
        "second": item.second,
        "difference": item.difference[:3],
        "p": item.difference.p,
        "p_holm": row.p_holm,
        "detectable": row.detectable,
        "needed": row.needed,
    }
