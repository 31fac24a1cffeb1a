"""Pictures of scenes: sprites of the shipped atlas on a background that tells the context, 128 × 128 RGB."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.scenes.world import CATEGORIES, SIDE, SIZES, Context, Scene

ATLAS = Path(__file__).with_name("sprites.png")


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
    darker = tuple(int(channel * 0.92) for channel in context.below)
    step = 6 + sum(map(ord, context.name)) % 7
    for offset in range(context.horizon + step, SIDE, step):
        draw.line((0, offset, SIDE, offset), fill=darker)
    if sum(map(ord, context.name)) % 2:
        for offset in range(step, SIDE, 2 * step):
            draw.line((offset, context.horizon, offset, SIDE), fill=darker)
    return image


def picture(scene: Scene) -> Image.Image:
    """The scene's picture, the same to the last pixel on every machine."""
    image = background(scene.context).copy()
    for thing in scene.things:
        cut = sprite(thing.category, thing.size, thing.mirrored)
        image.paste(cut, (thing.left, thing.top), cut)
    return image


def contact_sheet(scenes: list[Scene], columns: int = 6, zoom: int = 2) -> Image.Image:
    """Many scenes with their contexts and objects written under them."""
    wide, high = SIDE * zoom + 8, SIDE * zoom + 40
    sheet = Image.new("RGB", (wide * columns, high * math.ceil(len(scenes) / columns)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, item in enumerate(scenes):
        x, y = number % columns * wide, number // columns * high
        sheet.paste(picture(item).resize((SIDE * zoom, SIDE * zoom), Image.Resampling.NEAREST), (x + 4, y + 4))
        named = [f"{count} {name}" if count > 1 else name for name, count in item.counts.items()]
        text = f"{item.context.name}: " + ", ".join(named)
        for line, part in enumerate((text[:46], text[46:92])):
            draw.text((x + 4, y + SIDE * zoom + 6 + 14 * line), part, fill="black", font=font)
    return sheet
