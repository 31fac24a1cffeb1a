"""MME's hallucination part: existence, count, position and colour, two yes/no questions an image.

Paper: Fu et al., arXiv 2306.13394. Reference scorer: eval_tool/calculation.py of its release: an
answer is the yes or no in its first four letters, else neither; accuracy is over questions,
accuracy+ over images of which both are right, a task's score is 100 times their sum. Papers on
hallucination quote these four of fourteen tasks, and their sum of 800 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.benchmarks.scoring import by_subset, mean_of, metric, scored, whole_groups
from bench.errors import DataError
from bench.files import read_text
from bench.metrics.paired import WholeGroups, mean_of_value
from bench.metrics.yes_no import yes_probability
from bench.types import Answer, Data, Figure, Metric, Sample, Score, Verdict

TASKS = ("existence", "count", "position", "color")
QUESTIONS = 2  # of an image
SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class Mme:
    """The four tasks, as subsets."""

    name: str = "mme-hallucination"
    title: str = "MME, hallucination part"
    images: str = "mme"
    version: str = "1"
    suffix: str = ""
    judged: bool = False

    @property
    def figures(self) -> Sequence[Figure]:
        """See the end of this file."""
        return (ACCURACY, ACCURACY_PLUS)

    def samples(self, data: Data) -> list[Sample]:
        """Two questions for each image of every task that is there.

        Raises DataError if there is none, or if a file has not two questions with yes or no.
        """
        samples: list[Sample] = []
        for task in TASKS:
            if data.subsets is not None and task not in data.subsets:
                continue
            folder = data.root / "mme" / task
            for file in sorted(folder.glob("*.txt")):
                samples += self._of_image(data, task, file.stem)
        if not samples:
            raise DataError(
                f"{data.root / 'mme'} has no question of MME.",
                f"The data folder {data.root} must hold the official files mme/{TASKS[0]}/*.txt "
                "and so on.",
                "Put the folders of the four tasks there, or leave this benchmark out.",
            )
        return samples

    def _of_image(self, data: Data, task: str, stem: str) -> list[Sample]:
        relative = f"mme/{task}/{stem}.txt"
        lines = read_text(data.file(relative)).splitlines()
        rows = [line.rsplit("\t", 1) for line in lines if line.strip()]
        is_right = len(rows) == QUESTIONS and all(
            len(row) == 2 and row[1].strip().lower() in ("yes", "no") for row in rows
        )
        if not is_right:
            raise DataError(
                f"{data.root / relative} is not as published.",
                "It needs two lines of a question, a tab, and Yes or No.",
                "Restore the file from its source.",
            )
        image = f"{task}/{stem}{SUFFIXES[0]}"
        for suffix in SUFFIXES:
            if data.image(f"{task}/{stem}{suffix}", self.images) is not None:
                image = f"{task}/{stem}{suffix}"
                break
        samples = []
        for number, (question, label) in enumerate(rows, 1):
            sample_id = f"{task}/{stem}/{number}"
            text, truth = question.strip(), label.strip().lower()
            samples.append(Sample(sample_id, image, text, truth, image, task))
        return samples

    def max_tokens(self, sample: Sample) -> int:
        """A word is asked for."""
        return 16

    def yes_no(self, sample: Sample) -> bool:
        """P(yes) is recorded for every question."""
        return True

    def score(self, sample: Sample, answer: Answer, verdict: Verdict | None) -> Score:
        """The official reading of the answer beside its label."""
        reading = mme_answer(answer.text)
        values = {
            "answer": reading,
            "label": sample.reference,
            "correct": reading == sample.reference,
            "image": sample.image,
            "p_yes": yes_probability(answer.p_yes, answer.p_no),
        }
        return Score(sample.id, sample.subset, sample.cluster, values)

    def metrics(self, scores: Sequence[Score]) -> list[Metric]:
        """Accuracy, accuracy+ and score of each task, and the sum of scores."""
        rows = []
        groups = by_subset(scores)
        total = 0.0
        for task, group in groups.items():
            accuracy, plus = mean_of(group, "correct"), whole_groups(group, "image")
            rows.append(metric(ACCURACY, task, accuracy, group))
            rows.append(metric(ACCURACY_PLUS, task, plus, group))
            total += 100 * (float(accuracy[0]) + float(plus[0]))
            rows.append(_score(task, 100 * (float(accuracy[0]) + float(plus[0])), group))
        rows.append(metric(ACCURACY, "all", mean_of(scores, "correct"), scores))
        rows.append(metric(ACCURACY_PLUS, "all", whole_groups(scores, "image"), scores))
        missing = [task for task in TASKS if task not in groups]
        caveats = (f"without MME's {', '.join(missing)}",) if missing else ()
        return [*rows, _score("all", total, scores, caveats)]


def mme_answer(text: str) -> str:
    """What the official script reads in an answer.

    >>> mme_answer("Yes, it is."), mme_answer("no"), mme_answer("It is not.")
    ('yes', 'no', 'other')
    """
    beginning = text.lower()[:4]
    if "yes" in beginning:
        return "yes"
    return "no" if "no" in beginning else "other"


def _score(
    subset: str, value: float, scores: Sequence[Score], caveats: tuple[str, ...] = ()
) -> Metric:
    """A sum of accuracies has no interval of its own."""
    n = len(scored(scores))
    unscored = len(scores) - n
    return Metric("score", subset, value, np.nan, np.nan, n, unscored, "higher", "amount", caveats)


ACCURACY = Figure(
    "accuracy", "MME accuracy", "higher", mean_of_value("correct"), heading="acc", margin=0.01,
    by_subset=True,
)  # fmt: skip
ACCURACY_PLUS = Figure("accuracy_plus", "MME accuracy+", "higher", WholeGroups("image"))
MME = Mme()
