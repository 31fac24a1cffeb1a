"""A reward for every response, by the reward that the recipe names (`alignment/rewards/`).

Artifact: rewards.jsonl (`alignment/rows.py`), and whatever the reward keeps beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.rewards.reward import Reward
from alignment.rows import ImageFile, ImageRow, ResponseRow, RewardRow
from alignment.stages.responses import check_model
from bench import terminal
from bench.errors import BenchError
from bench.files import append_lines, read_lines
from bench.terminal import progress_bar

VERSION = "5"
MANY = 0.2  # of the responses without a claim are a reason to warn


def identity(settings: Reward) -> Any:
    """The reward's own."""
    return settings.identity()


def check(settings: Reward) -> None:
    """Raises BenchError if the reward, or a model that it asks, cannot be used."""
    settings.check()
    for name in settings.asked_models():
        check_model(name)


def run(settings: Reward, inputs: Mapping[str, Path], out: Path, seed: int) -> dict[str, Any]:
    """Rewards all responses.

    Raises BenchError if a reward is not a number; those before it are kept.
    """
    file = out / "rewards.jsonl"
    images = {}
    for image in read_lines(inputs["images"] / "images.jsonl", ImageRow):
        if image["file"]:
            images[image["id"]] = ImageFile(inputs["images"] / image["file"], image["prompt"])
    done = {row["key"] for row in read_lines(file, RewardRow)}
    waiting = []
    for row in read_lines(inputs["responses"] / "responses.jsonl", ResponseRow):
        if row["key"] not in done:
            waiting.append(row)
    with progress_bar("rewards", len(waiting)) as progress:
        for batch in settings.rewards(waiting, images, out):
            rows: list[RewardRow] = []
            for response, reward, doubtful, claims in batch:
                # NaN would sort anywhere and make pairs at random.
                if not math.isfinite(reward):
                    raise BenchError(
                        f"The reward of response {response['key']} is not a number.",
                        "A model that gives no probabilities, or an overflow.",
                        "Use another reward model or dtype.",
                    )
                rewarded: RewardRow = {
                    "key": response["key"],
                    "reward": reward,
                    "doubtful": doubtful,
                }
                if claims is not None:
                    rewarded["claims"] = claims
                rows.append(rewarded)
            append_lines(file, rows)
            progress(len(batch))
    recorded = read_lines(file, RewardRow)
    counts = {"rewards": len(recorded), "unrewarded": len(done) + len(waiting) - len(recorded)}
    return counts | _without_claims(recorded) | settings.counts(out)


def _without_claims(recorded: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many responses the reward could say nothing of; empty if it looks for no claims."""
    claims = [row["claims"] for row in recorded if "claims" in row]
    if not claims:
        return {}
    without = claims.count(0)
    if without > MANY * len(claims):
        terminal.note(
            f"{without} of {len(claims)} responses have no claim, so their reward is 0. "
            "`claims: {kind: noun-phrases}` or `{kind: model}` finds more than a list of objects."
        )
    return {"without_claims": without}
