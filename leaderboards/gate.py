"""Whether a checkpoint is no worse than a reference: non-inferiority by margin, hard floors, drift in the answers.

A figure passes where the whole 95 % interval of its paired difference is better than minus the margin. An interval
wider than that cannot pass, and the outcome says so: a gate that cannot tell is no gate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import BenchError, os_reason
from bench.figures import FIGURES, Figure, Paired, figures_of, paired, read_scores
from bench.store import RunFolder, dump, read_lines, write_json
from bench.types import scale_of
from leaderboards.compare import COMPARED, differing, runs_in

FORMAT = 1
DEFAULT_MARGINS = {"fraction": 0.01, "rating": 0.2}
KEPT = (*COMPARED, "model", "environment", "limit", "source", "created")
WORST = 10


class GateError(BenchError):
    """A reference or margins that cannot be used."""


class Margins(BaseModel):
    """By figure: how much worse is still accepted, and which value is the least (or most) in any case.

    Figures as `bench compare` names them; fractions as 0.01 for a point. `drift` is the largest accepted share of
    answers that differ from the reference's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    margins: dict[str, float] = Field(default_factory=dict)
    floors: dict[str, float] = Field(default_factory=dict)
    drift: float | None = Field(None, ge=0, le=1)


@dataclass(frozen=True)
class Reference:
    """One benchmark's recorded run: what was run, the scores by sample, the answers by key."""

    record: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """One thing that was checked; `worst` are the samples that lost most."""

    name: str
    passed: bool
    told: str
    worst: Sequence[str] = field(default_factory=tuple)


def read_margins(file: Path | None) -> Margins:
    """The margins of a YAML file, or the defaults. Raises GateError with all that is wrong."""
    if file is None:
        return Margins()
    try:
        margins = Margins.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{file} cannot be read.", f"{os_reason(error)}.", "Check the path.") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise GateError(f"{file} holds no margins.", " ".join(str(error).split()), "Mend it.") from error
    unknown = [name for name in (*margins.margins, *margins.floors) if name not in {f.name for f in FIGURES}]
    if unknown:
        raise GateError(
            f"{file} names unknown figures.", f"They are {', '.join(unknown)}.",
            f"Known are {', '.join(figure.name for figure in FIGURES)}.",
        )  # fmt: skip
    return margins


def recorded(path: Path) -> dict[str, Reference]:
    """The finished runs in a folder, by benchmark. Raises StoreError or GateError."""
    found = {}
    for name, folder in runs_in(path).items():
        scores = read_scores(folder)
        if not scores:
            raise GateError(f"{folder} has no scored sample.", "The run is not finished.", "Finish it, or score it.")
        answers = {row["key"]: row["text"] for row in read_lines(folder / "answers.jsonl")}
        found[name] = Reference(RunFolder(folder).record(), scores, answers)
    return found


def save(path: Path, file: Path) -> int:
    """Writes the runs in a folder as a reference file; returns how many."""
    found = recorded(path)
    write_json(file, {
        "format": FORMAT,
        "benchmarks": {
            name: {
                "record": {key: ref.record[key] for key in (k.split(".")[0] for k in KEPT) if key in ref.record},
                "scores": list(ref.scores.values()),
                "answers": ref.answers,
            }
            for name, ref in found.items()
        },
    })  # fmt: skip
    return len(found)


