"""Ask → judge → score → summarise: one model on one benchmark, recorded in a run folder."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import DataError, StoreError
from bench.files import RESTORE, dump, sha256_of
from bench.language.thoughts import Tags, split_thoughts
from bench.metrics.seeds import of_seed
from bench.runs.caveats import with_caveats, with_spread
from bench.runs.store import RunFolder
from bench.types import (
    Answer,
    Benchmark,
    Data,
    Judge,
    LooksAtImages,
    Metric,
    Model,
    Progress,
    Request,
    Sample,
    Score,
    Verdict,
)

ROUNDING = 1e-6  # by which a sum of thousands of probabilities may be above 1
# Where the image stands in LLaVA's own question files; every model has a place of its own.
MARKER = re.compile(r"\A\s*<image>\s*|\s*<image>\s*\Z")


@dataclass(frozen=True)
class Questions:
    """What a run asks.

    Args:
        samples: The samples.
        requests: The distinct requests they come down to, grouped by image.
        key_of: Request key by sample id.
        sha256: Digest of what is asked and what is right.
    """

    samples: Sequence[Sample]
    requests: Sequence[Request]
    key_of: Mapping[str, str]
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Args:
        folder: Where it is kept.
        metrics: Its metrics.
        unscored: How many samples are unscored, by reason.
        recorded_before: When its answers were recorded, if this start asked nothing new.
    """

    folder: Path
    metrics: Sequence[Metric]
    unscored: Mapping[str, int] = field(default_factory=dict)
    recorded_before: str | None = None


def read_samples(benchmark: Benchmark, data: Data) -> list[Sample]:
    """All samples of a benchmark.

    Raises DataError on duplicate ids or on a benchmark without samples.
    """
    samples = benchmark.samples(data)
    if not samples:
        raise DataError(
            f"{benchmark.title} has no samples here.",
            f"{data.label} lists none.",
            "Check the data folder.",
        )
    sample_id, occurrences = Counter(sample.id for sample in samples).most_common(1)[0]
    if occurrences > 1:
        raise DataError(
            f"{benchmark.title}: the id {sample_id} occurs twice.",
            "Answers and scores belong to ids, so each must be unique.",
            f"Correct the question files in {data.label}.",
        )
    return samples


def prepare(
    benchmark: Benchmark,
    data: Data,
    samples: Sequence[Sample],
    suffix: str,
    max_tokens: Callable[[Sample], int],
    limit: int | None = None,
    subsets: Sequence[str] | None = None,
    per_sample: bool = False,
    question: str | None = None,
    seeds: int = 1,
    thinking_tokens: int = 0,
    reasoning_tags: Tags | None = None,
) -> Questions:
    """The samples that a run is about, and their requests, grouped by image.

    Args:
        benchmark: The benchmark.
        data: Where its images are.
        samples: All its samples, as `read_samples` gives them.
        suffix: What follows a yes/no question.
        max_tokens: A sample's longest answer.
        limit: Only so many samples, evenly from all subsets.
        subsets: Only these subsets.
        per_sample: Whether equal questions are asked for each sample; else they share an answer.
        question: What is asked in place of the benchmark's one question.
        seeds: How many answers each question gets; each is a sample of its own.
        thinking_tokens: How many tokens a reasoning model may think before each answer.
        reasoning_tags: What stands before and behind its thoughts, beside the known marks.

    Raises:
        DataError: The limit is below 1, a subset does not exist, or the benchmark has several
            questions to replace.
    """
    samples = _limited(of_subsets(benchmark, samples, subsets), limit)
    if question is not None and len({sample.question for sample in samples}) > 1:
        raise DataError(
            f"The protocol's question cannot replace those of {benchmark.title}.",
            "It asks more than one.",
            f"Leave {benchmark.name} out of the protocol's `question`.",
        )
    digest = _digest(samples)
    by_image: dict[str, dict[str, list[Sample]]] = {}  # image → prompt → samples
    # Many samples ask the same: POPE's 9,000 rows are 5,127 questions.
    for sample in samples:
        prompt = MARKER.sub("", question or sample.question)
        if suffix and benchmark.yes_no(sample):
            prompt = f"{prompt}\n{suffix}"
        by_image.setdefault(sample.image, {}).setdefault(prompt, []).append(sample)
    requests: list[Request] = []
    key_of: dict[str, str] = {}
    repeated: dict[str, list[Sample]] = {}  # by the sample's own id
    # Requests about one image are neighbours, so that it is encoded once.
    for image, by_prompt in by_image.items():
        path = data.image(image, benchmark.images)
        for prompt, shared in by_prompt.items():
            first = shared[0]
            groups = [[sample] for sample in shared] if per_sample else [shared]
            for group in groups:
                for seed in range(seeds):
                    members = [of_seed(sample, seed, seeds) for sample in group]
                    own = group[0].id if per_sample else None
                    key = _key(image, prompt, own, seed if seeds > 1 else None)
                    request = Request(
                        key,
                        image,
                        path,
                        question or first.question,
                        prompt,
                        max_tokens(first),
                        benchmark.yes_no(first),
                        tuple(member.id for member in members),
                        thinking_tokens,
                        reasoning_tags,
                    )
                    requests.append(request)
                    key_of |= dict.fromkeys(request.samples, key)
                    for sample, member in zip(group, members, strict=True):
                        repeated.setdefault(sample.id, []).append(member)
    # All samples of the first seed, then those of the second.
    asked = [repeated[sample.id][seed] for seed in range(seeds) for sample in samples]
    return Questions(asked, requests, key_of, digest)


