"""A contact sheet of preference pairs: picture, instruction, both responses, doubtful objects marked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bench.data.images import read_image
from bench.errors import DataError

SIDE, WIDE, GAP, LINE = 192, 560, 12, 19
DOUBTFUL = (190, 60, 0)


def write_sheet(rows: Sequence[Mapping[str, Any]], folder: Path, file: Path) -> None:
    """Writes the pairs, whose pictures lie in `folder`, as PNG; a picture that cannot be read leaves its place grey."""
    font = ImageFont.load_default(14)
    panels = [_panel(row, folder, font) for row in rows]
    sheet = Image.new("RGB", (SIDE + WIDE + 3 * GAP, sum(panel.height for panel in panels)), "white")
    for number, panel in enumerate(panels):
        sheet.paste(panel, (0, sum(above.height for above in panels[:number])))
    sheet.save(file)


def _panel(row: Mapping[str, Any], folder: Path, font: Any) -> Image.Image:
    panel = Image.new("RGB", (SIDE + WIDE + 3 * GAP, 4 * SIDE), "white")
    try:
        picture = read_image(folder / row["image"])
        picture.thumbnail((SIDE, SIDE))
    except DataError:
        picture = Image.new("RGB", (SIDE, SIDE), "lightgray")
    panel.paste(picture.resize((SIDE, round(SIDE * picture.height / picture.width))), (GAP, GAP))
    draw = ImageDraw.Draw(panel)
    top = _text(draw, GAP, " ".join(row["instruction"].split()), (), font, "gray")
    for side in ("chosen", "rejected"):
        told = f"{side} ({row[f'{side}_reward']:+.2f}): {row[side]}"
        top = _text(draw, top + LINE // 3, told, row.get(f"{side}_doubtful", ()), font, "black")
    return panel.crop((0, 0, panel.width, min(panel.height, max(top, SIDE) + 2 * GAP)))


def _text(draw: Any, top: int, text: str, marked: Collection[str], font: Any, colour: str) -> int:
    """Draws words in lines, those that name a marked object in another colour and underlined; the next line's place."""
    parts = {part for name in marked for part in name.split()}
    left, space = SIDE + 2 * GAP, draw.textlength(" ", font=font)
    x = left
    for word in text.split():
        width = draw.textlength(word, font=font)
        if x + width > left + WIDE:
            x, top = left, top + LINE
        false = any(word.strip(".,!?").lower().startswith(part) for part in parts)
        draw.text((x, top), word, fill=DOUBTFUL if false else colour, font=font)
        if false:
            draw.line((x, top + LINE - 2, x + width, top + LINE - 2), fill=DOUBTFUL)
        x += width + space
    return top + LINE
