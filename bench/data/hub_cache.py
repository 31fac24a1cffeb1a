"""What the hub's client keeps on this machine, and whether it is what the hub says.

The client compares sizes, and no digests: a byte that was lost on the way is kept, and read again
at every start. It names the file of a content as the hub does, so that it can be checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError
from bench.files import SHA256, digest_of

GIT_ID = re.compile(r"[0-9a-f]{40}")  # of a small file; a large one is named by its sha256
TRIES = 2


def git_id(file: Path) -> str:
    """What git calls a file of this content."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def forget(downloaded: Path) -> None:
    """Deletes a file from the client's cache, else it would take the same bytes again."""
    downloaded.resolve().unlink()
    downloaded.unlink(missing_ok=True)


def forget_lists(repository: str, kind: str) -> None:
    """Deletes what the hub said of a repository's files, so that it is asked again.

    A list that came broken would be taken at every start; there is nothing to check it by. Only for
    a hub that can be reached: without it, lists say whether what was downloaded is whole.

    Args:
        repository: OWNER/NAME.
        kind: "model" or "dataset".
    """
    with suppress(OSError):  # a cache that cannot be written
        for file in (_folder(repository, kind) / "trees").glob("*.json"):
            file.unlink()


def whole(download: Callable[[], str], repository: str, error: type[BenchError]) -> Path:
    """The folder that a download leaves; files that came broken, now or earlier, come once more.

    Args:
        download: Downloads what is not there, and gives the folder.
        repository: OWNER/NAME.
        error: What is raised if files come broken again; they are gone then.
    """
    broken: list[str] = []
    for _ in range(TRIES):
        folder = Path(download())
        broken = _forget_broken(folder)
        if not broken:
            return folder
    raise _came_broken(broken[0], repository, error)


def refuse_broken(repository: str, kind: str, error: type[BenchError]) -> None:
    """Raises an error if files of a repository are not what the hub says; they are gone then.

    Args:
        repository: OWNER/NAME.
        kind: "model" or "dataset".
        error: What is raised.
    """
    broken = _forget_broken(_folder(repository, kind) / "snapshots")
    if broken:
        raise _came_broken(broken[0], repository, error)


def _came_broken(name: str, repository: str, error: type[BenchError]) -> BenchError:
    return error(
        f"{name} of {repository} came broken from the hub.",
        "Its content is not what the hub says that it is.",
        "Start again: it is deleted from the cache, or delete it there if you cannot write it.",
    )


def _forget_broken(folder: Path) -> list[str]:
    """Deletes the files below that are not what the hub says; returns their names."""
    broken = []
    for pointer in sorted(folder.rglob("*")):
        # Without links, as on Windows, a file has no such name.
        blob = pointer.resolve()
        if not pointer.is_symlink() or not blob.is_file():
            continue
        if _is_broken(blob):
            with suppress(OSError):
                forget(pointer)
            broken.append(pointer.name)
    return broken


def _is_broken(blob: Path) -> bool:
    """Whether a file of the client's is not what its name says that it is."""
    if GIT_ID.fullmatch(blob.name):
        return git_id(blob) != blob.name
    return SHA256.fullmatch(blob.name) is not None and digest_of(blob) != blob.name


def _folder(repository: str, kind: str) -> Path:
    """The client's folder of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type=kind)
