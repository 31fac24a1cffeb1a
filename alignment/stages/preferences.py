"""Pairs of a better and a worse response to the same instruction about the same image.

Of each group the responses with the highest and the lowest reward are taken. DPO learns "shorter"
if the better ones are shorter on average, so by default rewards are corrected by a price per word
at which chosen and rejected responses are equally long on average. Descriptions and short answers,
told apart by the quarter of lengths to which a group belongs, have a price each, or one would pay
for the other. The manifest tells what the bias was and what it is.

Artifact: pairs.jsonl (`alignment/rows.py`), pairs.png with the first pairs as pictures.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from alignment.contact_sheet import write_sheet
from alignment.rows import ImageRow, PairRow, ResponseRow, RewardRow
from alignment.settings import RecipeError, Settings
from bench.files import read_lines, replace_lines

VERSION = "2"
SHOWN = 24
QUARTERS = 4
SMALLEST_MARGIN = 1e-9  # rewards that differ by less are equal
MAX_PRICE = 1.0  # of a word, in units of reward
BISECTIONS = 24
Candidate = Mapping[str, Any]  # a ResponseRow with its RewardRow and its length in `words`
Group = Sequence[Candidate]


class Preferences(Settings):
    """Which pairs are made of the rewarded responses.

    `margin` is the smallest difference of rewards. `length_bias` is how many words the chosen
    responses are given to be longer than the rejected on average; null leaves it as it comes.
    Two controls: `shuffle` turns each pair at random, `pick: random` takes any two responses of a
    group, whatever their rewards. `limit` keeps so many pairs.
    """

    margin: float = Field(0.0, ge=0)
    length_bias: float | None = 0.0
    pick: Literal["extremes", "random"] = "extremes"
    shuffle: bool = False
    limit: int | None = Field(None, gt=0)


class Pair(NamedTuple):
    """Two responses to the same instruction."""

    better: Candidate
    worse: Candidate


def identity(settings: Preferences) -> Any:
    """Nothing besides the settings."""
    return None


def check(settings: Preferences) -> None:
    """Nothing can stop it that is known before the rewards are."""


def run(settings: Preferences, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Makes the pairs. Raises RecipeError if none is left."""
    groups, dropped = _groups(inputs)
    candidates = []
    for group in groups:
        if len(group) > 1:
            candidates.append(group)
    # One generator for limit and shuffle, so that a control keeps the same pairs.
    rng = random.Random(f"preferences {seed}")
    prices = [0.0] * len(candidates)
    if settings.pick == "random":
        chosen = uncorrected = [Pair(*rng.sample(group, 2)) for group in candidates]
    else:
        uncorrected = pairs(candidates, prices, settings.margin)
        if settings.length_bias is not None:
            prices = balancing_prices(candidates, settings.margin, settings.length_bias)
        chosen = pairs(candidates, prices, settings.margin)
    if settings.limit is not None:
        indices = rng.sample(range(len(chosen)), min(settings.limit, len(chosen)))
        chosen = [chosen[index] for index in sorted(indices)]
    if settings.shuffle:
        shuffled = []
        for pair in chosen:
            keep = rng.random() < 0.5
            shuffled.append(pair if keep else Pair(better=pair.worse, worse=pair.better))
        chosen = shuffled
    if not chosen:
        raise RecipeError(
            "No preference pair is left.",
            f"{len(candidates)} groups have two different responses, none of them "
            f"{settings.margin} apart in reward.",
            "Lower `margin`, raise `samples` or `temperature`.",
        )
    images = read_lines(inputs["images"] / "images.jsonl", ImageRow)
    file_of = {row["id"]: row["file"] for row in images}
    rows = [_row(pair, file_of) for pair in chosen]
    replace_lines(out / "pairs.jsonl", rows)
    write_sheet(rows[:SHOWN], len(rows), inputs["images"], out / "pairs.png")
    margins = []
    for pair in chosen:
        margins.append(pair.better["reward"] - pair.worse["reward"])
    return {
        "pairs": len(rows),
        "groups": len(groups),
        **dropped,
        "prices_per_word": sorted({round(price, 4) for price in prices}),
        "length_bias": round(length_bias(chosen), 3),
        "length_bias_uncorrected": round(length_bias(uncorrected), 3),
        "mean_margin": round(statistics.fmean(margins), 3),
    }


