"""A decoding method beside the same decoding without it: half a method's gain may be the sampling.

A paper that sets a sampled method against greedy decoding measures two changes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.errors import BenchError
from bench.runs.run import Run
from leaderboards.compare import Comparison, compare_runs

METHODS = ("contrast", "code")  # the parts of a decoding that are a method
CHOICES = ("temperature", "top_p", "top_k", "seeds")  # those that are not
WEIGHTS = ("weights_sha256", "adapter_sha256")


def is_method(run: Run) -> bool:
    """Whether a run was decoded by a method that needs a baseline."""
    decoding = _decoding(run)
    return any(name in decoding for name in METHODS)


def baseline_decoding(run: Run) -> str:
    """The `--decoding` of a run's baseline: the same choice of tokens, without the method.

    What somebody's own code draws is not known, so its baseline is greedy decoding.
    """
    decoding = _decoding(run)
    parts = [f"{name}={decoding[name]:g}" for name in CHOICES if name in decoding]
    return f"sample:{','.join(parts)}" if decoding.get("temperature") else "greedy"


def with_baseline(run: Run) -> Comparison | None:
    """A method's run compared with its baseline, the newest one in a folder beside; None without.

    Args:
        run: A run of a method, in ROOT/NAME/BENCHMARK; the baseline is ROOT/OTHER/BENCHMARK.
    """
    comparisons = []
    for file in run.folder.parent.parent.glob(f"*/{run.folder.name}/run.json"):
        other = Run(file.parent)
        try:
            if _is_baseline(other, run):
                created = str(other.record.get("created"))
                comparisons.append((created, compare_runs([other], [[run]])[0]))
        except (BenchError, KeyError, TypeError):  # a run that is damaged, or not run alike
            continue
    if not comparisons:
        return None
    return max(comparisons, key=lambda dated: dated[0])[1]


def _is_baseline(other: Run, run: Run) -> bool:
    same_weights = all(_model(other).get(name) == _model(run).get(name) for name in WEIGHTS)
    wanted = {name: _decoding(run).get(name) for name in CHOICES}
    has = {name: _decoding(other).get(name) for name in CHOICES}
    is_plain = not is_method(other) and "beams" not in _decoding(other)
    return same_weights and is_plain and has == wanted


def _model(run: Run) -> Mapping[str, Any]:
    model: Mapping[str, Any] = run.record["model"]
    return model


def _decoding(run: Run) -> Mapping[str, Any]:
    decoding: Mapping[str, Any] = _model(run).get("decoding") or {}
    return decoding
