"""What surrounds a run: versions, platform, git revision."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.registry import versions

PACKAGES = (
    "synth-align",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "numpy",
    "scipy",
    "pillow",
    "lemminflect",
)
CHECKOUT = Path(__file__).parents[2]


def environment() -> dict[str, Any]:
    """Python, machine, package versions and, in a checkout, the git revision of this tool."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": versions(PACKAGES),
        "git": _revision(CHECKOUT),
    }


def _revision(folder: Path) -> str | None:
    # An installed package has no checkout around it.
    if not (folder / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *describe],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
