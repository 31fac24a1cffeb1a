"""Data sets of the hub, downloaded once and laid out as a folder of official files.

The real `datasets` and `huggingface_hub` clients do the transfers, so HF_ENDPOINT, HF_HOME,
HF_TOKEN and HF_HUB_OFFLINE mean what they always mean. A layout belongs to one revision and is kept
in HF_HOME/synth-align.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, ValidationError

from bench.data.folder import SUFFIXES
from bench.data.hub_cache import forget, forget_lists, git_id, refuse_broken, whole
from bench.data.source_table import SourceFile, table
from bench.errors import DataError, first_fault_of, first_line
from bench.files import lay_out, replace_file, sha256_of

REPOSITORIES = {"pope": "lmms-lab/POPE", "mmhal": "Shengcao1006/MMHal-Bench"}
MAX_IMAGE_BYTES = 64 * 2**20
COMMIT = re.compile("[0-9a-f]{40}")
HUB_TIMEOUT = 20  # seconds for the question which revision is the newest

_PathText = Annotated[str, StringConstraints(pattern=r"^[\w./ -]{1,200}$")]


class _Picture(BaseModel):
    bytes: bytes


class _PopeRow(BaseModel):
    """A row of lmms-lab/POPE, as far as it is read."""

    question_id: int
    question: str
    answer: str
    image_source: _PathText
    category: _PathText
    image: _Picture


def cache_root() -> Path:
    """Where layouts are kept."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home) / "synth-align"


def fetch(benchmark: str) -> Path:
    """The folder that holds `benchmark`'s official files and images, downloaded if need be.

    If the hub cannot be reached, the newest layout of an earlier download is used. Raises DataError
    if there is none, or if the hub does not have this benchmark.
    """
    if benchmark not in REPOSITORIES:
        raise DataError(
            f"The hub has no data for '{benchmark}'.",
            f"--data hub serves {' and '.join(REPOSITORIES)}.",
            "Lay the official files out in a folder and pass it with --data DIR "
            "(docs/benchmarks.md shows the layout).",
        )
    root = cache_root() / benchmark
    newest = root / "newest"
    try:
        revision = _revision(benchmark)
        if not (root / revision).is_dir():
            _lay_out(root / revision, benchmark, revision)
        replace_file(newest, revision)
    except DataError:
        raise  # an archive that is corrupt is no reason to use an older one
    except Exception as error:  # the clients raise dozens of types for a dead, slow or lying server
        earlier = newest.read_text() if newest.is_file() else ""
        if earlier and (root / earlier).is_dir():
            return root / earlier
        raise DataError(
            f"{REPOSITORIES[benchmark]} could not be downloaded from the hub.",
            f"{type(error).__name__}: {first_line(error)}",
            "Check the network, HF_ENDPOINT and HF_TOKEN; or get the official files on another "
            "machine and pass their folder with --data DIR (docs/benchmarks.md shows the layout).",
        ) from error
    return root / revision


def download(repository: str, patterns: Sequence[str]) -> Path:
    """The folder of a data set of the hub: those of its files whose names fit a pattern.

    If the hub cannot be reached, what was downloaded before. Raises DataError if there is nothing,
    or if what came is not what the hub says.
    """
    return whole(partial(_download, repository, patterns), repository, DataError)


def _download(repository: str, patterns: Sequence[str]) -> str:
    from huggingface_hub import HfApi, snapshot_download

    fetch_files = partial(
        snapshot_download, repository, repo_type="dataset", allow_patterns=[*patterns]
    )
    try:
        HfApi().dataset_info(repository, timeout=HUB_TIMEOUT)
        forget_lists(repository, "dataset")
        return fetch_files()
    except Exception as error:  # the client raises dozens of types
        try:
            return fetch_files(local_files_only=True)
        except Exception:
            raise DataError(
                f"{repository} could not be downloaded from the hub.",
                f"{type(error).__name__}: {first_line(error)}",
                "Check the name, the network, HF_ENDPOINT and HF_TOKEN, or give a folder.",
            ) from error


def commit_of(repository: str, revision: str) -> str:
    """The commit that a revision of a data set stands for. Raises DataError if it cannot be had."""
    from huggingface_hub import HfApi

    if COMMIT.fullmatch(revision):
        return revision
    with _told(f"{repository} at {revision}"):
        info = HfApi().dataset_info(repository, revision=revision, timeout=HUB_TIMEOUT)
    return str(info.sha)


