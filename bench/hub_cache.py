"""What the hub's client keeps on this machine, and whether it is what the hub says.

The client compares sizes, and no digests of small files: a byte that was lost on the way is kept,
and read again at every start. It names the file of a small content as git does, so that it can be
checked.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError

GIT_ID = re.compile(r"[0-9a-f]{40}")  # of a small file; a large one is named by its sha256


def git_id(file: Path) -> str:
    """What git calls a file of this content."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def forget(downloaded: Path) -> None:
    """Deletes a file from the client's cache, else it would take the same bytes again."""
    downloaded.resolve().unlink()
    downloaded.unlink(missing_ok=True)


def forget_broken(repository: str, kind: str) -> None:
    """Deletes what an earlier start may have left broken, so that the hub is asked for it again.

    That is a small file that is not what the hub says, and every list of files, for which there is
    nothing to check it by. Only for a hub that can be reached: without it, lists say whether what
    was downloaded is whole.
    """
    with suppress(OSError):  # a cache that cannot be written
        _forget_broken_files(repository, kind)
        for file in (_folder(repository, kind) / "trees").glob("*.json"):
            file.unlink()


def refuse_broken(repository: str, kind: str, error: type[BenchError]) -> None:
    """Raises an error if small files of a repository are not what the hub says; they are gone then.

    Args:
        repository: OWNER/NAME.
        kind: "model" or "dataset".
        error: What is raised.
    """
    broken = _forget_broken_files(repository, kind)
    if broken:
        raise error(
            f"{broken[0]} of {repository} came broken from the hub.",
            "Its content is not what the hub says that it is.",
            "Deleted from the cache: start again.",
        )


def _forget_broken_files(repository: str, kind: str) -> list[str]:
    """Deletes the small files that are not what the hub says; returns their names."""
    broken = []
    for pointer in sorted((_folder(repository, kind) / "snapshots").rglob("*")):
        # Without links, as on Windows, a file has no such name.
        blob = pointer.resolve()
        is_small = pointer.is_symlink() and GIT_ID.fullmatch(blob.name) is not None
        if is_small and blob.is_file() and git_id(blob) != blob.name:
            forget(pointer)
            broken.append(pointer.name)
    return broken


def _folder(repository: str, kind: str) -> Path:
    """The client's folder of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind)
