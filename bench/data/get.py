"""Official files from their public sources: `bench data get`.

Every file is checked against its digest in the table, or the hub's own if there is none. What is
there already is not downloaded again, so the command can be repeated after an interruption.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from bench.data import hub
from bench.data.source_table import SourceFile, Sources
from bench.errors import DataError, os_reason
from bench.files import read_json, replace_file, sha256_of, write_json

TIMEOUT = 60  # seconds
RECORD = "sources.json"
MOST_BYTES = 512 * 2**20  # of one file
CHUNK = 2**20


class SourceRow(TypedDict):
    """What sources.json says of a file; of an archive, the digests of its images by name."""

    address: str
    commit: str
    sha256: str
    licence: str
    images: NotRequired[dict[str, str]]


def get(benchmark: Sources, out: Path) -> Iterator[tuple[SourceFile, bool]]:
    """Each file with whether it was downloaded now; sources.json says where all came from.

    Raises DataError if one cannot be had as it should be; those before it are kept.
    """
    record = _record(out)
    for file in benchmark.files:
        row = record.get(file.path)
        is_there = _is_there(file, out, row)
        if not is_there:
            row = _bring(file, out)
        elif row is None:
            row = _row(file, file.address(), file.commit, file.sha256)
        if record.get(file.path) != row:
            record[file.path] = row
            write_json(out / RECORD, record)
        yield file, not is_there


def altered(benchmark: Sources, folder: Path) -> list[str]:
    """The files of a data folder that are not as in their source, by path."""
    record = _record(folder)
    paths = []
    for file in benchmark.files:
        row = record.get(file.path)
        is_known = bool(file.sha256) or row is not None
        if is_known and (folder / file.path).exists() and not _is_there(file, folder, row):
            paths.append(file.path)
    return paths


def _record(folder: Path) -> dict[str, SourceRow]:
    file = folder / RECORD
    return read_json(file, dict[str, SourceRow]) if file.is_file() else {}


def _row(file: SourceFile, address: str, commit: str, digest: str) -> SourceRow:
    """What sources.json says of a file."""
    return {"address": address, "commit": commit, "sha256": digest, "licence": file.licence}


def _is_there(file: SourceFile, out: Path, row: SourceRow | None) -> bool:
    """Whether the file, or every image of the archive, lies there as it should."""
    if file.is_archive:
        digests = row.get("images", {}) if row else {}
    else:
        digests = {"": file.sha256 or (row["sha256"] if row else "")}
    for name, digest in digests.items():
        path = out / file.path / name
        if not path.is_file() or sha256_of(path) != digest:
            return False
    return bool(digests)


def _bring(file: SourceFile, out: Path) -> SourceRow:
    """Downloads and lays out one file; returns what sources.json says of it."""
    target = out / file.path
    commit = file.commit
    if file.is_of_hub:
        commit = hub.commit_of(file.repository, file.commit)
        downloaded, digest = hub.download_file(file.repository, commit, file.source, file.sha256)
    else:
        content = download(file.path, file.address())
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.sha256:
            raise DataError(
                f"{file.path} is not the file that is meant.",
                f"The sha256 of {file.address()} is {digest}, not {file.sha256}.",
                "The source has changed, or something between it and here has; nothing was "
                "written.",
            )
    address = replace(file, commit=commit).address()
    row = _row(file, address, commit, digest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_archive:
            row["images"] = hub.unpack_images(downloaded, target)
        else:
            replace_file(target, downloaded.read_bytes() if file.is_of_hub else content)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written.",
            f"{os_reason(error)}.",
            "Free space or change the permissions, and start again.",
        ) from error
    return row


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
