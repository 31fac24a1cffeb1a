"""Names → lazy "module:object" strings, so that listing never imports torch.

Other people's packages add to the tables by entry points in the groups `synth_align.benchmarks`,
`synth_align.models`, `synth_align.judges` and `synth_align.rewards`.

A benchmark's entry is a benchmark, or a class of benchmarks: KIND:REST calls the class registered
as KIND with REST. A model's or judge's entry is a class that is called with (REST, options). A
reward's entry is a class of settings.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from bench.errors import BenchError, UnknownNameError

BENCHMARKS = {
    "pope": "bench.benchmarks.pope:COCO",
    "pope-2910": "bench.benchmarks.pope:COCO_2910",
    "pope-aokvqa": "bench.benchmarks.pope:AOKVQA",
    "pope-gqa": "bench.benchmarks.pope:GQA",
    "repope": "bench.benchmarks.pope:REPOPE",
    "mmhal": "bench.benchmarks.mmhal:MMHAL",
    "chair": "bench.benchmarks.chair:CHAIR",
    "objhal": "bench.benchmarks.objhal:JUDGED",
    "objhal-rule": "bench.benchmarks.objhal:BY_RULE",
    "hallusionbench": "bench.benchmarks.hallusionbench:HALLUSION_BENCH",
    "mme-hallucination": "bench.benchmarks.mme:MME",
    "amber": "bench.benchmarks.amber:AMBER",
    "amber-generative": "bench.benchmarks.amber:GENERATIVE",
    "amber-discriminative": "bench.benchmarks.amber:DISCRIMINATIVE",
    "claims": "bench.benchmarks.claims:CLAIMS",
    "lmms": "bench.integrations.lmms_eval_task:LmmsTask",
}
# Several benchmarks by one name; of those with a number, so many samples, evenly from all parts.
SUITES: dict[str, dict[str, int | None]] = {
    "hallucination": dict.fromkeys(
        (
            "pope", "pope-aokvqa", "pope-gqa", "repope", "chair", "objhal", "amber", "mmhal",
            "hallusionbench", "mme-hallucination",
        )
    ),
    # Every column of the paper's tables; of the second one by lmms-eval's tasks.
    "paper": dict.fromkeys(
        (
            "pope", "mmhal", "amber", "objhal", "lmms:scienceqa_img", "lmms:mme",
            "lmms:vizwiz_vqa_val", "lmms:mmmu_val", "lmms:seedbench", "lmms:mmvet",
        )
    ),
    "quick": {"pope": 900, "chair": 60, "mmhal": 96, "amber-discriminative": 400},
}  # fmt: skip
MODELS = {
    "hf": "bench.models.hf:HFModel",
    "litellm": "bench.models.litellm_api:LiteLLMModel",
    "openai": "bench.models.openai_api:OpenAIModel",
    "replay": "bench.models.replay:ReplayModel",
    "vllm": "bench.models.vllm_engine:VLLMModel",
}
JUDGES = {
    "grounding": "bench.judges.grounding:GroundingJudge",
    "hf": "bench.judges.hf:HFJudge",
    "openai": "bench.judges.openai_api:OpenAIJudge",
    "replay": "bench.judges.replay:ReplayJudge",
    "scene": "bench.judges.scene:SceneJudge",
}
REWARDS = {
    "grounding": "alignment.rewards.grounding:GroundingReward",
    "facts": "alignment.rewards.grounding:FactsReward",
    "classifier": "alignment.rewards.classifier:ClassifierReward",
    "judge": "alignment.rewards.judge:JudgeReward",
    "clip": "alignment.rewards.clip:ClipReward",
}
TABLES = {"benchmarks": BENCHMARKS, "models": MODELS, "judges": JUDGES, "rewards": REWARDS}
BENCHMARK_MEMBERS = ("name", "title", "version", "suffix", "judged", "images", "figures")
SHOWN_BY = {"benchmarks": "suites"}  # what `bench list` calls a table, if not by its own name

_BUILT_IN = Path(__file__).parent / "scenes"
MODEL_ALIASES = {
    "llava-tiny": str(_BUILT_IN / "llava-tiny"),
    "llava-tiny-b": str(_BUILT_IN / "llava-tiny-b"),
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava-next-vicuna": "llava-hf/llava-v1.6-vicuna-7b-hf",
    "llava-next-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
    "llava-onevision": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "qwen2.5-vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
    "internvl3.5": "OpenGVLab/InternVL3_5-8B-HF",
    "gemma3": "google/gemma-3-4b-it",
    "smolvlm": "HuggingFaceTB/SmolVLM-Instruct",
    "smolvlm2": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "paligemma": "google/paligemma2-3b-mix-448",
}


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None without it."""
    installed: dict[str, str | None] = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def names(table: str) -> dict[str, str]:
    """All names of `table` with their targets; the built-in ones win over entry points."""
    # A package cannot take the name of a built-in benchmark, and so its published figures.
    targets = {point.name: point.value for point in entry_points(group=f"synth_align.{table}")}
    return targets | TABLES[table]


