"""Two pictures of a run with what the model answered, right and wrong: the first look at what the numbers mean."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bench.store import RunFolder, read_lines
from bench.types import Request, Sample

PICTURES, PER_MARK = 2, 3
SIDE, MARGIN, COLUMNS = 384, 16, 76
RIGHT, WRONG = (0, 96, 160), (190, 60, 0)  # told apart by colour-blind readers too, and by their words


@dataclass(frozen=True)
class Shown:
    """One answer under a picture."""

    question: str
    answer: str
    reference: str
    correct: bool


def write_examples(store: RunFolder, samples: Sequence[Sample], requests: Sequence[Request]) -> Path | None:
    """Writes `examples.png` into a run's folder and returns it; None where no picture can be shown.

    The pictures are those with the most balanced right and wrong answers, in the order of the samples.
    """
    answers = store.answers()
    scored = read_lines(store.path / "scores.jsonl")
    verdicts = {row["sample"]: row["values"]["correct"] for row in scored if "correct" in row["values"]}
    by_id = {sample.id: sample for sample in samples}
    pictures: dict[Path, list[Shown]] = {}
    for request in requests:
        sample = by_id[request.samples[0]]
        if request.path is not None and request.key in answers and sample.id in verdicts:
            text, reference = answers[request.key][0].text, _text(sample.reference)
            shown = Shown(sample.question, text, reference, verdicts[sample.id])
            pictures.setdefault(request.path, []).append(shown)
    chosen = sorted(pictures, key=lambda path: _balance(pictures[path]), reverse=True)[:PICTURES]
    panels = [panel for path in chosen if (panel := _panel(path, pictures[path])) is not None]
    if not panels:
        return None
    sheet = Image.new("RGB", (max(panel.width for panel in panels), sum(panel.height for panel in panels)), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (0, sum(above.height for above in panels[:number])))
    file = store.path / "examples.png"
    sheet.save(file)
    return file


def _balance(shown: Sequence[Shown]) -> tuple[int, int]:
    """How well answers show both sides: the rarer of right and wrong, then how many are wrong."""
    wrong = sum(not item.correct for item in shown)
    return min(wrong, len(shown) - wrong, PER_MARK), wrong


def _text(reference: Any) -> str:
    if isinstance(reference, dict):  # AMBER's descriptions
        reference = reference["truth"]
    return reference if isinstance(reference, str) else ", ".join(map(str, reference))


def _panel(path: Path, shown: Sequence[Shown]) -> Image.Image | None:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except OSError:
        return None
    scale = SIDE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    lines = _lines(shown)
    font = ImageFont.load_default(15)
    height = max(picture.height, 21 * len(lines)) + 2 * MARGIN
    wide = max((font.getlength(line) for line, _ in lines), default=0)
    panel = Image.new("RGB", (SIDE + round(wide) + 3 * MARGIN, height), "white")
    panel.paste(picture, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(panel)
    for number, (line, colour) in enumerate(lines):
        draw.text((SIDE + 2 * MARGIN, MARGIN + 21 * number), line, fill=colour, font=font)
    return panel


def _lines(shown: Sequence[Shown]) -> list[tuple[str, tuple[int, int, int] | str]]:
    wrong = [item for item in shown if not item.correct][:PER_MARK]
    right = [item for item in shown if item.correct][:PER_MARK]
    lines: list[tuple[str, tuple[int, int, int] | str]] = []
    for item in wrong + right:
        lines += [(line, "black") for line in textwrap.wrap(" ".join(item.question.split()), COLUMNS)]
        mark = "right: " if item.correct else "wrong: "
        said = textwrap.shorten(f"{mark}{item.answer}", 3 * COLUMNS, placeholder=" …")
        lines += [(line, RIGHT if item.correct else WRONG) for line in textwrap.wrap(said, COLUMNS)]
        if not item.correct:
            lines += [(line, "gray") for line in textwrap.wrap(f"it should be: {item.reference}", COLUMNS)[:2]]
        lines.append(("", "black"))
    return lines[:-1]
