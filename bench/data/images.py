"""Opening images that may be missing, truncated, hostile or no images at all."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.errors import DataError

MAX_PIXELS = 50_000_000  # of which a processor makes more than a gigabyte
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
ORIENTATION = 0x0112  # of EXIF
COMMON_FORMATS = ("PNG", "JPEG", "WEBP")


def keep_image(image: Image.Image, folder: Path) -> str:
    """Keeps an image in RGB as a PNG in `folder`, once, under a name that its content gives.

    Returns the file's name.
    """
    rgb = in_rgb(image)
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


def is_image(path: Path) -> bool:
    """Whether `read_image` can read it."""
    try:
        read_image(path)
    except DataError:
        return False
    return True


def read_image(path: Path, upright: bool = True) -> Image.Image:
    """The image in RGB with 8 bits a channel, fully decoded.

    Of several frames or pages the first. 16-bit grey is scaled, where Pillow would cut it off at
    255; CMYK and palettes are Pillow's conversion; transparency is dropped, as the models' own
    processors do.

    Args:
        path: The file.
        upright: Whether a photograph is turned as its EXIF orientation says.

    Raises:
        DataError: It is missing, truncated, too large, no image, or of a depth without a scale.
    """
    try:
        with _opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                most = MAX_PIXELS // 10**6
                raise ValueError(f"{image.width} × {image.height}: more than {most} megapixels")
            return in_rgb(ImageOps.exif_transpose(image) if upright else image)
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise DataError(
            f"image {path.name} cannot be read",
            f"({type(error).__name__}: {str(error)[:120]})",
            "Restore the file from its source.",
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # A file of kilobytes may decode to gigabytes.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise ValueError("it is no regular file")
        with Image.open(path) as image:
            yield image


def in_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB of 8 bits a channel. Raises ValueError if its values have no known scale."""
    if image.mode not in DEEP_MODES:
        return image.convert("RGB")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535 or image.mode == "F":
        raise ValueError(f"its values run from {values.min()} to {values.max()}, not to 65535")
    # 65535 is 255 times 257.
    grey = ((values + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def peculiarities(path: Path) -> list[str]:
    """What is unusual about an image that can be read, and what is done about it."""
    found = []
    with _opened(path) as image:
        if image.mode in DEEP_MODES:
            found.append("16-bit grey, scaled to 8 bits")
        if image.mode == "CMYK":
            found.append("CMYK, converted to RGB by Pillow")
        if image.mode == "P":
            found.append("of a palette, converted to RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            found.append("transparent in parts, which is dropped")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            found.append("of several frames or pages, of which the first is shown")
        if is_turned(image):
            found.append("turned by EXIF: shown upright, by the protocol llava as stored")
        if image.format not in COMMON_FORMATS:
            found.append(f"{image.format}, sent to servers as PNG")
    return found


def is_turned(image: Image.Image) -> bool:
    """Whether a photograph is stored otherwise than it is shown."""
    return image.getexif().get(ORIENTATION, 1) not in (0, 1)
