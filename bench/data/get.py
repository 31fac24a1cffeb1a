"""Official files from their public sources: `bench data get`.

`sources.yaml` is the one table of them. Every file is checked against its digest; what is there
already is not downloaded again, so the command can be repeated after an interruption.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import yaml

from bench.errors import DataError, UnknownNameError, os_reason
from bench.files import read_json, replace_file, write_json

TABLE = Path(__file__).with_name("sources.yaml")
BASE = "https://raw.githubusercontent.com"
BASE_VARIABLE = "SYNTH_ALIGN_SOURCES"  # another server with the same files
TIMEOUT = 60  # seconds
RECORD = "sources.json"
MOST_BYTES = 512 * 2**20  # of one file
CHUNK = 2**20


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        path: Where it goes, in the data folder.
        repository: OWNER/NAME.
        commit: The commit that is meant.
        source: Its path there.
        sha256: Of its content.
        licence: Its source's.
    """

    path: str
    repository: str
    commit: str
    source: str
    sha256: str
    licence: str

    def address(self) -> str:
        """Where it is downloaded from."""
        base = os.environ.get(BASE_VARIABLE, BASE).rstrip("/")
        return f"{base}/{self.repository}/{self.commit}/{quote(self.source)}"


@dataclass(frozen=True)
class Sources:
    """A benchmark's files, and what is left to the user."""

    name: str
    files: Sequence[SourceFile]
    left: str


@lru_cache(maxsize=1)
def table() -> dict[str, Sources]:
    """All benchmarks that have sources, by name."""
    known = {}
    for name, entry in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        files = []
        for row in entry["files"]:
            files.append(
                SourceFile(
                    row["path"],
                    row.get("repository", entry["repository"]),
                    row.get("commit", entry["commit"]),
                    row["source"],
                    row["sha256"],
                    entry["licence"],
                )
            )
        known[name] = Sources(name, files, entry["left"])
    return known


def chosen(names: Sequence[str]) -> list[Sources]:
    """The benchmarks of these names; "all" is all. Raises UnknownNameError."""
    known = table()
    picked: dict[str, Sources] = {}
    for name in names:
        if name != "all" and name not in known:
            raise UnknownNameError(
                f"`bench data get` knows no '{name}'.",
                f"Known: {', '.join(known)}, all.",
                "Name some of these.",
            )
        picked |= known if name == "all" else {name: known[name]}
    return list(picked.values())


def get(benchmarks: Sequence[Sources], out: Path) -> Iterator[tuple[SourceFile, bool]]:
    """Each file with whether it was downloaded now; sources.json says where all came from.

    Raises DataError if one cannot be had as it should be; those before it are kept.
    """
    record_file = out / RECORD
    record = read_json(record_file) if record_file.is_file() else {}
    for benchmark in benchmarks:
        for file in benchmark.files:
            is_new = _get(file, out)
            row = {
                "address": file.address(),
                "commit": file.commit,
                "sha256": file.sha256,
                "licence": file.licence,
            }
            if record.get(file.path) != row:
                record[file.path] = row
                write_json(record_file, record)
            yield file, is_new


def _get(file: SourceFile, out: Path) -> bool:
    target = out / file.path
    if target.is_file() and _digest(target.read_bytes()) == file.sha256:
        return False
    content = download(file.path, file.address())
    digest = _digest(content)
    if digest != file.sha256:
        raise DataError(
            f"{file.path} is not the file that is meant.",
            f"The sha256 of {file.address()} is {digest}, not {file.sha256}.",
            "The source has changed, or something between it and here has; nothing was written.",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written.",
            f"{os_reason(error)}.",
            "Free space or change the permissions, and start again.",
        ) from error
    return True


def download(name: str, address: str) -> bytes:
    """The content of an address.

    Args:
        name: What errors call it.
        address: Where it is.

    Raises:
        DataError: It is not there, too large, or cut off.
    """
    parts = []
    size = 0
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as response:
            while part := response.read(CHUNK):
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise ValueError(f"it is larger than {MOST_BYTES} bytes")
            expected = response.headers.get("Content-Length")
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise DataError(
            f"{name} could not be downloaded.",
            f"{address}: {error}.",
            "Check the network and start again: what is there already is kept.",
        ) from error
    if expected is not None and size != int(expected):
        raise DataError(
            f"{name} was cut off.",
            f"{address} sent {size} of {expected} bytes.",
            "Start again: what is there already is kept.",
        )
    return b"".join(parts)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
