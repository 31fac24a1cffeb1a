"""A folder that holds the official files as published: pope/coco/…, mmhal/…, images/…"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from bench.errors import DataError
from bench.files import sha256_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


class Folder:
    """Official files under a root, images found by file name at any depth.

    Args:
        root: The folder of official files.
        images: The folder of images; `root`/images if None.
        label: What the user called it.
        recorded: The images that recorded answers exist for, in place of those at hand.
        subsets: The subsets that a run is about; None for all.
    """

    def __init__(
        self,
        root: Path,
        images: Path | None = None,
        label: str = "",
        recorded: Sequence[str] | None = None,
        subsets: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        self.label = label or str(root)
        self.recorded = recorded
        self.subsets = subsets
        self._used: dict[str, Path] = {}
        self.image_root = images or root / "images"
        if images is not None and not images.is_dir():
            raise DataError(
                f"There is no folder {images}.", "--images must be a folder.", "Check the path."
            )

    def file(self, relative: str) -> Path:
        """The path of an official file. Raises DataError if it is missing."""
        path = self.root / relative
        if path.is_file():
            self._used[relative] = path
            return path
        raise DataError(
            f"{path} is missing.",
            f"The data folder {self.root} must hold the official file {relative}.",
            f"`bench data get NAME --out {self.root}` downloads official files; or name the parts "
            "that are there with --subset.",
        )

    def digests(self) -> dict[str, str]:
        """The sha256 of every official file that was asked for so far."""
        digests = {}
        for name, path in sorted(self._used.items()):
            digests[name] = sha256_of(path)
        return digests

    def image(self, name: str, folder: str) -> Path | None:
        """The image of that file name, preferably from the sub-folder `folder`.

        With folders before it, as in "VD/figure/0_1.png", it is the image that lies in such
        folders; another one of its bare name only if there is no third.
        """
        parts = Path(name).parts
        paths = self._index.get(parts[-1]) if parts else None
        if not paths:
            return None
        if len(parts) > 1:
            for path in paths:
                if path.parts[-len(parts) :] == parts:
                    return path
            return paths[0] if len(paths) == 1 else None
        for path in paths:
            if path.parent.name == folder:
                return path
        return paths[0]

    def image_names(self, folder: str) -> Sequence[str]:
        """The images that recorded answers exist for, else those at hand, sorted.

        Images of the sub-folder `folder` are preferred; all are taken if it has none.
        """
        # Recorded answers can be scored without the images.
        if self.recorded is not None:
            return self.recorded
        inside = set()
        for name, paths in self._index.items():
            for path in paths:
                if path.parent.name == folder:
                    inside.add(name)
        return sorted(inside or self._index)

    # One walk for thousands of look-ups.
    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """All images by file name."""
        index: dict[str, list[Path]] = {}
        walked = set()
        # People link COCO's folder into place instead of copying 6 GB.
        for folder, folders, files in os.walk(self.image_root, followlinks=True):
            real = os.path.realpath(folder)
            # A folder may have two names; one that holds a link to itself has infinitely many.
            if real in walked:
                folders.clear()
            walked.add(real)
            for name in files:
                if name.lower().endswith(SUFFIXES):
                    index.setdefault(name, []).append(Path(folder, name))
        return index
