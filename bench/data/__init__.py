"""Where samples come from: a folder of official files, or the hub, which is laid out as such a folder first."""

from __future__ import annotations

from pathlib import Path

from bench.data.folder import Folder
from bench.errors import DataError

LMMS = "lmms:"  # benchmarks whose questions and pictures lmms-eval brings


def open_data(source: str, images: Path | None, benchmark: str, recorded: tuple[str, ...] | None = None) -> Folder:
    """The data of `benchmark` from "hub", "scenes" (the built-in world's test split) or a folder.

    `images` is a folder of images beside the official files; `recorded` names the images that a model with
    recorded answers knows. Raises DataError where the source does not exist.
    """
    if benchmark.startswith(LMMS):
        from bench.data.hub import cache_root

        root = Path() if source == "hub" else Path(source)
        if not root.is_dir():
            raise DataError(f"There is no folder {source}.", "It is to hold tasks of lmms-eval.", "Check the path.")
        kept = cache_root() / "lmms" / benchmark.removeprefix(LMMS)
        kept.mkdir(parents=True, exist_ok=True)
        return Folder(root, kept, label=source, recorded=recorded)
    if source == "hub":
        from bench.data.hub import fetch

        return Folder(fetch(benchmark), images, label="hub", recorded=recorded)
    if source == "scenes":
        from bench.scenes.data import official_folder

        return Folder(official_folder(), images, label="scenes", recorded=recorded)
    root = Path(source)
    if not root.is_dir():
        raise DataError(
            f"There is no folder {source}.",
            "--data takes 'hub', 'scenes' or a folder of official files.",
            "Check the path; the README shows the layout.",
        )
    return Folder(root, images, recorded=recorded)