def load(table: str, name: str) -> Any:
    """The object registered as `name`.

    Raises:
        UnknownNameError: Names the nearest match.
        BenchError: A plugin cannot be imported.
    """
    targets = names(table)
    if name not in targets:
        raise unknown(table, name, targets)
    # Imported now and not before, because most commands need none of it.
    module, _, attribute = targets[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BenchError(
            f"{table[:-1]} '{name}' cannot be loaded from {targets[name]}.",
            f"{type(error).__name__}: {error}",
            "Install what it needs, or correct or uninstall the package that registers it.",
        ) from error


def benchmark(name: str) -> Any:
    """The benchmark called `name`, for example "pope" or "lmms:TASK".

    Raises UnknownNameError with the nearest match, or what a class of benchmarks raises on REST.
    """
    known = names("benchmarks")
    kind, _, rest = name.partition(":")
    registered = name if name in known else kind
    if registered not in known:
        raise unknown("benchmarks", name, [*known, *SUITES])
    loaded = load("benchmarks", registered)
    is_family = isinstance(loaded, type)
    if is_family and rest:
        return _complete(loaded(rest))
    if not is_family and registered == name:
        return _complete(loaded)
    raise UnknownNameError(
        f"There is no benchmark '{name}'.",
        f"The form is {f'{kind}:NAME' if is_family else kind}.",
        "`bench list suites` shows all.",
    )


def _complete(loaded: Any) -> Any:
    """`loaded`, if it has all members of `bench.types.Benchmark` that are no methods."""
    missing = []
    for name in BENCHMARK_MEMBERS:
        if not hasattr(loaded, name):
            missing.append(name)
    if missing:
        raise BenchError(
            f"{loaded!r:.80} is not a benchmark.",
            f"It lacks {', '.join(missing)}.",
            "CONTRIBUTING shows a complete one.",
        )
    return loaded


def split_adapter(spec: str) -> tuple[str, str]:
    """(name, adapter) of NAME or NAME+ADAPTER; the adapter is empty if there is none.

    A folder's own name may hold a +, so the longest part in front of one that is a folder is it.
    """
    if Path(spec).is_dir():
        return spec, ""
    end = len(spec)
    while (end := spec.rfind("+", 0, end)) > 0:
        if Path(spec[:end]).is_dir():
            return spec[:end], spec[end + 1 :]
    name, _, adapter = spec.partition("+")
    return name, adapter


def unknown(table: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An error that names what was asked, the nearest match and where to see all."""
    return UnknownNameError(
        f"There is no {table[:-1]} '{name}'.",
        did_you_mean(name, known) or f"Known: {', '.join(sorted(known)) or 'none'}.",
        f"`bench list {SHOWN_BY.get(table, table)}` shows all.",
    )


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """A question with the name that is nearest in any case; empty if none is near."""
    by_lower_case = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return f"Did you mean '{by_lower_case[close[0]]}'?" if close else ""


def split_kind(table: str, spec: str) -> tuple[str, str] | None:
    """("replay", "FILE") for "replay:FILE" if `replay` is registered in `table`, else None."""
    kind, colon, rest = spec.partition(":")
    return (kind, rest) if colon and kind in names(table) else None
