"""Two images of a run with right and wrong answers: the first look at what the numbers mean."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bench.data.images import read_image, stack_images
from bench.errors import DataError
from bench.files import replace_file
from bench.runs.run import Run
from bench.types import Request, Sample

IMAGES, PER_MARK = 2, 3  # images, and right and wrong answers of each
SIDE, MARGIN, LINE = 384, 16, 21  # pixels
COLUMNS = 76  # characters
# Told apart by colour-blind readers too, and by their words.
RIGHT, WRONG = (0, 96, 160), (190, 60, 0)
Colour = tuple[int, int, int] | str


@dataclass(frozen=True)
class ShownAnswer:
    """One answer beside an image."""

    question: str
    answer: str
    reference: str
    correct: bool


def write_examples(run: Run, samples: Sequence[Sample], requests: Sequence[Request]) -> Path | None:
    """Writes `examples.png` into a run's folder and returns it; None if no image can be shown.

    The images are those with the most balanced right and wrong answers, in the order of the
    samples. Raises StoreError if it cannot be written.
    """
    by_image = _answers_by_image(run, samples, requests)
    # An image with only right, or only wrong, answers shows one side of the model.
    balanced_first = sorted(by_image, key=lambda path: _balance(by_image[path]), reverse=True)
    panels = []
    for path in balanced_first[:IMAGES]:
        panel = _panel(path, by_image[path])
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    file = run.folder / "examples.png"
    content = io.BytesIO()
    stack_images(panels).save(content, "PNG")
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
            shown = ShownAnswer(sample.question, text, reference, bool(score.values["correct"]))
            by_image.setdefault(request.path, []).append(shown)
    return by_image


def _balance(shown: Sequence[ShownAnswer]) -> tuple[int, int]:
    """How well answers show both sides: the rarer of right and wrong, then how many are wrong."""
    wrong = sum(not item.correct for item in shown)
    return min(wrong, len(shown) - wrong, PER_MARK), wrong


def _reference_text(reference: Any) -> str:
    if isinstance(reference, dict):  # AMBER's descriptions
        reference = reference["truth"]
    return reference if isinstance(reference, str) else ", ".join(map(str, reference))


def _panel(path: Path, shown: Sequence[ShownAnswer]) -> Image.Image | None:
    """An image with its answers beside it; None if it cannot be read."""
    try:
        image = read_image(path)
    except DataError:
        return None
    scale = SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    lines = _lines(shown)
    font = ImageFont.load_default(15)
    text_width = max((font.getlength(line) for line, _ in lines), default=0)
    height = max(image.height, LINE * len(lines)) + 2 * MARGIN
    panel = Image.new("RGB", (SIDE + round(text_width) + 3 * MARGIN, height), "white")
    panel.paste(image, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(panel)
    for number, (line, colour) in enumerate(lines):
        corner = (SIDE + 2 * MARGIN, MARGIN + LINE * number)
        draw.text(corner, line, fill=colour, font=font)
    return panel


def _lines(shown: Sequence[ShownAnswer]) -> list[tuple[str, Colour]]:
    """Lines of text with their colours, wrong answers first."""
    wrong = [item for item in shown if not item.correct][:PER_MARK]
    right = [item for item in shown if item.correct][:PER_MARK]
    lines: list[tuple[str, Colour]] = []

    def add(text: str, colour: Colour, most: int | None = None) -> None:
        for line in textwrap.wrap(text, COLUMNS)[:most]:
            lines.append((line, colour))

    for item in wrong + right:
        add(" ".join(item.question.split()), "black")
        mark = "right: " if item.correct else "wrong: "
        answer = textwrap.shorten(f"{mark}{item.answer}", 3 * COLUMNS, placeholder=" …")
        add(answer, RIGHT if item.correct else WRONG)
        if not item.correct:
            add(f"it should be: {item.reference}", "gray", most=2)
        lines.append(("", "black"))
    return lines[:-1]
