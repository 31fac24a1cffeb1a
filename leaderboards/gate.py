"""Whether a checkpoint is no worse than a reference.

Four kinds of checks: non-inferiority by margin, hard floors, drift in the answers, and whether the
samples of the reference were scored at all. A figure passes if the whole 95 % interval of its
paired difference is better than minus the margin, and fails if it is shown to be worse and lies
beyond the margin. In between nothing is shown either way, and the outcome says so: a gate that
cannot tell is no gate.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import junitparser
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench import registry
from bench.errors import BenchError, faults_of, one_line, os_reason
from bench.escaping import markdown_text, visible, visible_line
from bench.files import check_ours, indented, parse_json, write_json
from bench.metrics.paired import Paired, change_of, paired
from bench.runs.caveats import decoding_of
from bench.runs.record import RunRecord
from bench.runs.run import (
    Results,
    Run,
    by_benchmark,
    check_values,
    figures_of,
    find_runs,
)
from bench.runs.seal import has_digest, with_digest
from bench.runs.store import build_metric, build_score
from bench.stats import NORMAL_QUANTILE, detectable
from bench.text_tables import output_width, remark, text_table
from bench.types import CAVEAT, Figure, Metric, Score, caveats_of, scale_of
from bench.yaml_text import parse_yaml
from leaderboards.compare import COMPARED, differing, with_sides

FORMAT = 1
RECORD_PARTS = (*COMPARED, "model", "environment", "limit", "subsets", "source", "created")
WORST = 10  # samples that are named
SHOWN_ANSWER = 160  # characters of an answer
LARGEST_MARGIN = 0.15  # of a figure's range, however few samples there are


EXAMPLE = (
    "margins: {POPE accuracy: 0.01}, floors: {POPE accuracy: 0.85}, drift: 0.2 and missing: 0.001, "
    "each on a line of its own."
)


class GateError(BenchError):
    """A reference or margins that cannot be used."""


class Margins(BaseModel):
    """By figure: how much worse is still accepted, and which value is the least (or most) allowed.

    Figures are named as `bench compare` names them; fractions are written as 0.01 for a point. A
    figure without a margin here has its benchmark's, or what so many samples can show if that is
    more. `drift` is the largest accepted share of answers that differ from the reference's,
    `missing` that of the reference's scored samples that lack a score.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    margins: dict[str, float] = Field(default_factory=dict)
    floors: dict[str, float] = Field(default_factory=dict)
    drift: float | None = Field(None, ge=0, le=1)
    missing: float = Field(0.001, ge=0, le=1)


@dataclass(frozen=True)
class Reference:
    """One benchmark's recorded run: what was run, metrics, scores by sample, answers by key.

    `seconds` are what all answers took, 0 if they were not timed.
    """

    record: Mapping[str, Any]
    metrics: Sequence[Metric]
    scores: Mapping[str, Score]
    texts: Mapping[str, str]
    seconds: float = 0.0


class Asked(NamedTuple):
    """What a sample was asked: its answer's key, the question and the picture's file."""

    key: str
    question: str
    picture: str


AskedOf = Callable[[str], Mapping[str, Asked]]  # a benchmark's samples by id


Verdict = Literal["passed", "failed", "inconclusive", "told"]
SAID: dict[Verdict, str] = {  # of what is counted; caveats are told
    "failed": "failed",
    "inconclusive": "open: the samples cannot tell",
    "passed": "passed",
}
MARKS: dict[Verdict, str] = {
    "failed": "FAIL",
    "inconclusive": "open",
    "passed": "pass",
    "told": CAVEAT,
}


@dataclass(frozen=True)
class Check:
    """One thing that was checked of a benchmark.

    `worst` are the samples that lost most: a line each, or several with the question and both
    answers.
    """

    name: str
    verdict: Verdict
    detail: str
    worst: Sequence[str] = field(default_factory=tuple)
    benchmark: str = ""


def read_margins(file: Path | None, references: Mapping[str, Results]) -> Margins:
    """The margins of a YAML file, or the benchmarks' own.

    Raises GateError with all that is wrong.

    Args:
        file: The file, None for the defaults.
        references: Whose figures may be named, beside those of all registered benchmarks.
    """
    if file is None:
        return Margins()
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
        margins = Margins.model_validate(content or {})
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(
            f"{file} cannot be read.", f"{os_reason(error)}.", "Check the path."
        ) from error
    except (yaml.YAMLError, ValidationError) as error:
        reason = faults_of(error) if isinstance(error, ValidationError) else one_line(error)
        raise GateError(
            f"{file} holds no margins.", reason, f"Write it like this: {EXAMPLE}"
        ) from error
    known = _known_titles(references)
    unknown = []
    for title in (*margins.margins, *margins.floors):
        if title not in known:
            unknown.append(title)
    if unknown:
        raise GateError(
            f"{file} names unknown figures.",
            f"They are {', '.join(unknown)}.",
            f"Known are {', '.join(known)}.",
        )
    _check_range(file, margins, references)
    return margins


