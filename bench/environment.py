"""What surrounds a run and can move its numbers: versions, platform, git revision."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("synth-align", "torch", "transformers", "tokenizers", "peft", "numpy", "scipy", "pillow", "lemminflect")


def environment() -> dict[str, Any]:
    """Python, machine, package versions and, in a checkout, the git revision of this tool."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _revision(Path(__file__).parent.parent),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision(folder: Path) -> str | None:
    if not (folder / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