def read_reference(path: Path) -> dict[str, Reference]:
    """A reference file, or a run or folder of runs taken as one. Raises GateError where the file was damaged."""
    if path.is_dir():
        return recorded(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not {FORMAT}")
        return {
            name: Reference(part["record"], {row["sample"]: _row(row) for row in part["scores"]}, dict(part["answers"]))
            for name, part in content["benchmarks"].items()
        }
    except OSError as error:
        raise GateError(f"{path} cannot be read.", f"{os_reason(error)}.", "Check --against.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(
            f"{path} is no reference.", f"{type(error).__name__}: {error}.", "Make one: `bench check RUN --save FILE`."
        ) from error


def _row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(row["cluster"], str) or not isinstance(row["values"], dict):
        raise TypeError(f"sample {row['sample']} lacks its cluster or values")
    return row


def check(run: Mapping[str, Reference], against: Mapping[str, Reference], margins: Margins) -> list[Check]:
    """All checks of the benchmarks that the reference has. Raises GateError where the run lacks one or differs."""
    checks: list[Check] = []
    for name, reference in against.items():
        if name not in run:
            raise GateError(f"The run lacks {name}.", "The reference has it.", f"Run --suite {','.join(against)}.")
        differs = differing(reference.record, run[name].record)
        if differs:
            raise GateError(
                f"The run of {name} was not run as the reference.", f"They differ in {'; '.join(differs)}.",
                "Run it alike, or make a new reference.",
            )  # fmt: skip
        try:
            figures = [paired(f, reference.scores, run[name].scores) for f in figures_of(name)]
        except (KeyError, TypeError) as error:
            raise GateError(
                f"The reference of {name} is damaged.", f"{type(error).__name__}: {error}.", "Make it again."
            ) from error
        found = [item for item in figures if item]
        if not found:
            raise GateError(f"Run and reference of {name} share no sample.", "", "Run on the same data.")
        for item in found:
            checks += _checked(item, reference.scores, run[name].scores, margins)
        checks += _drift(name, reference.answers, run[name].answers, margins)
    return checks


def _checked(item: Paired, first: Mapping[str, Any], second: Mapping[str, Any], margins: Margins) -> list[Check]:
    figure, scale = item.figure, scale_of(item.figure.unit)
    made = []
    margin = margins.margins.get(figure.name, DEFAULT_MARGINS.get(figure.unit) if figure.better != "neither" else None)
    if margin is not None:
        low, high = item.difference.low, item.difference.high
        low_passes, high_passes = low >= -margin, high <= margin
        passed = {"higher": low_passes, "lower": high_passes, "neither": low_passes and high_passes}[figure.better]
        told = (
            f"{scale * item.first.value:.2f} → {scale * item.second.value:.2f}, difference "
            f"{scale * item.difference.value:+.2f} [{scale * low:+.2f}, {scale * high:+.2f}], margin {scale * margin:g}"
        )
        if not passed and abs(item.difference.value) <= margin:
            told += f"; within the margin, but {item.samples} samples cannot show it"
        made.append(Check(figure.name, passed, told, () if passed else _worst(figure, first, second)))
    floor = margins.floors.get(figure.name)
    if floor is not None:
        passed = item.second.value <= floor if figure.better == "lower" else item.second.value >= floor
        limit = "at most" if figure.better == "lower" else "at least"
        told = f"{scale * item.second.value:.2f}, {limit} {scale * floor:g}"
        made.append(Check(f"{figure.name}, floor", passed, told))
    return made


def _worst(figure: Figure, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The samples that lost most, the largest loss first."""
    sign = -1 if figure.better == "lower" else 1
    lost = []
    for name, row in first.items():
        if name in second and figure.over(row["values"]):
            before, after = (sign * float(figure.above(side[name]["values"])) for side in (first, second))
            if after < before:
                lost.append((after - before, f"{name} ({row['subset']}): {abs(before):g} → {abs(after):g}"))
    return [told for _, told in sorted(lost)[:WORST]]


def _drift(name: str, first: Mapping[str, str], second: Mapping[str, str], margins: Margins) -> list[Check]:
    """The share of answers that are not word for word the reference's; fails only beyond a given share."""
    both = first.keys() & second.keys()
    changed = [key for key in both if first[key] != second[key]]
    share = len(changed) / len(both) if both else math.nan
    limit = f", at most {100 * margins.drift:g} %" if margins.drift is not None else ""
    told = f"{len(changed)} of {len(both)} answers differ ({100 * share:.1f} %{limit})"
    return [Check(f"{name}, drift", margins.drift is None or share <= margins.drift, told)]


def as_text(checks: Sequence[Check]) -> str:
    """What passed and what did not, failures first, each with the samples that lost most."""
    lines = []
    for item in sorted(checks, key=lambda item: item.passed):
        lines.append(f"{'pass' if item.passed else 'FAIL'}  {item.name}: {item.told}")
        lines += [f"        {sample}" for sample in item.worst]
    return "\n".join(lines)


def write_junit(checks: Sequence[Check], file: Path) -> None:
    """The checks as a JUnit report. Raises GateError where it cannot be written."""
    failed = sum(not item.passed for item in checks)
    suite = ElementTree.Element("testsuite", name="bench check", tests=str(len(checks)), failures=str(failed))
    for item in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="bench.check", name=item.name)
        if item.passed:
            ElementTree.SubElement(case, "system-out").text = item.told
        else:
            ElementTree.SubElement(case, "failure", message=item.told).text = "\n".join(item.worst)
    try:
        ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise GateError(f"{file} cannot be written.", f"{os_reason(error)}.", "Check --junit.") from error


def as_json(checks: Sequence[Check]) -> str:
    """The same for machines."""
    return dump({"passed": all(item.passed for item in checks), "checks": [vars(item) for item in checks]})