def _check_range(file: Path, margins: Margins, references: Mapping[str, Results]) -> None:
    """Raises GateError for a margin or a floor that means percent, such as 1 for "one point"."""
    bounds_of: dict[str, tuple[float, float]] = {}
    for figure in _known_figures(references):
        if figure.bounds is not None:
            bounds_of[figure.title] = figure.bounds
    for title, margin in margins.margins.items():
        low, high = bounds_of.get(title, (0.0, math.inf))
        span = high - low
        if not 0 <= margin < span:
            raise GateError(
                f"{file}: the margin {margin:g} of {title} gates nothing.",
                f"The figure lies within a range of {span:g}; fractions are written as 0.01 for "
                "one point.",
                "Write a margin between 0 and that.",
            )
    for title, floor in margins.floors.items():
        low, high = bounds_of.get(title, (-math.inf, math.inf))
        if not low <= floor <= high:
            raise GateError(
                f"{file}: the floor {floor:g} of {title} is no value of it.",
                f"The figure lies between {low:g} and {high:g}; fractions are written as 0.85 for "
                "85 %.",
                "Write a floor between these.",
            )


def _known_titles(references: Mapping[str, Results]) -> list[str]:
    return list(dict.fromkeys(figure.title for figure in _known_figures(references)))


def _known_figures(references: Mapping[str, Results]) -> list[Figure]:
    # A file of margins may serve several gates, so benchmarks that are not in this one count.
    figures: list[Figure] = []
    for results in references.values():
        figures += figures_of(results)
    for name in registry.names("benchmarks"):
        try:
            figures += registry.benchmark(name).figures
        except BenchError:  # a plugin that cannot be loaded, or a class of benchmarks
            continue
    return figures


def recorded(path: Path) -> dict[str, Reference]:
    """The finished runs in a folder, by benchmark.

    Raises StoreError if there is none or there are two of one benchmark, GateError if one has no
    scores.
    """
    references = {}
    for name, run in by_benchmark(find_runs(path)).items():
        references[name] = _reference(run)
    return references


def _reference(run: Run) -> Reference:
    scores = run.scored
    if not scores:
        raise GateError(
            f"{run.folder} has no scored sample.",
            "The run is not finished.",
            "Finish it, or score it.",
        )
    answers = {key: recorded_answer.answer for key, recorded_answer in run.answers.items()}
    texts = {key: answer.text for key, answer in answers.items()}
    seconds = sum(answer.seconds for answer in answers.values())
    return Reference(run.record, run.metrics, scores, texts, seconds)


def save(path: Path, file: Path) -> Mapping[str, Reference]:
    """Writes the runs in a folder as a reference file, and returns them by benchmark."""
    references = recorded(path)
    parts = dict.fromkeys(name.split(".")[0] for name in RECORD_PARTS)
    benchmarks = {}
    for name, reference in references.items():
        record = {part: reference.record[part] for part in parts if part in reference.record}
        benchmarks[name] = {
            "record": record,
            "metrics": list(map(asdict, reference.metrics)),
            "scores": list(map(asdict, reference.scores.values())),
            "answers": reference.texts,
        }
    write_json(file, with_digest({"format": FORMAT, "benchmarks": benchmarks}))
    return references