def _groups(inputs: Mapping[str, Path]) -> tuple[list[list[Candidate]], dict[str, int]]:
    """Rewarded responses by image and instruction, and how many were dropped for which reason."""
    rewarded = read_lines(inputs["rewards"] / "rewards.jsonl", RewardRow)
    rewards = {row["key"]: row for row in rewarded}
    groups: dict[tuple[str, str], list[Candidate]] = {}
    dropped = {"unrewarded": 0, "empty": 0, "truncated": 0, "duplicate": 0}
    for row in read_lines(inputs["responses"] / "responses.jsonl", ResponseRow):
        group = groups.setdefault((row["image"], row["instruction"]), [])
        fault = _fault(row, group) if row["key"] in rewards else "unrewarded"
        if fault:
            dropped[fault] += 1
            continue
        words = len(row["text"].split())
        group.append({**row, **rewards[row["key"]], "words": words})
    return list(groups.values()), dropped


def pairs(groups: Sequence[Group], prices: Sequence[float], margin: float) -> list[Pair]:
    """Best and worst of each group whose rewards are `margin` apart.

    Args:
        groups: Responses to the same instruction.
        prices: For each group, what a word costs when its responses are ranked.
        margin: The smallest difference of the rewards themselves.
    """
    best_and_worst = []
    for group, price in zip(groups, prices, strict=True):
        worse, better = _extremes(group, price)
        # The price decides who is chosen; the margin is of what the reward really said.
        if better["reward"] - worse["reward"] > max(margin, SMALLEST_MARGIN):
            best_and_worst.append(Pair(better, worse))
    return best_and_worst


def _extremes(group: Group, price: float) -> tuple[Candidate, Candidate]:
    """The responses with the lowest and the highest reward less the price of their words."""
    ranked = sorted(group, key=lambda row: row["reward"] - price * row["words"])
    return ranked[0], ranked[-1]


def length_bias(chosen: Sequence[Pair]) -> float:
    """Mean of chosen less rejected lengths, in words; below 0 the chosen ones are shorter."""
    if not chosen:
        return 0.0
    return statistics.fmean(pair.better["words"] - pair.worse["words"] for pair in chosen)


def balancing_prices(groups: Sequence[Group], margin: float, wanted: float = 0.0) -> list[float]:
    """For each group the price per word at which the pairs of its quarter have the wanted bias.

    Quarters are of groups by mean length.

    Args:
        groups: Responses to the same instruction.
        margin: The smallest difference of rewards.
        wanted: How many words the better ones shall be longer on average.
    """
    means = [statistics.fmean(row["words"] for row in group) for group in groups]
    by_length = sorted(range(len(groups)), key=means.__getitem__)
    prices = [0.0] * len(groups)
    for quarter in range(QUARTERS):
        start = len(groups) * quarter // QUARTERS
        stop = len(groups) * (quarter + 1) // QUARTERS
        members = by_length[start:stop]
        price = _balancing_price([groups[index] for index in members], margin, wanted)
        for index in members:
            prices[index] = price
    return prices


def _balancing_price(groups: Sequence[Group], margin: float, wanted: float) -> float:
    """The price at which the pairs' length bias is nearest to the wanted one."""

    def excess(price: float) -> float:
        return length_bias(pairs(groups, [price] * len(groups), margin)) - wanted

    # Bisection: the bias falls with the price, in steps, so a root may not exist.
    low, high = -MAX_PRICE, MAX_PRICE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if excess(middle) > 0:
            low = middle
        else:
            high = middle
    return min((0.0, low, high), key=lambda price: abs(excess(price)))


def _fault(row: Mapping[str, Any], group: Group) -> str | None:
    """Why a response cannot be in a pair.

    It is empty, was cut off at the length limit, or is another one but for the order of words.
    """
    words = _sorted_words(row["text"])
    if not words:
        return "empty"
    # DPO would learn to stop, or not to, from where the limit happened to cut.
    if row["finish"] == "length":
        return "truncated"
    is_duplicate = any(words == _sorted_words(other["text"]) for other in group)
    return "duplicate" if is_duplicate else None


def _sorted_words(text: str) -> list[str]:
    return sorted(text.lower().replace(".", "").replace(",", "").split())


def _row(pair: Pair, file_of: Mapping[str, str | None]) -> PairRow:
    better, worse = pair
    file = file_of[better["image"]]
    assert file is not None  # of a dropped image nobody was asked
    return {
        "image": file,
        "instruction": better["instruction"],
        "chosen": better["text"],
        "rejected": worse["text"],
        "chosen_reward": better["reward"],
        "rejected_reward": worse["reward"],
        "chosen_model": better["model"],
        "rejected_model": worse["model"],
        "chosen_doubtful": better.get("doubtful", []),
        "rejected_doubtful": worse.get("doubtful", []),
    }
