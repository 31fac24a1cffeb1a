"""Pictures with texts beside them on one sheet: examples of a run, and preference pairs."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from bench.data.images import read_image
from bench.errors import DataError
from bench.escaping import visible_line

COLUMNS = 2
SIDE, TEXT_WIDTH, GAP, LINE = 240, 420, 18, 21  # pixels
PANEL_WIDTH = SIDE + TEXT_WIDTH + 3 * GAP
MOST_LINES = 8  # of a paragraph
MOST_READ = 2000  # characters of a text: more than fit
INK, QUIET = (27, 27, 27), (89, 89, 89)
# Told apart by colour-blind readers too, and by their words.
GOOD, BAD = (0, 98, 155), (168, 60, 0)
Colour = tuple[int, int, int]


class Paragraph(NamedTuple):
    """A text beside a picture.

    Args:
        text: The text; what does not fit in a few lines is cut off with an ellipsis.
        colour: Its colour.
        marked: Words that are not true of the picture: they are underlined, in another colour.
        apart: Whether there is room above it.
    """

    text: str
    colour: Colour = INK
    marked: Collection[str] = ()
    apart: bool = False


class Panel(NamedTuple):
    """A picture and what stands beside it. One that cannot be read leaves its place grey."""

    picture: Path
    paragraphs: Sequence[Paragraph]


def picture_sheet(title: str, subtitle: str, panels: Sequence[Panel]) -> Image.Image:
    """The panels in two columns below a title."""
    drawn = list(map(_panel, panels))
    rows = [drawn[start : start + COLUMNS] for start in range(0, len(drawn), COLUMNS)]
    top = 2 * GAP + 2 * LINE
    height = top + sum(max(panel.height for panel in row) for row in rows)
    width = PANEL_WIDTH * min(COLUMNS, max(1, len(drawn)))
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _fitting(title, width, 20), INK, _font(20))
    below = (GAP, GAP + LINE + 6)
    draw.text(below, _fitting(subtitle, width, 15), QUIET, _font(15))
    for row in rows:
        for column, panel in enumerate(row):
            sheet.paste(panel, (column * PANEL_WIDTH, top))
        top += max(panel.height for panel in row)
    return sheet


@cache
def _font(size: int) -> Any:
    """Pillow's own font, decoded once."""
    return ImageFont.load_default(size)


def _fitting(text: str, width: int, size: int) -> str:
    """As much of a line as fits."""
    text, font = visible_line(text[:MOST_READ]), _font(size)
    if font.getlength(text) <= width - 2 * GAP:
        return text

    def length(number: int) -> int:
        pixels: int = math.ceil(font.getlength(f"{text[:number]} …"))
        return pixels

    fitting = bisect_right(range(1, len(text) + 1), width - 2 * GAP, key=length)
    return f"{text[:fitting]} …"


def _panel(panel: Panel) -> Image.Image:
    try:
        picture = read_image(panel.picture)
        scale = SIDE / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize((size[0], size[1]))
    except DataError:
        picture = Image.new("RGB", (SIDE, SIDE), "lightgray")
    lines = (MOST_LINES + 1) * len(panel.paragraphs)
    image = Image.new("RGB", (PANEL_WIDTH, max(SIDE, lines * LINE) + 2 * GAP), "white")
    image.paste(picture, (GAP, 0))
    draw = ImageDraw.Draw(image)
    top = 0
    for number, paragraph in enumerate(panel.paragraphs):
        if paragraph.apart and number:
            top += LINE // 2
        top = _draw_paragraph(draw, top, paragraph)
    # It was drawn as high as any text may be; what is not needed is cut off.
    return image.crop((0, 0, PANEL_WIDTH, max(top, picture.height) + GAP))


def _words(text: str, marked: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The words of a text, and whether they belong to a marked phrase or its plural."""
    phrases = "|".join(re.escape(phrase) for phrase in marked if phrase.strip())
    spans = []
    if phrases:
        pattern = rf"\b(?:{phrases})(?:s|es)?\b"
        spans = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    for word in re.finditer(r"\S+", text):
        is_marked = any(start < word.end() and word.start() < end for start, end in spans)
        yield word.group(), is_marked


def _draw_paragraph(draw: ImageDraw.ImageDraw, top: int, paragraph: Paragraph) -> int:
    """Draws the words in lines and returns where the next line begins."""
    font = _font(15)
    left = SIDE + 2 * GAP
    space = draw.textlength(" ", font=font)
    room = draw.textlength(" …", font=font)
    x, line = 0.0, 1
    for word, is_marked in _words(visible_line(paragraph.text[:MOST_READ]), paragraph.marked):
        width = draw.textlength(word, font=font)
        is_last_line = line == MOST_LINES
        if is_last_line and x + width > TEXT_WIDTH - room:
            draw.text((left + x, top), "…", paragraph.colour, font)
            break
        if x and x + width > TEXT_WIDTH:
            x, line, top = 0.0, line + 1, top + LINE
        colour = BAD if is_marked else paragraph.colour
        draw.text((left + x, top), word, colour, font)
        if is_marked:
            below = top + LINE - 3
            # The mark is of the words, not of what ends the sentence.
            marked_width = draw.textlength(word.rstrip(".,;:!?"), font=font)
            draw.line((left + x, below, left + x + marked_width, below), BAD, 2)
        x += width + space
    return top + LINE
