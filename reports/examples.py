"""Images of a run with right and wrong answers: the first look at what the numbers mean."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.images import is_image
from bench.data.picture_sheet import BAD, GOOD, INK, QUIET, Panel, Paragraph, picture_sheet
from bench.files import replace_file
from bench.runs.run import Run
from bench.types import Request, Sample, Values

IMAGES, PER_MARK = 4, 2  # images, and right and wrong answers of each


@dataclass(frozen=True)
class ShownAnswer:
    """One answer beside an image."""

    question: str
    answer: str
    reference: str
    correct: bool
    false: Sequence[str] = ()  # what it says and the image does not show


def write_examples(run: Run, samples: Sequence[Sample], requests: Sequence[Request]) -> Path | None:
    """Writes `examples.png` into a run's folder and returns it; None if no image can be shown.

    The images are those with the most balanced right and wrong answers, in the order of the
    samples. Raises StoreError if it cannot be written.
    """
    by_image = _answers_by_image(run, samples, requests)
    # An image with only right, or only wrong, answers shows one side of the model.
    balanced_first = sorted(by_image, key=lambda path: _balance(by_image[path]), reverse=True)
    paths = list(itertools.islice(filter(is_image, balanced_first), IMAGES))
    if not paths:
        return None
    answers = [item for shown in by_image.values() for item in shown]
    wrong = sum(not item.correct for item in answers)
    number = "one of" if len(paths) == 1 else f"{len(paths)} of"
    subtitle = (
        f"{number} {len(by_image):,} pictures; {wrong:,} of {len(answers):,} distinct answers are "
        "wrong; wrong ones first"
    )
    panels = [_panel(path, by_image[path]) for path in paths]
    sheet = picture_sheet(f"{run.benchmark} · {run.label}", subtitle, panels)
    file = run.folder / "examples.png"
    content = io.BytesIO()
    sheet.save(content, "PNG")
    replace_file(file, content.getvalue())
    return file


def _answers_by_image(
    run: Run, samples: Sequence[Sample], requests: Sequence[Request]
) -> Mapping[Path, list[ShownAnswer]]:
    sample_of = {sample.id: sample for sample in samples}
    by_image: dict[Path, list[ShownAnswer]] = {}
    for request in requests:
        # Samples that share a request have the same question and answer.
        sample = sample_of[request.samples[0]]
        score = run.scores.get(sample.id)
        if request.path is None or request.key not in run.answers or score is None:
            continue
        if "correct" in score.values:
            text = run.answers[request.key].answer.text
            reference = _reference_text(sample.reference)
            false = _false_words(score.values)
            is_right = bool(score.values["correct"])
            shown = ShownAnswer(sample.question, text, reference, is_right, false)
            by_image.setdefault(request.path, []).append(shown)
    return by_image


def _false_words(values: Values) -> tuple[str, ...]:
    return (*(values.get("hallucinated") or ()), *(values.get("false_claims") or ()))


def _balance(shown: Sequence[ShownAnswer]) -> tuple[int, int]:
    """How well answers show both sides: the rarer of right and wrong, then how many are wrong."""
    wrong = sum(not item.correct for item in shown)
    return min(wrong, len(shown) - wrong, PER_MARK), wrong


def _reference_text(reference: Any) -> str:
    if isinstance(reference, dict):  # AMBER's descriptions
        reference = reference["truth"]
    return reference if isinstance(reference, str) else ", ".join(map(str, reference))


def _panel(path: Path, shown: Sequence[ShownAnswer]) -> Panel:
    """An image with its answers beside it, wrong ones first."""
    wrong = [item for item in shown if not item.correct][:PER_MARK]
    right = [item for item in shown if item.correct][:PER_MARK]
    paragraphs = []
    for item in wrong + right:
        paragraphs.append(Paragraph(item.question, QUIET, apart=True))
        answer = f"{'right' if item.correct else 'wrong'}: {item.answer}"
        # Where false words are known they are marked, and the rest is read as it is.
        plain = GOOD if item.correct else INK if item.false else BAD
        paragraphs.append(Paragraph(answer, plain, item.false))
        if not item.correct:
            paragraphs.append(Paragraph(f"it should be: {item.reference}", QUIET))
    return Panel(path, paragraphs)