def read_reference(path: Path) -> dict[str, Reference]:
    """A reference file, or a run or folder of runs taken as one.

    Raises GateError if the file was damaged.
    """
    if path.is_dir():
        return recorded(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not {FORMAT}")
        if not has_digest(content):
            raise ValueError("it is not as it was saved: its digest is of other content")
        references = {}
        for name, part in content["benchmarks"].items():
            scores = {row["sample"]: build_score(row, path) for row in part["scores"]}
            check_ours(RunRecord, part["record"], path)
            check_values(name, scores.values(), path)
            metrics = [build_metric(row, path) for row in part["metrics"]]
            check_ours(dict[str, str], part["answers"], path)
            references[name] = Reference(part["record"], metrics, scores, dict(part["answers"]))
            if not scores:
                raise ValueError(f"it has no scores of {name}")
        # Whatever is compared with nothing passes.
        if not references:
            raise ValueError("it holds no benchmark")
        return references
    except OSError as error:
        raise GateError(
            f"The reference {path} cannot be read.",
            f"{os_reason(error)}.",
            f"`bench check RUN --save {path}` makes one.",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(
            f"{path} is not a reference.",
            f"{type(error).__name__}: {error}.",
            "Make one: `bench check RUN --save FILE`.",
        ) from error


def check(
    run: Mapping[str, Reference],
    against: Mapping[str, Reference],
    margins: Margins,
    asked_of: AskedOf = lambda benchmark: {},
) -> list[Check]:
    """All checks of the benchmarks that the reference has.

    Args:
        run: What is checked.
        against: The reference.
        margins: The margins.
        asked_of: Gives what the samples were asked, to show those that lost; empty if the data is
            not at hand.

    Raises:
        GateError: The run lacks a benchmark or was run differently.
    """
    all_checks: list[Check] = []
    for name, reference in against.items():
        checks: list[Check] = []
        if name not in run:
            raise GateError(
                f"The run lacks {name}.",
                "The reference has it.",
                f"Run --suite {','.join(against)}.",
            )
        # A difference of protocol or data would be taken for one of the checkpoint.
        differs = differing(reference.record, run[name].record)
        differs += _other_decoding(reference.record, run[name].record)
        if differs:
            raise GateError(
                f"The run of {name} was not run as the reference.",
                f"They differ in {'; '.join(differs)}.",
                "Run it alike, or make a new reference.",
            )
        comparisons = _comparisons(name, reference, run[name])
        for item in comparisons:
            checks += _figure_checks(item, reference, run[name], margins, asked_of)
        checks += _lacking_checks(reference, comparisons, margins)
        checks.append(_missing_check(name, reference.scores, run[name].scores, margins))
        checks.append(_drift_check(name, reference.texts, run[name].texts, margins))
        checks += _caveats(name, run[name], reference)
        all_checks += [replace(item, benchmark=name) for item in checks]
    return all_checks


def _caveats(name: str, run: Reference, reference: Reference) -> list[Check]:
    """What a reader must know of the figures of both sides."""
    caveats = [("the run", text) for text in caveats_of(run.metrics)]
    caveats += [("the reference", text) for text in caveats_of(reference.metrics)]
    return [Check(name, "told", text) for text in with_sides(caveats)]


def _other_decoding(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """How answers were chosen, if otherwise; recorded answers do not tell."""
    if any(record["model"].get("decoding") is None for record in (first, second)):
        return []
    one, other = [
        f"{decoding_of(record) or 'greedy'}, {record.get('seeds') or 1} seeds"
        for record in (first, second)
    ]
    return [] if one == other else [f"decoding: {one} and {other}"]


def _lacking_checks(
    reference: Reference, comparisons: Sequence[Paired], margins: Margins
) -> list[Check]:
    """A failed check for each gated figure of which the run has fewer samples than the reference.

    A model without P(yes) has no AUC, and must not pass for want of one.
    """
    compared = {item.figure.title: item.samples for item in comparisons}
    checks = []
    for figure in figures_of(reference):
        is_wanted = figure.title in margins.margins or figure.title in margins.floors
        if not is_wanted and figure.margin is None:
            continue
        itself = paired(figure, reference.scores, reference.scores)
        if itself is None:
            continue
        samples = compared.get(figure.title, 0)
        # Samples without any score are another check's.
        if samples == 0 or (is_wanted and samples < (1 - margins.missing) * itself.samples):
            detail = f"the run has it of {samples} samples, the reference of {itself.samples}"
            checks.append(Check(f"{figure.title}, coverage", "failed", detail))
    return checks


def _comparisons(name: str, reference: Reference, run: Reference) -> list[Paired]:
    comparisons = []
    try:
        for figure in figures_of(reference):
            item = paired(figure, reference.scores, run.scores)
            if item is not None:
                comparisons.append(item)
    except (KeyError, TypeError) as error:
        raise GateError(
            f"The reference of {name} is damaged.",
            f"{type(error).__name__}: {error}.",
            "Make it again.",
        ) from error
    if not comparisons:
        raise GateError(
            f"Run and reference of {name} share no sample.",
            "No sample was scored in both.",
            "Run on the same data.",
        )
    return comparisons


def _figure_checks(
    item: Paired, first: Reference, second: Reference, margins: Margins, asked_of: AskedOf
) -> list[Check]:
    figure, scale = item.figure, scale_of(item.figure.unit)
    checks = []
    margin, why = _margin(item, margins)
    if margin is not None:
        verdict = _verdict(item, margin)
        detail = f"{change_of(item)}, margin {scale * margin:.3g}{why}"
        if verdict == "inconclusive":
            detail += f"; {item.samples} samples cannot show on which side of the margin it lies"
            enough = _deciding(item, margin)
            if math.isfinite(enough):
                detail += f", about {math.ceil(enough):,} would if it stays"
        worst = [] if verdict == "passed" else _worst(figure, first, second, asked_of)
        checks.append(Check(figure.title, verdict, detail, worst))
    # A floor holds whatever the reference says, so that a slow decline is seen.
    floor = margins.floors.get(figure.title)
    if floor is not None:
        lower_is_better = figure.better == "lower"
        value = item.second.value
        passed = value <= floor if lower_is_better else value >= floor
        limit = "at most" if lower_is_better else "at least"
        detail = f"{scale * value:.2f}, {limit} {scale * floor:g}"
        checks.append(Check(f"{figure.title}, floor", _of(passed), detail))
    return checks


def _of(passed: bool) -> Verdict:
    return "passed" if passed else "failed"


def _margin(item: Paired, margins: Margins) -> tuple[float | None, str]:
    """How much worse is accepted, and why if it is not what somebody wrote down.

    By default it is at least what the benchmark's size can show: an equally good model whose
    answers are about half like the reference's passes with 80 % power.
    """
    figure = item.figure
    if figure.title in margins.margins:
        return margins.margins[figure.title], ""
    if figure.margin is None or figure.bounds is None:
        return figure.margin, ""
    span = figure.bounds[1] - figure.bounds[0]
    shown = _shown_difference(item)
    visible = min(shown, LARGEST_MARGIN * span) if math.isfinite(shown) else 0.0
    if visible <= figure.margin:
        return figure.margin, ""
    own = scale_of(figure.unit) * figure.margin
    return visible, f" (what {item.samples} samples can show; the benchmark's own is {own:g})"


def _shown_difference(item: Paired) -> float:
    """What so many samples show with 80 % power.

    The reference alone decides, for a candidate must not widen its own margin. Two models that
    correlate by a half have a difference with the error of one of them.
    """
    return detectable((item.first.high - item.first.low) / (2 * NORMAL_QUANTILE))


def _verdict(item: Paired, margin: float) -> Verdict:
    """Passed, failed or inconclusive, by the interval of the difference."""
    difference = item.difference
    # As losses: above 0 is worse.
    losses = {
        "higher": [(-difference.high, -difference.value, -difference.low)],
        "lower": [(difference.low, difference.value, difference.high)],
    }
    sides = losses.get(item.figure.better) or [*losses["higher"], *losses["lower"]]
    if all(high <= margin for _, _, high in sides):
        return "passed"
    if any(low > 0 and value > margin for low, value, _ in sides):
        return "failed"
    return "inconclusive"


def _deciding(item: Paired, margin: float) -> float:
    """How many samples would decide an inconclusive figure whose difference stays as it is.

    The interval narrows with the square root of their number. It then lies within the margin or, if
    the difference is beyond it, on one side of zero.
    """
    difference = item.difference
    half_width = (difference.high - difference.low) / 2
    loss = {"higher": -difference.value, "lower": difference.value}.get(
        item.figure.better, abs(difference.value)
    )
    room = loss if loss > margin else margin - loss
    return item.samples * (half_width / room) ** 2 if room > 0 else math.inf


def _missing_check(
    name: str, first: Mapping[str, Score], second: Mapping[str, Score], margins: Margins
) -> Check:
    """Whether the reference's samples have a score: without its worst ones any model is good."""
    missing = []
    for sample in first:
        if sample not in second:
            missing.append(sample)
    share = len(missing) / len(first)
    detail = f"{len(first) - len(missing)} of the reference's {len(first)} samples are scored"
    passed = share <= margins.missing
    return Check(f"{name}, coverage", _of(passed), detail, [] if passed else missing[:WORST])


def _worst(figure: Figure, first: Reference, second: Reference, asked_of: AskedOf) -> list[str]:
    """The samples that lost most, by the figure of each sample alone.

    Of equal losses those come first of which the model was surest.
    """
    names = []
    for name, score in first.scores.items():
        after = second.scores.get(name)
        if after is not None and figure.over(score.values) and figure.over(after.values):
            names.append(name)
    before = figure.statistic.alone([first.scores[name] for name in names])
    now = figure.statistic.alone([second.scores[name] for name in names])
    losses = (-1 if figure.better == "lower" else 1) * (now - before)
    sureness = np.array([_sureness(second.scores[name]) for name in names])
    indices = [index for index in np.lexsort((-sureness, losses))[:WORST] if losses[index] < 0]
    if not indices:
        return []
    asked = asked_of(str(second.record["benchmark"]["name"]))
    worst = []
    for index in indices:
        name = names[index]
        lines = [f"{name} ({first.scores[name].subset}): {before[index]:g} → {now[index]:g}"]
        if name in asked:
            key, question, picture = asked[name]
            lines.append(f"  {' '.join(question.split())} · {picture}")
            for side, reference in (("before", first), ("now", second)):
                if key in reference.texts:
                    text = textwrap.shorten(reference.texts[key], SHOWN_ANSWER, placeholder=" …")
                    lines.append(f"  {side}: {text}")
        worst.append("\n".join(lines))
    return worst


def _sureness(score: Score) -> float:
    """How far P(yes) is from a toss; 0 if it is not known."""
    p_yes = score.values.get("p_yes")
    return abs(p_yes - 0.5) if isinstance(p_yes, float) else 0.0


def _drift_check(
    name: str, first: Mapping[str, str], second: Mapping[str, str], margins: Margins
) -> Check:
    """The share of answers that are not word for word the reference's.

    It fails only beyond a given share.
    """
    both = first.keys() & second.keys()
    changed = []
    for key in both:
        if first[key] != second[key]:
            changed.append(key)
    if not both:
        return Check(f"{name}, drift", "inconclusive", "run and reference have no answer in common")
    share = len(changed) / len(both)
    limit = "" if margins.drift is None else f", at most {100 * margins.drift:g} %"
    detail = f"{len(changed)} of {len(both)} answers differ ({100 * share:.1f} %{limit})"
    passed = margins.drift is None or share <= margins.drift
    return Check(f"{name}, drift", _of(passed), detail)


def as_text(checks: Sequence[Check]) -> str:
    """What failed, was inconclusive and passed, each with the samples that lost most.

    Of a sample that lost by several figures, question and answers stand at the first of them.
    """
    lines = []
    shown = set()  # questions with answers
    order = list(MARKS)
    for item in sorted(checks, key=lambda item: order.index(item.verdict)):
        lines += remark(f"{MARKS[item.verdict]:4}  {item.name}: {item.detail}", " " * 6)
        for sample in item.worst:
            loss, _, question_and_answers = sample.partition("\n")
            if question_and_answers and question_and_answers in shown:
                lines += remark(f"        {loss}, as above", " " * 10)
                continue
            for line in sample.splitlines():
                lines += remark(f"        {line}", " " * 12)
            shown.add(question_and_answers)
    counts = [f"{number} {SAID[verdict]}" for verdict, number in _counts(checks).items() if number]
    return "\n".join([*lines, "", f"{outcome(checks)}: {', '.join(counts)}"])


def _counts(checks: Sequence[Check]) -> dict[Verdict, int]:
    verdicts = [item.verdict for item in checks]
    return {verdict: verdicts.count(verdict) for verdict in MARKS if verdict in SAID}


def outcome(checks: Sequence[Check]) -> Verdict:
    """Failed if a check failed, else inconclusive if one is, else passed."""
    verdicts = {item.verdict for item in checks}
    if "failed" in verdicts:
        return "failed"
    return "inconclusive" if "inconclusive" in verdicts else "passed"


def write_junit(checks: Sequence[Check], run: Mapping[str, Reference], file: Path) -> None:
    """The checks as a JUnit report: a suite a benchmark, inconclusive checks as errors.

    Args:
        checks: The checks.
        run: What was checked; its model and versions are the suites' properties.
        file: The report.

    Raises:
        GateError: It cannot be written.
    """
    report = junitparser.JUnitXml("bench check")
    for name in dict.fromkeys(item.benchmark for item in checks):
        suite = junitparser.TestSuite(visible_line(name))
        if name in run:
            for key, value in _properties(run[name].record).items():
                suite.add_property(key, visible_line(str(value)))
        for item in checks:
            if item.benchmark == name and item.verdict == "told":
                suite.add_property("caveat", visible_line(item.detail))
            elif item.benchmark == name:
                suite.add_testcase(_case(item))
        # One model answered for all cases of a suite.
        suite.time = round(run[name].seconds, 3) if name in run else 0.0
        report.add_testsuite(suite)
    try:
        report.write(str(file))
    except OSError as error:
        raise GateError(
            f"{file} cannot be written.", f"{os_reason(error)}.", "Check --junit."
        ) from error


def _properties(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was checked, as far as the record tells."""
    model = record["model"]
    properties = {"model": model.get("name")}
    for key in ("weights_sha256", "adapter_sha256", "dtype", "device"):
        properties[key] = model.get(key)
    packages = (record.get("environment") or {}).get("packages") or {}
    for package in ("synth-align", "torch", "transformers"):
        properties[package] = packages.get(package)
    return {key: value for key, value in properties.items() if value}


def _case(check: Check) -> junitparser.TestCase:
    case = junitparser.TestCase(visible_line(check.name), classname=f"bench.{check.benchmark}")
    if check.verdict == "passed":
        case.system_out = visible(check.detail)
        return case
    kind = junitparser.Failure if check.verdict == "failed" else junitparser.Error
    result = kind(visible_line(check.detail))
    result.text = visible("\n".join(check.worst))
    case.result = [result]
    return case


def as_github(checks: Sequence[Check]) -> str:
    """Workflow commands: an annotation for each check that did not pass."""
    lines = []
    for item in checks:
        if item.verdict in ("failed", "inconclusive"):
            kind = "error" if item.verdict == "failed" else "warning"
            text = "\n".join([item.detail, *item.worst])
            title = _github_property(f"{item.benchmark}: {item.name}")
            lines.append(f"::{kind} title={title}::{_github_data(text)}")
    return "\n".join(lines)


def github_summary(checks: Sequence[Check]) -> str:
    """Markdown for the summary of a job."""
    lines = [f"### bench check: {outcome(checks)}", "", "| | check | |", "|---|---|---|"]
    for item in checks:
        cells = [MARKS[item.verdict], item.name, item.detail]
        lines.append(f"| {' | '.join(map(markdown_text, cells))} |")
    return "\n".join(lines) + "\n"


def _github_data(text: str) -> str:
    """As GitHub's toolkit escapes the text of a command: a new line would begin another one."""
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, code)
    return text


def _github_property(text: str) -> str:
    return _github_data(text).replace(":", "%3A").replace(",", "%2C")


def plan(references: Mapping[str, Reference], margins: Margins, points: float | None) -> str:
    """For each gated figure how many samples its margin needs.

    A candidate that is as good, its answers about half like the reference's, then passes in four
    cases of five.

    Args:
        references: What candidates will be held against.
        margins: The margins; a figure without one has its benchmark's.
        points: One margin for all fractions, in percentage points; None for each figure's own.
    """
    rows = [["figure", "margin", "samples needed", "samples there are"]]
    for reference in references.values():
        for figure in figures_of(reference):
            item = paired(figure, reference.scores, reference.scores)
            margin = margins.margins.get(figure.title, figure.margin)
            if points is not None and figure.unit == "fraction" and margin is not None:
                margin = points / 100
            if item is None or not margin:
                continue
            # The error falls with the square root of the number of samples.
            needed = item.samples * (_shown_difference(item) / margin) ** 2
            shown_by = f"{math.ceil(needed):,}" if math.isfinite(needed) else "–"
            shown_margin = f"{scale_of(figure.unit) * margin:g}"
            rows.append([figure.title, shown_margin, shown_by, f"{item.samples:,}"])
    return "\n".join(text_table(rows, output_width()))


def widened(references: Mapping[str, Reference]) -> str | None:
    """The default margins that so few samples widen, as a remark; None if there are none."""
    wide = []
    for reference in references.values():
        for figure in figures_of(reference):
            item = paired(figure, reference.scores, reference.scores)
            margin = None if item is None else _margin(item, Margins())[0]
            if margin is not None and figure.margin is not None and margin > figure.margin:
                scale = scale_of(figure.unit)
                wide.append(
                    f"{figure.title} {scale * margin:.2g} instead of {scale * figure.margin:g}"
                )
    if not wide:
        return None
    return f"so few samples widen the margins of a check: {', '.join(wide)}"


def as_json(checks: Sequence[Check]) -> str:
    """The same for machines."""
    verdict = outcome(checks)
    content = {
        "verdict": verdict,
        "passed": verdict == "passed",
        "checks": list(map(vars, checks)),
    }
    return indented(content)