def download_file(repository: str, commit: str, name: str, sha256: str = "") -> tuple[Path, str]:
    """A file of a data set in the client's cache, and its sha256.

    Args:
        repository: OWNER/NAME.
        commit: Of the data set.
        name: The file's path there.
        sha256: What it must be; empty for what the hub says that it is: the sha256 of a large file,
            git's name of a small one.

    Raises:
        DataError: It cannot be had, or is another.
    """
    from huggingface_hub import HfApi, RepoFile, hf_hub_download

    with _told(f"{name} of {repository}"):
        entries = HfApi().get_paths_info(repository, [name], repo_type="dataset", revision=commit)
        if not entries:
            raise FileNotFoundError(f"it is not there at commit {commit}")
        path = Path(hf_hub_download(repository, name, repo_type="dataset", revision=commit))
    (entry,) = entries
    digest = sha256_of(path)
    kind, expected, actual = "sha256", sha256, digest
    if not expected and isinstance(entry, RepoFile) and entry.lfs:
        expected = entry.lfs.sha256
    elif not expected:
        kind, expected, actual = "git id", str(getattr(entry, "blob_id", "")), git_id(path)
    if actual != expected:
        forget(path)
        raise DataError(
            f"{name} of {repository} is not the file that is meant.",
            f"The {kind} of what came is {actual}, not {expected or 'known to the hub'}.",
            "Deleted from the cache: start again; if it is so again, the source has changed.",
        )
    return path, digest


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever the client raises becomes a DataError about `what`."""
    try:
        yield
    except Exception as error:  # the client raises dozens of types for a dead, slow or lying server
        raise DataError(
            f"{what} could not be downloaded from the hub.",
            f"{type(error).__name__}: {first_line(error)}",
            "Check the network, HF_ENDPOINT and HF_TOKEN, and start again: what is there already "
            "is kept.",
        ) from error


def _revision(benchmark: str) -> str:
    """The pinned commit, else the newest."""
    from huggingface_hub import HfApi

    pinned = _pinned(benchmark)
    if pinned is not None:
        return pinned.commit
    return str(HfApi().dataset_info(REPOSITORIES[benchmark], timeout=HUB_TIMEOUT).sha)


def _pinned(benchmark: str) -> SourceFile | None:
    """The benchmark's file of the hub in the table of sources, if it has one."""
    for file in table()[benchmark].files:
        if file.is_of_hub:
            return file
    return None


def _lay_out(target: Path, benchmark: str, revision: str) -> None:
    build: Callable[[Path, str], None] = {"pope": _pope, "mmhal": _mmhal}[benchmark]
    lay_out(target, lambda folder: build(folder, revision))


def _pope(target: Path, revision: str) -> None:
    """lmms-lab/POPE (parquet; every row carries its image) as official files.

    That is three question files, and one file for each image.
    """
    from datasets import Image, load_dataset

    try:
        rows = load_dataset(REPOSITORIES["pope"], split="test", revision=revision)
    finally:
        # Its card, for one, says which of its files are meant.
        refuse_broken(REPOSITORIES["pope"], "dataset", DataError)
    # Undecoded, so that the image file is the published one to the last byte.
    rows = rows.cast_column("image", Image(decode=False))
    questions_folder = target / "pope" / "coco"
    images_folder = target / "images" / "coco"
    questions_folder.mkdir(parents=True)
    images_folder.mkdir(parents=True)
    questions: dict[str, list[dict[str, Any]]] = {}
    for number, content in enumerate(rows, 1):
        row = _pope_row(content, number, revision)
        name = PurePosixPath(row.image_source).name
        name = name if name.lower().endswith(SUFFIXES) else f"{name}.jpg"
        image = images_folder / name
        if not image.exists():
            image.write_bytes(row.image.bytes)
        # The official files know these four fields.
        question = {
            "question_id": row.question_id,
            "image": name,
            "text": row.question,
            "label": row.answer.strip().lower(),
        }
        questions.setdefault(row.category, []).append(question)
    for category, items in questions.items():
        # The hub's shards are in another order than the official files.
        items.sort(key=lambda item: item["question_id"])
        file = questions_folder / f"coco_pope_{PurePosixPath(category).name}.json"
        file.write_text("".join(json.dumps(item) + "\n" for item in items))


def _pope_row(content: Any, number: int, revision: str) -> _PopeRow:
    """Raises DataError, with the place, if a row is not as lmms-lab/POPE has them."""
    try:
        return _PopeRow.model_validate(content)
    except ValidationError as error:
        raise DataError(
            f"Row {number} of {REPOSITORIES['pope']} at {revision} cannot be read.",
            first_fault_of(error),
            "The data set has changed: get the official files, and pass their folder with --data "
            "DIR (docs/benchmarks.md shows the layout).",
        ) from error


def _mmhal(target: Path, revision: str) -> None:
    """MMHal-Bench's answer template and the images of its zip, by bare file name."""
    template = target / "mmhal" / "mmhal-bench_answer_template.json"
    template.parent.mkdir(parents=True)
    repository = REPOSITORIES["mmhal"]
    source, _ = download_file(repository, revision, "response_template.json")
    shutil.copyfile(source, template)
    pinned = _pinned("mmhal")
    assert pinned is not None
    archive, _ = download_file(repository, revision, pinned.source, pinned.sha256)
    unpack_images(archive, target / pinned.path)


def unpack_images(archive: Path, target: Path) -> dict[str, str]:
    """Unpacks the images of a zip flat into `target`; returns the sha256 of each by name.

    Names are cut to their last part, so none leads out of `target`; other files are left out.
    Raises DataError if the archive is corrupt (it is then deleted from the client's cache) or an
    image unpacks to more than 64 MiB.
    """
    target.mkdir(parents=True, exist_ok=True)
    digests = {}
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                name = PurePosixPath(entry.filename.replace("\\", "/")).name
                is_image = name.lower().endswith(SUFFIXES) and not name.startswith(".")
                if entry.is_dir() or not is_image:
                    continue
                with packed.open(entry) as source:
                    content = source.read(MAX_IMAGE_BYTES + 1)
                if len(content) > MAX_IMAGE_BYTES:
                    raise DataError(
                        f"{archive}: {entry.filename} unpacks to more than 64 MiB.",
                        "No image of this benchmark is that large.",
                        "Deleted from the cache: if it is so again, report it to the data set's "
                        "owners.",
                    )
                replace_file(target / name, content)
                digests[name] = hashlib.sha256(content).hexdigest()
    except DataError:
        forget(archive)
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        forget(archive)
        raise DataError(
            f"{archive} cannot be unpacked.",
            f"{error}.",
            "Deleted from the cache: start again to download it anew.",
        ) from error
    return digests
