"""Data sets of the hub, downloaded once and laid out as a folder of official files.

The real `datasets` and `huggingface_hub` clients do the transfers, so HF_ENDPOINT, HF_HOME, HF_TOKEN and
HF_HUB_OFFLINE mean what they always mean. A layout belongs to one revision and is kept in HF_HOME/synth-align.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from bench.data.folder import SUFFIXES
from bench.errors import DataError
from bench.store import replace_file

REPOSITORIES = {"pope": "lmms-lab/POPE", "mmhal": "Shengcao1006/MMHal-Bench"}
MAX_IMAGE_BYTES = 64 * 2**20


def cache_root() -> Path:
    """Where layouts are kept."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home) / "synth-align"


def fetch(benchmark: str) -> Path:
    """The folder that holds `benchmark`'s official files and images, downloaded where it is not there yet.

    Where the hub cannot be reached, the newest layout of an earlier download is used.
    Raises DataError where there is none, or where the hub does not have this benchmark.
    """
    if benchmark not in REPOSITORIES:
        raise DataError(
            f"The hub has no data for '{benchmark}'.",
            f"--data hub serves {' and '.join(REPOSITORIES)}.",
            "Lay the official files out in a folder and pass it with --data DIR (the README shows the layout).",
        )
    root = cache_root() / benchmark
    newest = root / "newest"
    try:
        revision = _revision(REPOSITORIES[benchmark])
        if not (root / revision).is_dir():
            _lay_out(root / revision, benchmark, revision)
        replace_file(newest, revision)
    except DataError:
        raise
    except Exception as error:  # the clients raise dozens of types for a dead, slow or lying server
        kept = newest.read_text() if newest.is_file() else ""
        if kept and (root / kept).is_dir():
            return root / kept
        raise DataError(
            f"{REPOSITORIES[benchmark]} could not be downloaded from the hub.",
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}",
            "Check the network, HF_ENDPOINT and HF_TOKEN; or get the official files on another machine and pass "
            "their folder with --data DIR (the README shows the layout).",
        ) from error
    return root / revision


def _revision(repository: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(repository, timeout=20).sha)


def _lay_out(target: Path, benchmark: str, revision: str) -> None:
    """Builds the layout beside its place and moves it there when it is whole."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    build: Callable[[Path, str], None] = {"pope": _pope, "mmhal": _mmhal}[benchmark]
    with FileLock(target.parent.with_suffix(".lock")):  # a second process waits and finds it done
        if target.is_dir():
            return
        for unfinished in target.parent.glob("*.part"):
            shutil.rmtree(unfinished)
        unfinished = target.with_name(f"{target.name}.part")
        try:
            build(unfinished, revision)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _pope(target: Path, revision: str) -> None:
    """lmms-lab/POPE (parquet; every row carries its image) as three question files and one file per image."""
    from datasets import Image, load_dataset

    rows = load_dataset(REPOSITORIES["pope"], split="test", revision=revision)
    rows = rows.cast_column("image", Image(decode=False))
    (target / "pope" / "coco").mkdir(parents=True)
    (target / "images" / "coco").mkdir(parents=True)
    questions: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = PurePosixPath(row["image_source"]).name
        name = name if name.lower().endswith(SUFFIXES) else f"{name}.jpg"
        image = target / "images" / "coco" / name
        if not image.exists():
            image.write_bytes(row["image"]["bytes"])
        question = {"question_id": int(row["question_id"]), "image": name, "text": row["question"]}
        questions.setdefault(row["category"], []).append(question | {"label": row["answer"].strip().lower()})
    for category, items in questions.items():
        items.sort(key=lambda item: item["question_id"])
        file = target / "pope" / "coco" / f"coco_pope_{PurePosixPath(category).name}.json"
        file.write_text("".join(json.dumps(item) + "\n" for item in items))


def _mmhal(target: Path, revision: str) -> None:
    """MMHal-Bench's answer template and the images of its zip, by bare file name."""
    from huggingface_hub import hf_hub_download

    def get(name: str) -> str:
        return hf_hub_download(REPOSITORIES["mmhal"], name, repo_type="dataset", revision=revision)

    (target / "mmhal").mkdir(parents=True)
    shutil.copyfile(get("response_template.json"), target / "mmhal" / "mmhal-bench_answer_template.json")
    archive = Path(get("test_data.zip"))
    try:
        unpack_images(archive, target / "images" / "mmhal")
    except DataError:
        archive.resolve().unlink()  # else the client would take the same bytes from its cache again
        archive.unlink(missing_ok=True)
        raise


def unpack_images(archive: Path, target: Path) -> None:
    """Unpacks the images of a zip flat into `target`: names are cut to their last part, other files are left out.

    Raises DataError where the archive is corrupt or an image unpacks to more than 64 MiB.
    """
    target.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                name = PurePosixPath(entry.filename.replace("\\", "/")).name
                if entry.is_dir() or name.startswith(".") or not name.lower().endswith(SUFFIXES):
                    continue
                with packed.open(entry) as source:
                    content = source.read(MAX_IMAGE_BYTES + 1)
                if len(content) > MAX_IMAGE_BYTES:
                    raise DataError(
                        f"{archive}: {entry.filename} unpacks to more than 64 MiB.",
                        "No image of this benchmark is that large.",
                        "Deleted from the cache: if it is so again, report it to the data set's owners.",
                    )
                (target / name).write_bytes(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{archive} cannot be unpacked.", f"{error}.", "Deleted from the cache: start again to download it anew."
        ) from error
