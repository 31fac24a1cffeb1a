"""What a reader must know beside a number: each metric carries its caveats into every table.

A number without them is read as the official one: of all questions, by the official rule, with the
official judge, from a model that finished its answers.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.metrics.seeds import seed_of
from bench.runs.store import SOFTWARE
from bench.types import Answer, Benchmark, Metric, Sample, Score

# A text that says the same thing four times in a row at its end goes round in circles.
LOOP = re.compile(r"(?=.*[^\W_])(.{8,200}?)\1{3,}.{0,200}$", re.DOTALL)
OFFICIAL_JUDGE = "gpt-4"


def with_caveats(
    metrics: Sequence[Metric],
    record: Mapping[str, Any],
    judged: bool,
    answers: Sequence[tuple[Sample, Answer]],
    metric_subsets: Callable[[str], Collection[str]],
) -> list[Metric]:
    """The metrics with their caveats behind those that the benchmark gave them.

    Args:
        metrics: A run's metrics.
        record: Its run.json.
        judged: Whether its numbers come from a judge.
        answers: The samples that have an answer, with it.
        metric_subsets: Which metrics' subsets the samples of a subset count in.
    """
    of_the_run = run_caveats(record, judged)
    flags = {name: [] for name in ("cut", "loop", "thought")}  # type: dict[str, list[str]]
    for sample, answer in answers:
        if answer.finish == "length":
            flags["cut"].append(sample.subset)
        if is_loop(answer.text):
            flags["loop"].append(sample.subset)
        if answer.thoughts:
            flags["thought"].append(sample.subset)
    flagged = {subset for subsets in flags.values() for subset in subsets}
    counted_in = {subset: metric_subsets(subset) for subset in flagged}
    done = []
    for metric in metrics:
        caveats = [*metric.caveats, *of_the_run]
        if metric.unscored:
            caveats.append(f"{metric.unscored:,} of {metric.n + metric.unscored:,} unscored")
        counts = {}
        for flag, flagged_subsets in flags.items():
            counts[flag] = sum(metric.subset in counted_in[name] for name in flagged_subsets)
        if counts["cut"]:
            caveats.append(f"{_answers(counts['cut'])} cut off at the token limit")
        if counts["loop"]:
            ending = "repeats itself" if counts["loop"] == 1 else "repeat themselves"
            caveats.append(f"{_answers(counts['loop'])} {ending} to the end")
        if counts["thought"]:
            caveats.append(f"thoughts of {_answers(counts['thought'])} left out")
        caveats = list(dict.fromkeys(caveats))
        done.append(replace(metric, caveats=tuple(caveats), cut_off=counts["cut"]))
    return done


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count:,} answers"


def run_caveats(record: Mapping[str, Any], judged: bool) -> list[str]:
    """What the run's record says that a reader must know."""
    caveats = []
    if record.get("limit") is not None:
        number, total = record["data"]["samples"], record.get("all_samples")
        caveats.append(f"limited to {number:,}{f' of {total:,}' if total else ''} samples")
    if record.get("max_tokens") is not None:
        caveats.append(f"answers of at most {record['max_tokens']:,} tokens")
    if record["prompt"].get("question") is not None:
        caveats.append("asked by a question of the protocol's own")
    if record.get("subsets"):
        caveats.append(f"only the subsets {', '.join(record['subsets'])}")
    matching = record.get("recorded") or {}
    unmatched = matching.get("unmatched", {}).get("count", 0)
    if unmatched:
        caveats.append(f"{unmatched:,} of {matching['rows']:,} recorded answers belong to none")
    duplicates = matching.get("duplicates", {}).get("count", 0)
    if duplicates:
        caveats.append(f"{duplicates:,} recorded answers are second ones and left out")
    decoding = decoding_of(record)
    if decoding:
        caveats.append(decoding)
    seeds = record.get("seeds") or 1
    if seeds > 1:
        caveats.append(f"{seeds} seeds; σ is the standard deviation between them")
    caveats += record.get("negotiated") or []
    caveats += _software_caveats(record)
    protocol = _chosen_protocol(record)
    if protocol:
        caveats.append(f"asked by the protocol {protocol}, not by the model's own")
    if judged and record.get("judge"):
        caveat = _judge_caveat(record["judge"])
        if caveat:
            caveats.append(caveat)
    return caveats


