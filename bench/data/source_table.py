"""Where benchmarks' official files come from: `sources.yaml`, read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import yaml

from bench.errors import UnknownNameError

TABLE = Path(__file__).with_name("sources.yaml")
BASE = "https://raw.githubusercontent.com"
BASE_VARIABLE = "SYNTH_ALIGN_SOURCES"  # another server with the same files


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        path: Where it goes, in the data folder; of an archive, the folder of its images, with "/".
        repository: OWNER/NAME.
        commit: The commit that is meant, of the hub also a branch.
        source: Its path there.
        sha256: Of its content; empty if only the hub knows it.
        licence: Its source's.
        is_of_hub: It lies in a data set of the hub.
    """

    path: str
    repository: str
    commit: str
    source: str
    sha256: str
    licence: str
    is_of_hub: bool

    @property
    def is_archive(self) -> bool:
        """A zip of images."""
        return self.path.endswith("/")

    def address(self) -> str:
        """Where it is downloaded from."""
        if self.is_of_hub:
            from huggingface_hub import hf_hub_url

            return hf_hub_url(
                self.repository, self.source, repo_type="dataset", revision=self.commit
            )
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
                    row.get("hub") or row.get("repository", entry["repository"]),
                    row.get("commit", entry["commit"]),
                    row["source"],
                    row.get("sha256", ""),
                    entry["licence"],
                    "hub" in row,
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