def _key(image: str, prompt: str, sample: str | None, seed: int | None) -> str:
    """Twenty hex digits that stand for a distinct (image, prompt) pair, or for one sample's.

    Where a question has several answers, for one of them.
    """
    parts = [image, prompt, sample, None if seed is None else f"seed {seed}"]
    text = "\0".join(part for part in parts if part is not None)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def of_subsets(
    benchmark: Benchmark, samples: Sequence[Sample], subsets: Sequence[str] | None
) -> Sequence[Sample]:
    """The samples of some subsets, all if None. Raises DataError if one does not exist."""
    if subsets is None:
        return samples
    existing = list(dict.fromkeys(sample.subset for sample in samples))
    unknown = []
    for name in subsets:
        if name not in existing:
            unknown.append(name)
    if unknown:
        raise DataError(
            f"{benchmark.title} has no subset {', '.join(unknown)}.",
            f"It has {', '.join(existing)}.",
            "Name some of these with --subset.",
        )
    return [sample for sample in samples if sample.subset in subsets]


def _limited(samples: Sequence[Sample], limit: int | None) -> Sequence[Sample]:
    """The first `limit` samples, taken evenly from every subset, in their order."""
    if limit is None or limit >= len(samples):
        return samples
    if limit < 1:
        raise DataError(
            f"--limit {limit} leaves no sample.",
            "A run needs at least one.",
            "Give a limit of 1 or more.",
        )
    rank_in_subset: list[int] = []
    sizes: Counter[str] = Counter()
    for sample in samples:
        rank_in_subset.append(sizes[sample.subset])
        sizes[sample.subset] += 1
    # By rank within the subset: the first of each, the second of each, and so on.
    evenly = sorted(range(len(samples)), key=lambda index: (rank_in_subset[index], index))
    return [samples[index] for index in sorted(evenly[:limit])]


def _digest(samples: Iterable[Sample]) -> str:
    """One digest over what is asked and what is right; side files are in `Data.digests`."""
    digest = hashlib.sha256()
    for sample in samples:
        parts = [sample.id, sample.image, sample.question, sample.reference, sample.subset]
        try:
            digest.update(dump(parts).encode())
        except ValueError as error:
            raise DataError(
                f"Sample {sample.id} of the benchmark is none.",
                "It holds a number that is none, such as NaN.",
                RESTORE,
            ) from error
    return digest.hexdigest()


def ask(store: RunFolder, model: Model, questions: Questions, progress: Progress) -> dict[str, str]:
    """Gets and records every answer that is not recorded yet.

    Returns why requests have none, by key. Raises StoreError if an image has changed since it was
    answered.
    """
    image_digest = cache(_image_digest)  # an image is asked about many times
    recorded = store.answers()
    ready: list[Request] = []
    failures: dict[str, str] = {}
    for request in questions.requests:
        if request.path is not None or not model.reads_images:
            ready.append(request)
        else:
            failures[request.key] = f"image {request.image} not found"
    # A run whose images have changed would be a mixture of two data sets.
    for request in ready:
        if request.key not in recorded or request.path is None:
            continue
        answered = recorded[request.key].image_sha256
        if answered is not None and image_digest(request.path) != answered:
            raise StoreError(
                f"The image {request.image} has changed since it was answered.",
                f"{request.path} is another file than the one in {store.answers_file}.",
                "Restore the image, or run again in a new folder with --out.",
            )
    progress(len(recorded))
    for batch in model.answer(ready, frozenset(recorded)):
        new = 0
        good: list[tuple[Request, Answer, str | None]] = []
        for request, raw_answer in batch:
            if request.key in recorded:
                continue
            new += 1
            answer = without_thoughts(raw_answer, request.reasoning_tags)
            # Not recorded, so it is asked again at the next start.
            if answer.error is not None:
                failures[request.key] = answer.error
                continue
            impossible = _impossible_probability(answer)
            if impossible is not None:  # of an adapter that we know nothing of
                failures[request.key] = f"the model gives a probability of {impossible}"
                continue
            digest = None
            if model.reads_images and request.path:
                digest = image_digest(request.path)
            good.append((request, answer, digest))
        store.append_answers(good)
        progress(new)
    return failures


