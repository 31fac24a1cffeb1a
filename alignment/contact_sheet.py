"""A contact sheet of preference pairs: image, instruction, responses, doubtful words marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from alignment.rows import PairRow
from bench.data.images import read_image, stack_images
from bench.errors import DataError

SIDE, TEXT_WIDTH, GAP, LINE = 192, 560, 12, 19  # pixels
WIDTH = SIDE + TEXT_WIDTH + 3 * GAP
LEFT = SIDE + 2 * GAP  # of the texts
DOUBTFUL = (190, 60, 0)


def write_sheet(rows: Sequence[PairRow], folder: Path, file: Path) -> None:
    """Writes the pairs as PNG.

    Args:
        rows: The pairs.
        folder: Where their images lie. An image that cannot be read leaves its place grey.
        file: The sheet.
    """
    font = ImageFont.load_default(14)
    panels = [_panel(row, folder, font) for row in rows]
    stack_images(panels).save(file)


def _panel(row: PairRow, folder: Path, font: Any) -> Image.Image:
    panel = Image.new("RGB", (WIDTH, 4 * SIDE), "white")
    try:
        image = read_image(folder / row["image"])
        image.thumbnail((SIDE, SIDE))
    except DataError:
        image = Image.new("RGB", (SIDE, SIDE), "lightgray")
    height = round(SIDE * image.height / image.width)
    panel.paste(image.resize((SIDE, height)), (GAP, GAP))
    draw = ImageDraw.Draw(panel)
    instruction = " ".join(row["instruction"].split())
    top = _draw_text(draw, GAP, instruction, (), font, "gray")
    responses = (
        ("chosen", row["chosen"], row["chosen_reward"], row.get("chosen_doubtful", [])),
        ("rejected", row["rejected"], row["rejected_reward"], row.get("rejected_doubtful", [])),
    )
    for side, response, reward, doubtful in responses:
        text = f"{side} ({reward:+.2f}): {response}"
        top = _draw_text(draw, top + LINE // 3, text, doubtful, font, "black")
    # The panel was drawn as high as any text may be; what is not needed is cut off.
    bottom = min(panel.height, max(top, SIDE) + 2 * GAP)
    return panel.crop((0, 0, panel.width, bottom))


def _draw_text(
    draw: ImageDraw.ImageDraw,
    top: int,
    text: str,
    doubtful: Collection[str],
    font: Any,
    colour: str,
) -> int:
    """Draws words in lines and returns where the next line begins.

    Words that name a doubtful object are of another colour and underlined.
    """
    parts = tuple({part for name in doubtful for part in name.split()})
    space = draw.textlength(" ", font=font)
    x: float = LEFT
    for word in text.split():
        width = draw.textlength(word, font=font)
        if x + width > LEFT + TEXT_WIDTH:
            x, top = LEFT, top + LINE
        # By prefix, so that plurals are marked too.
        is_doubtful = word.strip(".,!?").lower().startswith(parts)
        draw.text((x, top), word, fill=DOUBTFUL if is_doubtful else colour, font=font)
        if is_doubtful:
            baseline = top + LINE - 2
            draw.line((x, baseline, x + width, baseline), fill=DOUBTFUL)
        x += width + space
    return top + LINE
