"""`judge`: the rating of any judge, 0-6 by MMHal-Bench's rubric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignment.rewards.reward import Reward, Rewarded
from alignment.rows import ImageFile, ResponseRow
from bench.metrics.ratings import rubric_rating
from bench.runs.jobs import check_server, load_judge
from bench.types import Answer, Sample

TOGETHER = 32  # responses judged between two writes


class JudgeReward(Reward):
    """The rating of a judge; the image's prompt is all that it knows of the image."""

    kind: Literal["judge"]
    judge: str

    def identity(self) -> Any:
        """What the judge says of itself."""
        return load_judge(self.judge).describe()

    def check(self) -> None:
        """Raises BenchError if the judge is behind a server that cannot be asked."""
        check_server(load_judge(self.judge))

    def rewards(
        self, responses: Sequence[ResponseRow], images: Mapping[str, ImageFile], out: Path
    ) -> Iterator[list[Rewarded]]:
        """Ratings in batches. A response without a verdict gets none."""
        judge = load_judge(self.judge)
        for start in range(0, len(responses), TOGETHER):
            items = []
            waiting = list(responses[start : start + TOGETHER])
            for row in waiting:
                items.append((_sample(row, images[row["image"]].prompt), Answer(row["text"])))
            verdict_of = {}
            for verdicts in judge.judge(items):
                for sample, verdict in verdicts:
                    verdict_of[sample.id] = verdict
                batch = []
                # A server's verdicts come in any order, and the artifact has one.
                while waiting and waiting[0]["key"] in verdict_of:
                    row = waiting.pop(0)
                    verdict = verdict_of[row["key"]]
                    rating = rubric_rating(verdict.text) if verdict.error is None else None
                    # No verdict is no rating; the response is left out of the pairs.
                    if rating is not None:
                        batch.append(Rewarded(row, float(rating), []))
                yield batch


def _sample(row: ResponseRow, prompt: str) -> Sample:
    """A response as an answer to a holistic question of MMHal-Bench."""
    image = row["image"]
    metadata = {"index": 0, "image_content": [prompt]}
    return Sample(row["key"], image, row["instruction"], prompt, image, "holistic", metadata)
