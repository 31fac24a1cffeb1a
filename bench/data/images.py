"""Opening images that may be missing, truncated, hostile or no images at all."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from bench.errors import DataError

MAX_PIXELS = 200_000_000


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
