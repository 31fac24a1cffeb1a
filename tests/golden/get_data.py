"""Downloads the public evaluation data that the golden tests read.

    python -m tests.golden.get_data [--out ../shared/data]

The sources are in sources.yaml: repository, commit, file, digest, licence. Every file is checked
against its digest; a file that is there already is not downloaded again, so the command can be
repeated after an interruption. Three files are derived from their sources, by the functions here.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from bench.data.get import download
from bench.errors import DataError

SOURCES = Path(__file__).with_name("sources.yaml")
DEFAULT_OUT = Path(__file__).resolve().parents[3] / "shared" / "data"
BASE = "https://raw.githubusercontent.com"
PHOTOGRAPHS = (540159, 4108, 480917, 425303, 386704, 562150)  # the order of the file


@dataclass(frozen=True)
class Source:
    """One file: where it goes, where it comes from, and what its content must be."""

    path: str
    repository: str
    commit: str
    source: str
    sha256: str
    source_sha256: str
    derive: str | None = None


class _Chair:
    """Stands in for the class whose objects CHAIR's published pickles hold."""


# What a pickle of chair.py asks for.
ALLOWED = {
    ("__main__", "CHAIR"): _Chair,
    ("metric.chair", "CHAIR"): _Chair,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "list"): list,
    ("__builtin__", "list"): list,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Restricted(pickle.Unpickler):
    """Builds nothing but containers and `_Chair`: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]


def _objects_of(content: bytes) -> dict[int, set[str]]:
    """The objects of every COCO image, from a pickle of chair.py."""
    objects: dict[int, set[str]] = _Restricted(io.BytesIO(content)).load().imid_to_objects
    return objects


def chair_objects(content: bytes) -> bytes:
    """CHAIR's ground truth as JSON: categories, and their indices for each image."""
    objects_of = _objects_of(content)
    categories = sorted(set().union(*objects_of.values()))
    index_of = {category: index for index, category in enumerate(categories)}
    images = {}
    for image in sorted(objects_of):
        images[str(image)] = sorted(index_of[name] for name in objects_of[image])
    truth = {"categories": categories, "images": images}
    return json.dumps(truth, separators=(",", ":")).encode()


def image_objects(content: bytes) -> bytes:
    """The objects of the six photographs that tests look at."""
    objects_of = _objects_of(content)
    rows = {}
    for image in PHOTOGRAPHS:
        rows[f"COCO_val2014_{image:012d}.jpg"] = sorted(objects_of[image])
    return json.dumps(rows, indent=1).encode()


def without_account_ids(content: bytes) -> bytes:
    """The log of reviews without the ids of its author's account."""
    return re.sub(rb"org-[A-Za-z0-9]{10,}", b"org-REDACTED", content)


DERIVE: dict[str, Callable[[bytes], bytes]] = {
    "chair_objects": chair_objects,
    "image_objects": image_objects,
    "without_account_ids": without_account_ids,
}


def read_sources(file: Path = SOURCES) -> Iterator[Source]:
    """All files of the table."""
    for repository, entry in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        for row in entry["files"]:
            source_sha256 = row.get("source_sha256", row["sha256"])
            yield Source(
                row["path"],
                repository,
                entry["commit"],
                row["source"],
                row["sha256"],
                source_sha256,
                row.get("derive"),
            )


def get(source: Source, out: Path, base: str) -> bool:
    """Downloads one file; returns False if it was there already.

    Raises DataError if it cannot be had as it should be.
    """
    target = out / source.path
    if target.is_file() and _digest(target.read_bytes()) == source.sha256:
        return False
    url = f"{base}/{source.repository}/{source.commit}/{quote(source.source)}"
    content = download(source.path, url)
    _check(source, content, source.source_sha256, url)
    if source.derive:
        try:
            content = DERIVE[source.derive](content)
        except (pickle.UnpicklingError, AttributeError, KeyError, EOFError) as error:
            raise DataError(
                f"{source.path} could not be derived.", f"{url}: {error}.", "Report it."
            ) from error
        _check(source, content, source.sha256, url)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(target)
    return True


def _check(source: Source, content: bytes, sha256: str, url: str) -> None:
    if _digest(content) != sha256:
        raise DataError(
            f"{source.path} is not what the tests were written for.",
            f"The sha256 of {url} is {_digest(content)}, not {sha256}.",
            "The source has changed, or something between it and here has; nothing was written.",
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Downloads all files; 2 if some could not be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"default: {DEFAULT_OUT}")
    parser.add_argument("--base", default=BASE, help="another server with the same files")
    options = parser.parse_args(arguments)
    failed = 0
    for source in read_sources():
        try:
            is_new = get(source, options.out, options.base)
        except DataError as error:
            failed += 1
            print(f"{error.fact} {error.reason} {error.remedy}", file=sys.stderr)
            continue
        print(f"{'downloaded' if is_new else 'there already'}: {source.path}")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
