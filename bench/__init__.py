"""Synth-Align Bench: measure how much a vision-language model hallucinates.

`from bench import run, compare, Run` is the Python API; see `bench/api.py`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import Run, compare, run

__version__ = "0.1.0"
__all__ = ["Run", "compare", "run"]


def __getattr__(name: str) -> Any:
    """The API on demand: `import bench` alone reads no further file."""
    if name in __all__:
        return getattr(importlib.import_module("bench.api"), name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
