"""Images of scenes: sprites on a background that tells the context, 128 × 128 RGB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.scenes.world import CATEGORIES, SIDE, SIZES, Context, Scene

ATLAS = Path(__file__).with_name("sprites.png")
DARKER = 0.92  # of the floor's colour, for its pattern
CAPTION_LINE = 46  # characters under an image of the contact sheet


@cache
def sprite(category: str, size: str, mirrored: bool) -> Image.Image:
    """The RGBA sprite of a category in a size, (side, side)."""
    with Image.open(ATLAS) as atlas:
        cell, side = max(SIZES.values()), SIZES[size]
        left, top = tuple(SIZES).index(size) * cell, CATEGORIES.index(category) * cell
        cut = atlas.convert("RGBA").crop((left, top, left + side, top + side))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else cut


@cache
def background(context: Context) -> Image.Image:
    """Sky or wall above the horizon, ground or floor below it with a pattern of its own."""
    image = Image.new("RGB", (SIDE, SIDE), context.above)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, context.horizon, SIDE, SIDE), fill=context.below)
    darker = tuple(int(channel * DARKER) for channel in context.below)
    # hash() of a text differs from process to process; this number does not.
    number = sum(map(ord, context.name))
    step = 6 + number % 7
    for y in range(context.horizon + step, SIDE, step):
        draw.line((0, y, SIDE, y), fill=darker)
    if number % 2:
        for x in range(step, SIDE, 2 * step):
            draw.line((x, context.horizon, x, SIDE), fill=darker)
    return image


def render(scene: Scene) -> Image.Image:
    """The scene's image, the same to the last pixel on every machine."""
    image = background(scene.context).copy()
    for thing in scene.things:
        cut = sprite(thing.category, thing.size, thing.mirrored)
        image.paste(cut, (thing.left, thing.top), cut)
    return image


def contact_sheet(scenes: Sequence[Scene], columns: int = 6, zoom: int = 2) -> Image.Image:
    """Many scenes with their contexts and objects written under them."""
    side = SIDE * zoom
    width, height = side + 8, side + 40
    rows = math.ceil(len(scenes) / columns)
    sheet = Image.new("RGB", (width * columns, height * rows), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, scene in enumerate(scenes):
        x, y = number % columns * width, number // columns * height
        enlarged = render(scene).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (x + 4, y + 4))
        text = _caption(scene)
        for line in range(2):
            part = text[line * CAPTION_LINE : (line + 1) * CAPTION_LINE]
            draw.text((x + 4, y + side + 6 + 14 * line), part, fill="black", font=font)
    return sheet


def _caption(scene: Scene) -> str:
    names = []
    for name, count in scene.counts.items():
        names.append(f"{count} {name}" if count > 1 else name)
    return f"{scene.context.name}: {', '.join(names)}"
