"""Names → lazy "module:object" strings, so that listing never imports torch.

Other people's packages add to the tables by entry points in the groups `synth_align.benchmarks`,
`synth_align.models`, `synth_align.judges` and `synth_align.rewards`.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bench.errors import BenchError, UnknownNameError

BENCHMARKS = {
    "pope": "bench.benchmarks.pope:COCO",
    "pope-2910": "bench.benchmarks.pope:COCO_2910",
    "pope-aokvqa": "bench.benchmarks.pope:AOKVQA",
    "pope-gqa": "bench.benchmarks.pope:GQA",
    "mmhal": "bench.benchmarks.mmhal:MMHAL",
    "chair": "bench.benchmarks.chair:CHAIR",
    "amber": "bench.benchmarks.amber:AMBER",
    "amber-generative": "bench.benchmarks.amber:GENERATIVE",
    "amber-discriminative": "bench.benchmarks.amber:DISCRIMINATIVE",
}
MODELS = {
    "hf": "bench.models.hf:HFModel",
    "openai": "bench.models.openai_api:OpenAIModel",
    "replay": "bench.models.replay:ReplayModel",
}
JUDGES = {
    "hf": "bench.judges.hf:HFJudge",
    "openai": "bench.judges.openai_api:OpenAIJudge",
    "replay": "bench.judges.replay:ReplayJudge",
    "scene": "bench.judges.scene:SceneJudge",
}
REWARDS: dict[str, str] = {}
TABLES = {"benchmarks": BENCHMARKS, "models": MODELS, "judges": JUDGES, "rewards": REWARDS}

_BUILT_IN = Path(__file__).parent / "scenes"
MODEL_ALIASES = {
    "llava-tiny": str(_BUILT_IN / "llava-tiny"),
    "llava-tiny-b": str(_BUILT_IN / "llava-tiny-b"),
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava-onevision": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "qwen2.5-vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "smolvlm": "HuggingFaceTB/SmolVLM-Instruct",
    "paligemma": "google/paligemma2-3b-mix-448",
}


def names(table: str) -> dict[str, str]:
    """All names of `table` with their "module:object" targets; the built-in ones win over entry points."""
    found = {point.name: point.value for point in entry_points(group=f"synth_align.{table}")}
    return found | TABLES[table]


def load(table: str, name: str) -> Any:
    """The object registered as `name`; the benchmark lmms:TASK is lmms-eval's task of that name.

    Raises UnknownNameError with the nearest match, or BenchError where a plugin cannot be imported.
    """
    known = names(table)
    family, _, task = name.partition(":")
    if table == "benchmarks" and family == "lmms" and task:
        from bench.benchmarks.lmms import LmmsTask

        return LmmsTask(task)
    if name not in known:
        raise unknown(table, name, known)
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BenchError(
            f"{table[:-1]} '{name}' cannot be loaded from {known[name]}.",
            f"{type(error).__name__}: {error}",
            "Install what it needs, or mend or uninstall the package that registers it.",
        ) from error


def unknown(table: str, name: str, known: dict[str, str]) -> UnknownNameError:
    """An error that names what was asked, the nearest match and where to see all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return UnknownNameError(
        f"There is no {table[:-1]} '{name}'.",
        f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known)) or 'none'}.",
        f"`bench list {'suites' if table == 'benchmarks' else table}` shows all.",
    )


def split_kind(table: str, spec: str) -> tuple[str, str] | None:
    """("replay", "FILE") for "replay:FILE" where `replay` is registered in `table`, else None."""
    kind, colon, rest = spec.partition(":")
    return (kind, rest) if colon and kind in names(table) else None
