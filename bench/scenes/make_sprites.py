"""Draws the atlas of sprites from Noto Color Emoji: `python -m bench.scenes.make_sprites` (fonts-noto-color-emoji).

Run once when the categories change; the atlas is shipped, so no font is needed otherwise.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.scenes.world import SIZES, SPRITES

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the only size the font has
ATLAS = Path(__file__).with_name("sprites.png")


def draw() -> Image.Image:
    """One row per category, one cell per size, each sprite centred and filling its cell's longer side."""
    font = ImageFont.truetype(str(FONT), STRIKE)
    cell = max(SIZES.values())
    atlas = Image.new("RGBA", (cell * len(SIZES), cell * len(SPRITES)))
    for row, emoji in enumerate(SPRITES.values()):
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((10, 10), emoji, font=font, embedded_color=True)
        glyph = canvas.crop(canvas.getbbox())
        for column, side in enumerate(SIZES.values()):
            scale = side / max(glyph.size)
            size = [max(1, round(length * scale)) for length in glyph.size]
            small = glyph.resize((size[0], size[1]), Image.Resampling.LANCZOS)
            atlas.paste(small, (column * cell + (side - size[0]) // 2, row * cell + (side - size[1]) // 2))
    return atlas


if __name__ == "__main__":
    draw().save(ATLAS, optimize=True)
    print(ATLAS)
