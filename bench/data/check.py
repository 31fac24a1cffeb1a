"""`bench data check`: counts, balance and images of a data folder, before a GPU hour is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import registry
from bench.data import open_data
from bench.errors import DataError
from bench.runner import prepare
from bench.types import Benchmark, Sample

COUNTS = {"pope-2910": {"random": 2910, "popular": 3000, "adversarial": 3000}}


def check(folder: Path, images: Path | None, suites: Sequence[str] | None) -> bool:
    """Prints a paragraph per benchmark whose files are there; returns whether all is well."""
    open_data(str(folder), images, "")
    names = suites or [name for name in registry.BENCHMARKS if "-generative" not in name and "-discrim" not in name]
    well, found = True, 0
    for name in names:
        benchmark: Benchmark = registry.load("benchmarks", name)
        try:
            data = open_data(str(folder), images, name)
            asked = prepare(benchmark, data, benchmark.suffix, benchmark.max_tokens, None)
        except DataError as error:
            if suites is None and "must hold the official file" in error.reason:
                continue
            print(f"{name}: {error.fact} {error.reason} {error.remedy}")
            well = False
            continue
        found += 1
        problems = _problems(name, asked.samples)
        missing = sorted({r.image for r in asked.requests if r.path is None})
        total = len({r.image for r in asked.requests})
        if missing:
            problems.append(f"{len(missing)} of {total} images are missing, the first is {missing[0]}")
        problems += [text for r in asked.requests if r.path for text in _broken(r.path)]
        problems = list(dict.fromkeys(problems))
        subsets = ", ".join(f"{k} {v}" for k, v in Counter(sample.subset for sample in asked.samples).items())
        print(f"{name}: {len(asked.samples)} samples ({subsets}), {len(asked.requests)} distinct, {total} images")
        for problem in problems[:10]:
            print(f"  problem: {problem}")
        well = well and not problems
    if not found and well:
        print(f"{folder} holds no official file of any benchmark.")
        return False
    return well


def _problems(name: str, samples: Sequence[Sample]) -> list[str]:
    counts = Counter(sample.subset.partition(":")[0] for sample in samples)
    problems = [
        f"{subset} has {counts[subset]} samples, officially {number}"
        for subset, number in COUNTS.get(name, {}).items()
        if counts[subset] != number
    ]
    if name == "mmhal" and len(set(counts.values())) > 1:
        problems.append(
            f"the eight types have {min(counts.values())} to {max(counts.values())} samples, not equally many"
        )
    if name.startswith("pope") and name not in COUNTS:
        for subset in counts:
            problems += _unbalanced(subset, [sample for sample in samples if sample.subset == subset])
    return problems


def _unbalanced(subset: str, samples: Sequence[Sample]) -> list[str]:
    """POPE asks three questions with yes and three with no about every image; a truncated file does not."""
    per_image = Counter((sample.image, sample.reference) for sample in samples)
    uneven = sorted({s.image for s in samples if per_image[s.image, "yes"] != 3 or per_image[s.image, "no"] != 3})
    if not uneven:
        return []
    return [f"{subset}: {len(uneven)} images are not asked about 3 yes + 3 no, the first is {uneven[0]}"]


def _broken(path: Path) -> list[str]:
    from bench.data.images import read_image

    try:
        read_image(path)
    except DataError as error:
        return [f"{error.fact} {error.reason}"]
    return []
