"""A folder that holds the official files as published: pope/coco/…, mmhal/…, chair/…, amber/…, images/…"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from bench.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


class Folder:
    """Official files under `root`; images under `images`, or `root`/images, found by file name."""

    def __init__(
        self, root: Path, images: Path | None = None, label: str = "", recorded: tuple[str, ...] | None = None
    ) -> None:
        self.root = root
        self.label = label or str(root)
        self.recorded = recorded
        self._used: dict[str, Path] = {}
        self.image_root = images or root / "images"
        if images is not None and not images.is_dir():
            raise DataError(f"There is no folder {images}.", "--images must be a folder.", "Check the path.")

    def file(self, relative: str) -> Path:
        """The path of an official file. Raises DataError where it is missing."""
        path = self.root / relative
        if path.is_file():
            self._used[relative] = path
            return path
        raise DataError(
            f"{path} is missing.",
            f"The data folder {self.root} must hold the official file {relative}.",
            "Put it there (CONTRIBUTING lists the sources), or use --data hub for POPE and MMHal-Bench.",
        )

    def digests(self) -> dict[str, str]:
        """The sha256 of every official file that was asked for so far."""
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(self._used.items())}

    def image(self, name: str, folder: str) -> Path | None:
        """The image called `name` (a bare file name), from the sub-folder `folder` where several have it."""
        found = self._index.get(Path(name).name)
        if not found:
            return None
        return next((path for path in found if path.parent.name == folder), found[0])

    def image_names(self, folder: str) -> Sequence[str]:
        """The images at hand, sorted: those a replayed model knows, or those in the sub-folder `folder`, or all."""
        if self.recorded is not None:
            return self.recorded
        inside = sorted(name for name, paths in self._index.items() if any(p.parent.name == folder for p in paths))
        return inside or sorted(self._index)

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        index: dict[str, list[Path]] = {}
        for folder, _, files in os.walk(self.image_root, followlinks=True):
            for name in files:
                if name.lower().endswith(SUFFIXES):
                    index.setdefault(name, []).append(Path(folder, name))
        return index
