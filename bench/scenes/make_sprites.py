"""Draws the atlas of sprites from Noto Color Emoji (Debian's fonts-noto-color-emoji).

`python -m bench.scenes.make_sprites` is run once when the categories change. The atlas is shipped,
so no font is needed otherwise.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.scenes.render import ATLAS
from bench.scenes.world import SIZES, SPRITES

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the only size the font has


def draw() -> Image.Image:
    """One row for each category, one cell for each size.

    Each sprite is centred and fills its cell's longer side.
    """
    font = ImageFont.truetype(str(FONT), STRIKE)
    cell = max(SIZES.values())
    atlas = Image.new("RGBA", (cell * len(SIZES), cell * len(SPRITES)))
    for row, emoji in enumerate(SPRITES.values()):
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((10, 10), emoji, font=font, embedded_color=True)
        glyph = canvas.crop(canvas.getbbox())
        for column, side in enumerate(SIZES.values()):
            scale = side / max(glyph.size)
            width, height = (max(1, round(length * scale)) for length in glyph.size)
            small = glyph.resize((width, height), Image.Resampling.LANCZOS)
            left = column * cell + (side - width) // 2
            top = row * cell + (side - height) // 2
            atlas.paste(small, (left, top))
    return atlas


if __name__ == "__main__":
    draw().save(ATLAS, optimize=True)
    print(ATLAS)
