"""Where the data of a run comes from: a folder of official files, the hub, or the built-in world.

The last two are laid out as such a folder first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.data.folder import Folder
from bench.errors import DataError

LMMS = "lmms:"  # benchmarks whose questions and images lmms-eval brings


def open_data(
    source: str,
    images: Path | None,
    benchmark: str,
    recorded: tuple[str, ...] | None = None,
    subsets: Sequence[str] | None = None,
) -> Folder:
    """The data of a benchmark.

    Args:
        source: "hub", "scenes" (the built-in world's test split) or a folder.
        images: A folder of images beside the official files.
        benchmark: The benchmark's name.
        recorded: The images that a model with recorded answers knows.
        subsets: The subsets that a run is about; None for all.

    Raises:
        DataError: The source does not exist.
    """
    if benchmark.startswith(LMMS):
        return _open_lmms(source, benchmark.removeprefix(LMMS), recorded)
    if source == "hub":
        from bench.data.hub import fetch

        return Folder(fetch(benchmark), images, label="hub", recorded=recorded, subsets=subsets)
    if source == "scenes":
        # The only arrow of the house that points upward: the world is a source like the hub.
        from bench.scenes.data import official_folder

        return Folder(official_folder(), images, label="scenes", recorded=recorded, subsets=subsets)
    check_source(source)
    return Folder(Path(source), images, recorded=recorded, subsets=subsets)


def check_source(source: str) -> None:
    """Raises DataError if a source is no folder, the hub or the built-in world.

    It costs nothing, so it is asked before a model is downloaded.
    """
    if source not in ("hub", "scenes") and not Path(source).is_dir():
        raise DataError(
            f"There is no folder {source}.",
            "--data takes 'hub', 'scenes' or a folder of official files.",
            "Check the path; docs/benchmarks.md shows the layout.",
        )


def _open_lmms(source: str, task: str, recorded: tuple[str, ...] | None) -> Folder:
    """A folder of lmms-eval's tasks (its --include_path), and where their images are kept."""
    from bench.data.hub import cache_root

    root = Path() if source == "hub" else Path(source)
    if not root.is_dir():
        raise DataError(
            f"There is no folder {source}.", "It must hold tasks of lmms-eval.", "Check the path."
        )
    images = cache_root() / "lmms" / task
    images.mkdir(parents=True, exist_ok=True)
    return Folder(root, images, label=source, recorded=recorded)
