"""Opening images that may be missing, truncated, hostile or no images at all."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bench.errors import DataError

MAX_PIXELS = 200_000_000


def keep_image(image: Image.Image, folder: Path) -> str:
    """Keeps an image in RGB as a PNG in `folder`, once, under a name that its content gives.

    Returns the file's name.
    """
    rgb = image.convert("RGB")
    digest = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
    name = f"{digest[:20]}.png"  # one image in many questions is kept once
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        # A second process may be keeping the same image.
        unfinished = folder / f".{name}.{os.getpid()}"
        rgb.save(unfinished, "PNG", compress_level=1)
        unfinished.replace(folder / name)
    return name


def link_image(source: Path, target: Path) -> None:
    """Puts an image into an artifact: a hard link if the file system allows it, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        target.write_bytes(source.read_bytes())


def stack_images(panels: Sequence[Image.Image]) -> Image.Image:
    """Images below each other on white, as wide as the widest."""
    sizes = [panel.size for panel in panels]
    width = max(width for width, _ in sizes)
    height = sum(height for _, height in sizes)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.height
    return sheet


def read_image(path: Path) -> Image.Image:
    """The image in RGB, fully decoded.

    Raises DataError if it is missing, truncated, too large or no image.
    """
    try:
        with warnings.catch_warnings():
            # A file of kilobytes may decode to gigabytes.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} × {image.height} pixels")
                return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise DataError(
            f"image {path.name} cannot be read",
            f"({type(error).__name__}: {str(error)[:120]})",
            "Restore the file from its source.",
        ) from error