def decoding_of(record: Mapping[str, Any]) -> str:
    """How answers were chosen, in words; empty if greedily."""
    decoding = record["model"].get("decoding") or {}
    if decoding.get("code"):
        return f"decoded by the code of {decoding['code']['source']}"
    if decoding.get("beams"):
        return f"beam search with {decoding['beams']} beams"
    parts = []
    if decoding.get("temperature"):
        parts.append(f"sampled at temperature {decoding['temperature']:g}")
    elif decoding.get("contrast"):
        parts.append("greedy")
    if "top_p" in decoding:
        parts.append(f"top-p {decoding['top_p']:g}")
    if "top_k" in decoding:
        parts.append(f"top-k {decoding['top_k']}")
    if decoding.get("contrast"):
        options = ", ".join(f"{name} {value:g}" for name, value in decoding["contrast"].items())
        parts.append(f"contrasted with a distorted image ({options})")
    return ", ".join(parts)


def with_spread(benchmark: Benchmark, scores: Sequence[Score]) -> list[Metric]:
    """The benchmark's metrics over all answers, with their values for each of several seeds.

    Counts are the mean over seeds.
    """
    metrics = benchmark.metrics(scores)
    by_seed: dict[int, list[Score]] = {}
    for score in scores:
        seed = seed_of(score.sample)
        if seed is not None:
            by_seed.setdefault(seed, []).append(score)
    if len(by_seed) < 2:
        return metrics
    values: dict[tuple[str, str], list[float]] = {}
    for seed in sorted(by_seed):
        for metric in benchmark.metrics(by_seed[seed]):
            values.setdefault((metric.name, metric.subset), []).append(metric.value)
    with_seeds = []
    for metric in metrics:
        seeds_values = tuple(values.get((metric.name, metric.subset), ()))
        value = metric.value
        if metric.unit == "count" and seeds_values:
            value = statistics.mean(seeds_values)
        with_seeds.append(replace(metric, value=value, by_seed=seeds_values))
    return with_seeds


def _software_caveats(record: Mapping[str, Any]) -> list[str]:
    """The packages whose versions were others when the run was continued."""
    caveats = []
    before = record["model"].get(SOFTWARE) or {}
    for session in record.get("sessions", ()):
        after = session[SOFTWARE] or {}
        # Before the first answer nothing was given by anything else.
        if session["answers"]:
            given = _answers(session["answers"])
            caveats += [f"{change} after {given}" for change in _changed_versions(before, after)]
        before = after
    return caveats


def _changed_versions(
    before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> Iterator[str]:
    """Such as "torch 2.12.0 → 2.13.0"."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"{name} {old or 'absent'} → {new or 'absent'}"


def _chosen_protocol(record: Mapping[str, Any]) -> str | None:
    """The protocol, if it was asked for in the command; by default it is the model's own."""
    words = list(record.get("command") or ())
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == "--protocol":
            chosen = value or (words[index + 1] if index + 1 < len(words) else "")
            return None if chosen in ("", "auto") else str(chosen)
    return None


def _judge_caveat(judge: Mapping[str, Any]) -> str | None:
    """By whom and by which prompt answers were rated, unless as in the published figures."""
    kind = judge.get("kind")
    if kind == "scene":
        return "rated by the facts of the built-in world"
    if kind == "replay":
        return "recorded reviews by our rubric" if judge.get("reading") == "rubric" else None
    if kind == "grounding":
        names = " and ".join(str(model.get("name")) for model in judge["models"])
        return f"by what {names} see of the claims, found by {judge['claims']['kind']}"
    name, prompt = str(judge.get("model", kind)), judge.get("prompt", "ours")
    if prompt == "official" and name.startswith(OFFICIAL_JUDGE):
        return None
    whose = {"ours": "our rubric", "official": "the official prompt"}.get(prompt, "a user's prompt")
    return f"rated by {name} with {whose}; published ratings are {OFFICIAL_JUDGE.upper()}'s"


def is_loop(text: str) -> bool:
    """Whether an answer repeats itself to its end.

    >>> is_loop("A dog. " + "There is a cat on the mat. " * 5), is_loop("A dog and a cat.")
    (True, False)
    """
    # A short answer cannot; the search is not free.
    return len(text) > 40 and LOOP.search(text[-2000:]) is not None
