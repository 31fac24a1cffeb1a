"""Opening images that may be missing, truncated, hostile or no images at all."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

from PIL import Image

from bench.errors import DataError

MAX_PIXELS = 200_000_000


def keep_image(image: Image.Image, folder: Path) -> str:
    """Keeps a picture in RGB as a PNG in `folder`, once, under a name that its content gives; returns the name."""
    rgb = image.convert("RGB")
    name = f"{hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()[:20]}.png"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{name}.{os.getpid()}"
        rgb.save(unfinished, "PNG", compress_level=1)
        unfinished.replace(folder / name)
    return name


def read_image(path: Path) -> Image.Image:
    """The image in RGB, fully decoded. Raises DataError where it is missing, truncated, too large or no image."""
    try:
        with warnings.catch_warnings():
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
