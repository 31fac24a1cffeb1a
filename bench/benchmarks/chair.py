"""CHAIR: which objects of a caption are not in the image (Rohrbach et al., arXiv 1809.02156).

Reference scorer: LisaAnne/Hallucination chair.py. CHAIRi = hallucinated mentions / mentions, CHAIRs = captions with
a hallucination / captions, recall = objects mentioned / objects there, all counted over the whole set. Ground truth:
the objects of segmentations and reference captions of COCO 2014.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.benchmarks.common import mean_of, metric
from bench.errors import DataError
from bench.metrics.object_mentions import chair_mentions, read_synonyms
from bench.stats import Floats, bootstrap_sums, labels, ratio
from bench.types import Answer, Data, Metric, Sample, Score, Verdict

GROUND_TRUTH = "chair/coco2014_chair_gt__wordnet_pos_lemma.json"
SYNONYMS = "chair/synonyms_LisaAnne.txt"
QUESTION = "Please describe this image in detail."


@dataclass(frozen=True)
class Chair:
    """CHAIR on the COCO images at hand: there is no official list, papers draw 500 of val2014."""

    name: str = "chair"
    title: str = "CHAIR"
    images: str = "coco"
    version: str = "1"
    suffix: str = ""
    judged: bool = False

    def samples(self, data: Data) -> list[Sample]:
        """One sample per image at hand that has ground truth. Raises DataError where there is none."""
        truth = _ground_truth(data)
        synonyms = read_synonyms(data.file(SYNONYMS).read_text(encoding="utf-8"))
        samples = []
        for name in data.image_names(self.images):
            number = name.rpartition(".")[0].rpartition("_")[2].lstrip("0")
            if number in truth:
                metadata = {"synonyms": synonyms}
                samples.append(Sample(name, name, QUESTION, sorted(truth[number]), name, "all", metadata))
        if not samples:
            raise DataError(
                "CHAIR found no COCO image with ground truth.",
                f"{data.label} has ground truth for {len(truth)} images, and none of them lies in its images folder.",
                "Put COCO val2014 images under DIR/images/coco, or pass their folder with --images.",
            )
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """512, as in the common evaluations."""
        return 512

    def yes_no(self, sample: Sample) -> bool:
        """Captions."""
        return False

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The objects mentioned, and those of them that are not there."""
        mentioned = chair_mentions(answer.text, sample.metadata["synonyms"])
        values = caption_values(mentioned, sample.reference) | {"length": len(answer.text.split())}
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """CHAIRi, CHAIRs, recall and the mean length in words."""
        scored = [score.values for score in scores if score.unscored is None]
        counted = [[len(v["hallucinated"]), len(v["mentioned"]), v["found"], v["objects"]] for v in scored]
        clusters = labels([score.cluster for score in scores if score.unscored is None])
        chair_i, recall = bootstrap_sums(np.array(counted, dtype=float).reshape(-1, 4), clusters, _ratios)
        return [
            metric("chair_i", "all", chair_i, scores, "lower"),
            metric("chair_s", "all", mean_of(scores, "any_hallucination"), scores, "lower"),
            metric("recall", "all", recall, scores, "higher"),
            metric("length", "all", mean_of(scores, "length", None), scores, "neither", "words"),
        ]


def caption_values(mentioned: Sequence[str], truth: Sequence[str]) -> dict[str, object]:
    """What CHAIR counts of one caption, from the categories it mentions (repeats kept) and those that are there."""
    there = set(truth)
    hallucinated = [category for category in mentioned if category not in there]
    return {
        "mentioned": list(mentioned),
        "hallucinated": hallucinated,
        "any_hallucination": bool(hallucinated),
        "correct": not hallucinated,
        "found": len(there & set(mentioned)),
        "objects": len(there),
    }


def _ratios(sums: Floats) -> Floats:
    return np.stack([ratio(sums[:, 0], sums[:, 1]), ratio(sums[:, 2], sums[:, 3])], axis=1)


def _ground_truth(data: Data) -> dict[str, list[str]]:
    path = data.file(GROUND_TRUTH)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = content["categories"]
        return {image: [categories[index] for index in found] for image, found in content["images"].items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"{path} is truncated or corrupt.",
            f"It needs 'categories' and 'images' ({type(error).__name__}: {error}).",
            "Restore the file from its source.",
        ) from error


CHAIR = Chair()
