"""The best of several sampled answers by the grounding reward, without any training.

    bench run --model llava-tiny --suite mmhal,chair,amber --data final --judge scene \\
        --decoding sample:seeds=8 --out sampled
    python docs/experiments/best_of.py sampled/chair final/images best-chair.jsonl
    bench run --model replay:best-chair.jsonl --suite chair --data final --name best-of-8

The panel and its settings are those of `grounding` in recipe.yaml.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

from alignment.rewards.grounding import GroundingReward
from alignment.rows import ImageFile, ResponseRow
from bench.files import read_lines, replace_lines

RECIPE = Path(__file__).with_name("recipe.yaml")


def main() -> None:
    """Writes the best answers in the form of answers.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run with several seeds")
    parser.add_argument("images", type=Path, help="the folder of its images")
    parser.add_argument("out", type=Path, help="the file that is written")
    arguments = parser.parse_args()
    settings = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["rewards"]
    reward = GroundingReward.model_validate(settings)
    rows = read_lines(arguments.run / "answers.jsonl")
    file_of = {file.name: file for file in arguments.images.rglob("*.png")}
    images: dict[str, ImageFile] = {}
    for row in rows:
        name = row["image"]
        images[name] = ImageFile(file_of[name], name)
    responses: list[ResponseRow] = []
    for row in rows:
        responses.append(
            {
                "key": row["key"],
                "image": row["image"],
                "instruction": row["prompt"],
                "model": "llava-tiny",
                "text": row["text"],
                "tokens": row["tokens"],
                "finish": row["finish"],
            }
        )
    reward_of: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for batch in reward.rewards(responses, images, Path(folder)):
            reward_of |= {item.response["key"]: item.reward for item in batch}
    groups = defaultdict(list)
    for row in rows:
        groups[row["image"], row["prompt"]].append(row)
    best = []
    for group in groups.values():
        best.append(max(group, key=lambda row: reward_of[row["key"]]))
    replace_lines(arguments.out, best)


if __name__ == "__main__":
    main()
