"""`bench data check`: counts, balance and images of a data folder, before a GPU hour is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from bench import registry
from bench.data.get import altered
from bench.data.images import peculiarities, read_image
from bench.data.source_table import table
from bench.errors import DataError
from bench.runs.runner import Questions, prepare, read_samples
from bench.runs.sources import open_data
from bench.terminal import show
from bench.types import Benchmark, Sample

OFFICIAL_COUNTS = {"pope-2910": {"random": 2910, "popular": 3000, "adversarial": 3000}}
# Parts of a benchmark that is checked whole, and benchmarks that have no files.
LEFT_OUT = ("amber-generative", "amber-discriminative", "claims", "lmms")
SHOWN_PROBLEMS = 10
PER_LABEL = 3  # POPE's questions with yes, and with no, about an image


def check(folder: Path, images: Path | None, suites: Sequence[str] | None) -> bool:
    """Prints a paragraph for each benchmark whose files are there; returns whether all is well.

    Args:
        folder: The data folder.
        images: A folder of images, if they are not under it.
        suites: Benchmarks that must be there; None for whichever are.
    """
    open_data(str(folder), images, "")  # raises if there is no such folder
    names = suites or [name for name in registry.BENCHMARKS if name not in LEFT_OUT]
    all_well = True
    checked = 0
    for name in names:
        benchmark: Benchmark = registry.benchmark(name)
        try:
            data = open_data(str(folder), images, name)
            samples = read_samples(benchmark, data)
            questions = prepare(benchmark, data, samples, benchmark.suffix, benchmark.max_tokens)
        except DataError as error:
            # A folder need not have all benchmarks, unless they were asked for.
            is_absent = "must hold the official file" in error.reason
            if suites is None and is_absent:
                continue
            show(f"{name}: {error.fact} {error.reason} {error.remedy}")
            all_well = False
            continue
        checked += 1
        image_problems, notes = _look_at_images(questions)
        notes = _altered(folder, name) + notes
        problems = _problems(name, questions.samples) + image_problems
        _show(name, questions, problems, notes)
        all_well = all_well and not problems
    if not checked and all_well:
        show(f"{folder} holds no official file of any benchmark.")
        return False
    return all_well


def _show(name: str, questions: Questions, problems: Sequence[str], notes: Sequence[str]) -> None:
    subsets = Counter(map(attrgetter("subset"), questions.samples))
    sizes = ", ".join(f"{subset} {count}" for subset, count in subsets.items())
    images = set(map(attrgetter("image"), questions.requests))
    show(
        f"{name}: {len(questions.samples)} samples ({sizes}), {len(questions.requests)} distinct, "
        f"{len(images)} images"
    )
    for problem in problems[:SHOWN_PROBLEMS]:
        show(f"  problem: {problem}")
    for note in notes:
        show(f"  note: {note}")


def _altered(folder: Path, name: str) -> list[str]:
    """A note if files are not the official ones; a user's own may well not be."""
    sources = table().get(name)
    paths = altered(sources, folder) if sources else []
    if not paths:
        return []
    return [f"{len(paths)} files are not as in their pinned source, the first is {paths[0]}"]


def _problems(name: str, samples: Sequence[Sample]) -> list[str]:
    """What is wrong with the questions."""
    # A subset may name a variant of the rule behind a colon.
    counts = Counter(sample.subset.partition(":")[0] for sample in samples)
    problems = []
    for subset, official in OFFICIAL_COUNTS.get(name, {}).items():
        if counts[subset] != official:
            problems.append(f"{subset} has {counts[subset]} samples, officially {official}")
    if name == "mmhal" and len(set(counts.values())) > 1:
        fewest, most = min(counts.values()), max(counts.values())
        problems.append(f"the eight types have {fewest} to {most} samples, not equally many")
    if name.startswith("pope") and name not in OFFICIAL_COUNTS:
        for subset in counts:
            members = []
            for sample in samples:
                if sample.subset == subset:
                    members.append(sample)
            problems += _unbalanced(subset, members)
    return problems


def _unbalanced(subset: str, samples: Sequence[Sample]) -> list[str]:
    """POPE asks three questions with yes and three with no about every image.

    A truncated file does not.
    """
    per_label = Counter((sample.image, sample.reference) for sample in samples)
    uneven = set()
    for sample in samples:
        labels = (per_label[sample.image, "yes"], per_label[sample.image, "no"])
        if labels != (PER_LABEL, PER_LABEL):
            uneven.add(sample.image)
    if not uneven:
        return []
    return [
        f"{subset}: {len(uneven)} images are not asked about 3 yes + 3 no, the first is "
        f"{min(uneven)}"
    ]


def _look_at_images(questions: Questions) -> tuple[list[str], list[str]]:
    """Images that are missing or cannot be read, and what is peculiar about the others."""
    path_of = {request.image: request.path for request in questions.requests}
    missing = sorted(image for image, path in path_of.items() if path is None)
    problems = []
    if missing:
        problems.append(
            f"{len(missing)} of {len(path_of)} images are missing, the first is {missing[0]}"
        )
    images_of: dict[str, list[str]] = {}  # by what is peculiar about them
    for path in path_of.values():
        if path is None:
            continue
        try:
            read_image(path)
        except DataError as error:
            problems.append(f"{error.fact} {error.reason}")
            continue
        for kind in peculiarities(path):
            images_of.setdefault(kind, []).append(path.name)
    notes = []
    for kind, images in images_of.items():
        notes.append(f"{len(images)} of {len(path_of)} images: {kind}; the first is {images[0]}")
    return problems, notes
