"""HallusionBench: yes/no questions about figures and their edited versions.

Paper: Guan et al., arXiv 2310.14566. Reference scorer: tianyi-lab/HallusionBench utils.py. aAcc is
the accuracy over questions, fAcc the share of figures of which all questions are answered right,
qAcc the share of questions that are answered right about all versions of their figure. The script
asks GPT-4 if an answer agrees with the reference; here the words yes and no decide, as in
VLMEvalKit, and an answer with neither or both is wrong. Its questions without a figure are left
out, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.benchmarks.scoring import mean_of, metric, whole_groups
from bench.errors import DataError
from bench.files import read_rows
from bench.metrics.paired import WholeGroups, mean_of_value
from bench.metrics.yes_no import yes_probability
from bench.types import Answer, Data, Figure, Metric, Sample, Score, Verdict

QUESTIONS = "hallusionbench/HallusionBench.json"
FIELDS = {
    "category": str,
    "subcategory": str,
    "visual_input": str | int,
    "set_id": str | int,
    "figure_id": str | int,
    "question_id": str | int,
    "question": str,
    "gt_answer": str | int,
}
CATEGORIES = {"VD": "visual dependent", "VS": "visual supplement"}
LABELS = {"0": "no", "1": "yes"}
RULE = ("by the words yes and no, not by GPT-4; questions without a figure are left out",)
PUNCTUATION = str.maketrans(dict.fromkeys(".,!?:;\"'()[]*_", " "))


@dataclass(frozen=True)
class HallusionBench:
    """The questions with a figure, its two categories as subsets."""

    name: str = "hallusionbench"
    title: str = "HallusionBench"
    images: str = "hallusionbench"
    version: str = "1"
    suffix: str = "Answer the question using a single word or phrase."
    judged: bool = False

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return (QUESTION_ACCURACY, FIGURE_ACCURACY, PAIR_ACCURACY)

    def samples(self, data: Data) -> list[Sample]:
        """All questions about a figure.

        Raises DataError if a row is not as published.
        """
        path = data.file(QUESTIONS)
        samples = []
        # Questions without a figure have no file either.
        for row in read_rows(path, FIELDS):
            if str(row["visual_input"]) == "0":
                continue
            if not isinstance(row.get("filename"), str):
                raise DataError(
                    f"{path}: a question about a figure names none.",
                    "It needs the field filename.",
                    "Restore the file from its source.",
                )
            label = LABELS.get(str(row["gt_answer"]))
            if label is None or row["category"] not in CATEGORIES:
                raise DataError(
                    f"{path}: a question has the answer {row['gt_answer']!r} and the category "
                    f"{row['category']!r}.",
                    "Answers are 0 and 1, categories VD and VS.",
                    "Restore the file from its source.",
                )
            samples.append(_sample(row, label))
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """As in POPE."""
        return 128

    def yes_no(self, sample: Sample) -> bool:
        """P(yes) is recorded for every question."""
        return True

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The reading of the answer beside its label."""
        reading = yes_or_no(answer.text)
        values = {
            "answer": reading or "neither",
            "label": sample.reference,
            "correct": reading == sample.reference,
            "unparsed": reading is None,
            "figure": sample.metadata["figure"],
            "pair": sample.metadata["pair"],
            "p_yes": yes_probability(answer.p_yes, answer.p_no),
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """aAcc, fAcc and qAcc of both categories and of all."""
        groups: dict[str, list[Score]] = {"all": list(scores)}
        for score in scores:
            groups.setdefault(score.subset, []).append(score)
        rows = []
        for subset, group in groups.items():
            accuracy = mean_of(group, "correct")
            by_figure, by_pair = whole_groups(group, "figure"), whole_groups(group, "pair")
            rows += [
                metric(QUESTION_ACCURACY, subset, accuracy, group, RULE),
                metric(FIGURE_ACCURACY, subset, by_figure, group, RULE),
                metric(PAIR_ACCURACY, subset, by_pair, group, RULE),
            ]
        return rows


def _sample(row: dict[str, Any], label: str) -> Sample:
    family = f"{row['category']}_{row['subcategory']}_{row['set_id']}"
    figure = f"{family}_{row['figure_id']}"
    # "./hallusion_bench/VD/figure/0_1.png": names without their folders occur several times.
    image = str(row["filename"]).rpartition("hallusion_bench/")[2].removeprefix("./")
    return Sample(
        f"{figure}_{row['question_id']}",
        image,
        row["question"],
        label,
        family,  # versions of a figure depend on each other
        row["category"],
        {"figure": figure, "pair": f"{family}_{row['question_id']}"},
    )


def yes_or_no(text: str) -> str | None:
    """The one of the two words that an answer has; None if it has neither or both.

    >>> yes_or_no("Yes."), yes_or_no("No, it is not."), yes_or_no("Yes and no"), yes_or_no("Maybe")
    ('yes', 'no', None, None)
    """
    words = set(text.lower().translate(PUNCTUATION).split())
    answers = words & {"yes", "no"}
    return answers.pop() if len(answers) == 1 else None


QUESTION_ACCURACY = Figure(
    "aacc", "HallusionBench aAcc", "higher", mean_of_value("correct"), heading="aAcc", margin=0.01
)
FIGURE_ACCURACY = Figure(
    "facc", "HallusionBench fAcc", "higher", WholeGroups("figure"), heading="fAcc"
)
PAIR_ACCURACY = Figure("qacc", "HallusionBench qAcc", "higher", WholeGroups("pair"), heading="qAcc")
HALLUSION_BENCH = HallusionBench()