def _impossible_probability(answer: Answer) -> float | None:
    """A P(yes) or P(no) that is none, NaN for one; None if both can be."""
    for probability in (answer.p_yes, answer.p_no):
        if probability is not None and not 0 <= probability <= 1 + ROUNDING:
            return probability
    return None


def no_images(benchmark: Benchmark, questions: Questions) -> DataError:
    """The error of a run of which no image was found."""
    images = {request.image for request in questions.requests}
    return DataError(
        f"None of {benchmark.title}'s {len(images)} images was found.",
        f"The first one looked for is {questions.requests[0].image}.",
        f"Put the images under DIR/images/{benchmark.images}, or pass their folder with --images.",
    )


def without_thoughts(answer: Answer, tags: Tags | None = None) -> Answer:
    """An answer with what a reasoning model thought apart from what it says.

    P(yes) of the first token is then that of a mark, and is left out.
    """
    thoughts, text = split_thoughts(answer.text, tags)
    if text == answer.text:
        return answer
    thoughts = "\n".join(part for part in (answer.thoughts, thoughts) if part)
    return replace(answer, text=text, thoughts=thoughts, p_yes=None, p_no=None)


def _image_digest(path: Path) -> str:
    return sha256_of(path)[:16]


def judge_answers(
    store: RunFolder, judge: Judge, questions: Questions, progress: Progress
) -> dict[str, str]:
    """Gets and records every verdict that is not recorded yet.

    Returns why samples have none, by id.
    """
    # Verdicts of other judges stay in the file and do not count.
    digest = judge_digest(judge.describe())
    answers, verdicts = store.answers(), store.verdicts(digest)
    items: list[tuple[Sample, Answer]] = []
    for sample in questions.samples:
        key = questions.key_of[sample.id]
        if sample.id not in verdicts and key in answers:
            answer = without_thoughts(answers[key].answer)
            # A model that only thought said nothing that could be judged.
            if answer.text or not answer.thoughts:
                items.append((sample, answer))
    progress(len(questions.samples) - len(items))
    if isinstance(judge, LooksAtImages):
        path_of = {}
        for request in questions.requests:
            if request.path is not None:
                path_of[request.image] = request.path
        judge.look_at(path_of)
    failures: dict[str, str] = {}
    for batch in judge.judge(items):
        good = []
        for sample, verdict in batch:
            if verdict.error is None:
                good.append((sample.id, verdict))
            else:
                failures[sample.id] = verdict.error
        store.append_verdicts(good, digest)
        progress(len(batch))
    return failures


def judge_digest(description: Mapping[str, Any]) -> str:
    """Twelve hex digits that stand for a judge in verdicts.jsonl."""
    return hashlib.sha256(dump(description).encode()).hexdigest()[:12]


def summarise(
    store: RunFolder,
    benchmark: Benchmark,
    questions: Questions,
    record: Mapping[str, Any],
    unanswered: Mapping[str, str],
    unjudged: Mapping[str, str],
) -> Outcome:
    """Scores the recorded answers, writes record, scores and metrics, and returns the metrics.

    Args:
        store: The run's folder.
        benchmark: What scores.
        questions: What the run asked.
        record: The run's record; the verdicts of its judge count.
        unanswered: Why an answer is missing, by request key.
        unjudged: Why a verdict is missing, by sample id.
    """
    answers = store.answers()
    judge = record["judge"]
    verdicts = store.verdicts(judge_digest(judge)) if judge else {}
    answered: list[tuple[Sample, Answer]] = []
    scores = []
    for sample in questions.samples:
        key = questions.key_of[sample.id]
        if key not in answers:
            reason = unanswered.get(key, "not answered")
            scores.append(Score(sample.id, sample.subset, sample.cluster, unscored=reason))
            continue
        answer = without_thoughts(answers[key].answer)  # earlier versions recorded them together
        answered.append((sample, answer))
        if answer.thoughts and not answer.text:
            reason = "it only thought and gave no answer"
            scores.append(Score(sample.id, sample.subset, sample.cluster, unscored=reason))
            continue
        verdict = verdicts.get(sample.id)
        if verdict is None and sample.id in unjudged:
            verdict = Verdict("", unjudged[sample.id])
        scores.append(benchmark.score(sample, answer, verdict))
    # Unscored samples go along, so that every metric can tell how many it lacks.

    def metric_subsets(subset: str) -> set[str]:
        # Only the benchmark knows; it says so by what it sums up.
        members = []
        for score in scores:
            if score.subset == subset:
                members.append(score)
        return {metric.subset for metric in benchmark.metrics(members)}

    metrics = with_spread(benchmark, scores)
    metrics = with_caveats(metrics, record, benchmark.judged, answered, metric_subsets)
    store.write_results(record, scores, metrics)
    reasons = Counter(score.unscored for score in scores if score.unscored is not None)
    return Outcome(store.path, metrics, dict(reasons))
