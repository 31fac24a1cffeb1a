"""Pairs of a better and a worse response to the same instruction about the same image.

Of each group the responses with the highest and the lowest reward are taken. DPO learns "shorter" where the better ones
are shorter on average, so by default rewards are corrected by a price per word at which chosen and rejected responses
are equally long on average; descriptions and short answers, told apart by the quarter of lengths to which a group
belongs, have a price each, or one would pay for the other. The manifest tells what the bias was and what it is.

Artifact: pairs.jsonl with {"image", "instruction", "chosen", "rejected", "chosen_reward", "rejected_reward", …},
pairs.png with the first pairs as pictures.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.recipe import Preferences, RecipeError
from alignment.sheet import write_sheet
from bench.store import read_lines, replace_lines

VERSION = "2"
SHOWN = 24
QUARTERS = 4
Group = Sequence[Mapping[str, Any]]
Pair = tuple[Mapping[str, Any], Mapping[str, Any]]


def identity(settings: Preferences) -> Any:
    """Nothing besides the settings."""
    return None


def run(settings: Preferences, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Makes the pairs. Raises RecipeError where none is left."""
    files = {row["id"]: row["file"] for row in read_lines(inputs["images"] / "images.jsonl")}
    rewards = {row["key"]: row for row in read_lines(inputs["rewards"] / "rewards.jsonl")}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    dropped = {"unrewarded": 0, "empty": 0, "truncated": 0, "duplicate": 0}
    for row in read_lines(inputs["responses"] / "responses.jsonl"):
        group = groups.setdefault((row["image"], row["instruction"]), [])
        fault = _fault(row, group) if row["key"] in rewards else "unrewarded"
        if fault:
            dropped[fault] += 1
        else:
            group.append(row | rewards[row["key"]] | {"words": len(row["text"].split())})
    candidates = [group for group in groups.values() if len(group) > 1]
    free = pairs(candidates, [0.0] * len(candidates), settings.margin)
    wanted = settings.length_bias
    prices = [0.0] * len(candidates) if wanted is None else balancing_prices(candidates, settings.margin, wanted)
    made = pairs(candidates, prices, settings.margin)
    chance = random.Random(f"preferences {seed}")
    if settings.limit is not None:
        made = [made[index] for index in sorted(chance.sample(range(len(made)), min(settings.limit, len(made))))]
    if settings.shuffle:
        made = [pair if chance.random() < 0.5 else pair[::-1] for pair in made]
    if not made:
        raise RecipeError(
            "No preference pair is left.",
            f"{len(candidates)} groups have two different responses, none of them {settings.margin} apart in reward.",
            "Lower `margin`, raise `samples` or `temperature`.",
        )
    rows = [_row(better, worse, files) for better, worse in made]
    replace_lines(out / "pairs.jsonl", rows)
    write_sheet(rows[:SHOWN], inputs["images"], out / "pairs.png")
    return {
        "pairs": len(rows),
        "groups": len(groups),
        **dropped,
        "prices_per_word": sorted({round(price, 4) for price in prices}),
        "length_bias": round(length_bias(made), 3),
        "length_bias_uncorrected": round(length_bias(free), 3),
        "mean_margin": round(statistics.fmean(better["reward"] - worse["reward"] for better, worse in made), 3),
    }


def pairs(groups: Sequence[Group], prices: Sequence[float], margin: float) -> list[Pair]:
    """Best and worst of each group by reward less its price a word, where their true rewards are `margin` apart."""
    made = []
    for group, price in zip(groups, prices, strict=True):
        ranked = sorted(group, key=lambda row: row["reward"] - price * row["words"])
        worse, better = ranked[0], ranked[-1]
        if better["reward"] - worse["reward"] > max(margin, 1e-9):
            made.append((better, worse))
    return made


def length_bias(made: Sequence[Pair]) -> float:
    """Mean of chosen less rejected lengths, in words; below 0 the chosen ones are shorter."""
    return statistics.fmean(better["words"] - worse["words"] for better, worse in made) if made else 0.0


def balancing_prices(groups: Sequence[Group], margin: float, wanted: float = 0.0) -> list[float]:
    """For each group the price per word at which the pairs of its quarter, by mean length, have the wanted bias."""
    means = [statistics.fmean(row["words"] for row in group) for group in groups]
    ranked = sorted(range(len(groups)), key=means.__getitem__)
    prices = [0.0] * len(groups)
    for part in range(QUARTERS):
        members = ranked[len(ranked) * part // QUARTERS : len(ranked) * (part + 1) // QUARTERS]
        price = _balancing_price([groups[index] for index in members], margin, wanted)
        for index in members:
            prices[index] = price
    return prices


def _balancing_price(groups: Sequence[Group], margin: float, wanted: float, most: float = 1.0) -> float:
    """The price at which the pairs' length bias is nearest to the wanted one, by bisection; it falls with the price."""

    def bias(price: float) -> float:
        return length_bias(pairs(groups, [price] * len(groups), margin)) - wanted

    low, high = -most, most
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if bias(middle) > 0 else (low, middle)
    return min((0.0, low, high), key=lambda price: abs(bias(price)))


def _fault(row: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a response cannot be in a pair: empty, cut off at the length limit, or as another one but for order."""
    words = _bag(row["text"])
    if not words:
        return "empty"
    if row["finish"] == "length":
        return "truncated"
    return "duplicate" if any(words == _bag(other["text"]) for other in kept) else None


def _bag(text: str) -> list[str]:
    return sorted(text.lower().replace(".", "").replace(",", "").split())


def _row(better: Mapping[str, Any], worse: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": files[better["image"]],
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
