"""`replay:FILE`: answers that somebody recorded earlier, so that published outputs can be scored.

How files are read stands in `bench/data/answer_files.py`. Here each row finds the sample that it
answers: by the benchmark's own id, by category, image and question, or by the row's position. A
row's answer never goes to a question that the file was not asked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.answer_files import (
    BY_NAME,
    COPIED,
    AnswerFile,
    Record,
    image_key,
    image_name,
    plain_question,
    read_answer_file,
    same_text,
)
from bench.errors import ModelError
from bench.terminal import note
from bench.types import Answer, Batch, Benchmark, Request, Sample

SHOWN = 5  # rows named in run.json
# What labels are called too: alone it is not believed to be the words of a model.
AMBIGUOUS = ("answer",)


class ReplayModel:
    """Answers from a file.

    Args:
        file: The answers, or a run's folder for its answers.jsonl.
        options: answer_field, question_field and questions (a file), all optional.

    Raises:
        ModelError: It is missing, unreadable or ambiguous.
    """

    OPTIONS = frozenset({"answer_field", "question_field", "questions"})
    reads_images = False
    adapter: Path | None = None

    def __init__(self, file: str, options: Mapping[str, Any]) -> None:
        path = Path(file)
        # A run's folder stands for its answers.
        if path.is_dir():
            path = path / "answers.jsonl"
        if not path.is_file():
            raise ModelError(
                f"There is no file {file}.",
                "replay:FILE needs recorded answers.",
                "Check the path.",
            )
        self.file = self.source = path
        self.answers = read_answer_file(
            path,
            options.get("answer_field"),
            options.get("question_field"),
            options.get("questions"),
        )
        self.is_field_given = options.get("answer_field") is not None
        images: dict[str, None] = {}
        for record in self.answers.records:
            if record.image is not None:
                images[image_name(record.image)] = None
        self.images = tuple(images)
        self._text_of: dict[tuple[str, str, str], Answer] = {}  # by image, question, sample

    @property
    def recorded(self) -> ReplayModel:
        """These are recorded answers."""
        return self

    def describe(self) -> dict[str, Any]:
        """The file and its content's digest."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        name = self.file.resolve().parent.name
        return {"kind": "replay", "name": name, "file": str(self.file), "sha256": digest}

    def suffix(self, benchmark: Benchmark) -> str:
        """Recorded answers had their own prompts."""
        return ""

    def max_tokens(self, benchmark: Benchmark, sample: Sample) -> int:
        """Not used: nothing is generated."""
        return benchmark.max_tokens(sample)

    def match(
        self, benchmark: Benchmark, samples: Sequence[Sample]
    ) -> tuple[list[str], dict[str, Any]]:
        """Finds the row of every sample.

        Returns:
            The subsets that the file was asked, and what run.json says of the matching.

        Raises:
            ModelError: No row belongs to the benchmark, or two fields may be the answer.
        """
        match = _Matching(self.answers, benchmark, samples)
        if not match.record_of:
            raise self._nothing_matches(samples)
        field = self._answer_field(match.record_of, samples)
        sample_of = {sample.id: sample for sample in samples}
        for sample_id, record in match.record_of.items():
            sample = sample_of[sample_id]
            text = record.texts[field]
            key = (sample.image, sample.question, sample_id)
            if text is None:
                self._text_of[key] = Answer("", error="its recorded row holds no answer")
                continue
            self._text_of[key] = Answer(
                text,
                finish="length" if record.finish == "length" else "recorded",
                p_yes=record.p_yes,
                p_no=record.p_no,
            )
        summary = {
            "layout": self.answers.layout,
            "answer_field": field,
            "fields": dict(self.answers.fields),
            "matched_by": match.rule,
            "rows": len(self.answers.records),
            "samples": len(match.record_of),
            "unmatched": _named(match.unmatched),
            "duplicates": _named(match.duplicates),
        }
        self._tell(match)
        return match.subsets, summary

    def _tell(self, match: _Matching) -> None:
        total = len(self.answers.records)
        if match.unmatched:
            note(
                f"{self.file}: {len(match.unmatched)} of {total} answers belong to no question of "
                f"{match.benchmark.name}: {_shown(match.unmatched)}"
            )
        if match.duplicates:
            note(
                f"{self.file}: {len(match.duplicates)} answers are to a question that has one "
                f"already; the first counts: {_shown(match.duplicates)}"
            )

    def _answer_field(self, record_of: Mapping[str, Record], samples: Sequence[Sample]) -> str:
        """The field of the model's words: the one that repeats neither labels nor questions."""
        candidates = self.answers.candidates
        if self.is_field_given:
            return candidates[0]
        pairs = []
        for sample in samples:
            if sample.id in record_of:
                pairs.append((record_of[sample.id], sample))
        usable, copied = [], []
        for name in candidates:
            labels = questions = 0
            for record, sample in pairs:
                text = record.texts[name]
                labels += same_text(text, sample.reference)
                questions += text is not None and len(text) > 1 and _asks(text, sample)
            # One row alone may be a model that is right.
            is_label = len(pairs) > 1 and labels >= COPIED * len(pairs)
            is_question = questions >= COPIED * len(pairs)
            is_named = len(candidates) == 1 and (
                name not in AMBIGUOUS or self.answers.layout != BY_NAME
            )
            if is_question or (is_label and not is_named):
                copied.append(f"{name} equals the {'question' if is_question else 'label'}")
            else:
                usable.append(name)
        if len(usable) == 1:
            return usable[0]
        if usable:
            raise ModelError(
                f"{self.file}: {' and '.join(usable)} may both be the answer.",
                "Their names tell nothing, and neither repeats the label or the question.",
                f"Say which it is, for example with --answer-field {usable[0]}.",
            )
        raise ModelError(
            f"{self.file} holds no model's answer.",
            f"In all rows {', '.join(copied)}.",
            "Give the file with the model's own words, or name their field with --answer-field.",
        )

    def _nothing_matches(self, samples: Sequence[Sample]) -> ModelError:
        first = samples[0]
        return ModelError(
            f"None of the {len(self.answers.records)} answers in {self.file} belongs to this "
            "benchmark.",
            f"Looked for image {first.image} with '{first.question}', and for ids such as "
            f"{first.id}.",
            "Give answers that carry image and question, name the questions that they were made "
            "from with --questions FILE, or choose the benchmark that they were made for.",
        )

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Looks up the row that `match` found for every request's sample."""
        missing = Answer("", error="no recorded answer")
        batch: Batch = []
        for request in requests:
            if request.key not in done:
                key = (request.image, request.question, request.samples[0])
                batch.append((request, self._text_of.get(key, missing)))
        yield batch


@dataclass(frozen=True)
class _Candidates:
    """A record with the samples that it may answer, and whether their number is the file's own."""

    record: Record
    samples: Sequence[Sample]


class _Matching:
    """Which record answers which sample.

    Args:
        answers: The file.
        benchmark: The benchmark.
        samples: All its samples.
    """

    def __init__(
        self, answers: AnswerFile, benchmark: Benchmark, samples: Sequence[Sample]
    ) -> None:
        self.benchmark = benchmark
        self.all_subsets = list(dict.fromkeys(sample.subset for sample in samples))
        self.samples = samples
        self.by_image: dict[str, list[Sample]] = {}
        self.by_id: dict[str, list[Sample]] = {}
        for sample in samples:
            self.by_image.setdefault(image_key(sample.image), []).append(sample)
            # An id without its subset may be that of several samples.
            for name in dict.fromkeys((sample.id, sample.id.rpartition("/")[2])):
                self.by_id.setdefault(name, []).append(sample)
        self.record_of: dict[str, Record] = {}
        self.unmatched: list[Record] = []
        self.duplicates: list[Record] = []
        self.rule, rows = self._rows(answers.records)
        self.subsets = self._asked_subsets(rows)
        self._assign(rows)

    def _rows(self, records: Sequence[Record]) -> tuple[str, list[_Candidates]]:
        """The samples that each record may answer, by the surest rule that the file allows."""
        by_id = [self._with_id(record) for record in records]
        if self._are_ids_the_benchmarks(records, by_id):
            rows = [_Candidates(*pair) for pair in zip(records, by_id, strict=True)]
            return "id", rows
        if all(record.image is None for record in records):
            return "position", self._by_position(records)
        rows = self._with_captions([_Candidates(rec, self._about(rec)) for rec in records])
        if all(record.question is None for record in records):
            return "image", rows
        has_categories = any(map(self._subsets_named, records))
        return ("category, " if has_categories else "") + "image and question", rows

    def _with_id(self, record: Record) -> list[Sample]:
        """The samples with the record's id that nothing else in the record contradicts."""
        if record.id is None:
            return []
        return [sample for sample in self.by_id.get(record.id, ()) if self._fits(record, sample)]

    def _subsets_named(self, record: Record) -> set[str]:
        """The subsets that the record names; none if its categories are of another kind."""
        for value in record.categories:
            words = {word.strip().lower() for word in value.split(",")}
            subsets = set()
            for subset in self.all_subsets:
                # "Random", "coco_pope_random" and "adversarial,popular,random" are POPE's.
                name = subset.partition(":")[0]
                if any(word == name or word.endswith((f"_{name}", f"-{name}")) for word in words):
                    subsets.add(subset)
            if subsets:
                return subsets
        return set()

    def _fits(self, record: Record, sample: Sample) -> bool:
        subsets = self._subsets_named(record)
        if subsets and sample.subset not in subsets:
            return False
        # MMHal's image_id is the question's id.
        is_id = record.image is not None and record.image == record.id == sample.id
        if is_id:
            return record.question is None or _similarity(record.question, sample) > 0
        if record.image is not None and image_key(record.image) != image_key(sample.image):
            return record.image == record.id and record.question is None
        return record.question is None or _similarity(record.question, sample) > 0

    def _are_ids_the_benchmarks(
        self, records: Sequence[Record], by_id: Sequence[Sequence[Sample]]
    ) -> bool:
        """Whether ids are the benchmark's own, and not the file's running numbers.

        An id alone must be of one sample only; image and question must agree with it.
        """
        if not any(by_id):
            return False
        for record, samples in zip(records, by_id, strict=True):
            if record.id is None:
                continue
            knows_more = record.question is not None or record.image not in (None, record.id)
            # Running numbers go on where the benchmark's own end.
            if record.id not in self.by_id and knows_more:
                return False
            if record.id not in self.by_id:
                continue
            is_checked = knows_more
            if is_checked and not samples:
                return False
            # POPE's question 1 exists in three subsets; a bare id does not say which.
            if not is_checked and len(samples) > 1:
                return False
        return True

    def _by_position(self, records: Sequence[Record]) -> list[_Candidates]:
        """Rows without id and image in the order of the official questions, as POPE's own."""
        groups: list[list[Sample]] = [list(self.samples)]
        for subset in self.all_subsets:
            groups.append([sample for sample in self.samples if sample.subset == subset])
        for group in groups:
            if len(group) != len(records):
                continue
            rows = []
            for record, sample in zip(records, group, strict=True):
                if record.question is not None and _similarity(record.question, sample) > 0:
                    rows.append(_Candidates(record, [sample]))
            if len(rows) == len(records):
                return rows
        return [_Candidates(record, []) for record in records]

    def _about(self, record: Record) -> list[Sample]:
        """The samples about the record's image that ask its question."""
        if record.image is None or record.question is None:
            return []
        samples = []
        subsets = self._subsets_named(record)
        for sample in self.by_image.get(image_key(record.image), ()):
            if not subsets or sample.subset in subsets:
                samples.append(sample)
        grades = [_similarity(record.question, sample) for sample in samples]
        best = max(grades, default=0)
        if best > 0:
            return [sample for sample, grade in zip(samples, grades, strict=True) if grade == best]
        return []

    def _with_captions(self, rows: Sequence[_Candidates]) -> list[_Candidates]:
        """The rows, with captions for those that asked for one in other words.

        Benchmarks of captions have no official prompt: what was said of an image is its caption,
        whatever was asked, if it was asked one thing only.
        """
        open_samples = [sample for sample in self.samples if not self.benchmark.yes_no(sample)]
        if len({sample.question for sample in open_samples}) != 1:
            return list(rows)
        caption_of: dict[str, list[Sample]] = {}
        for sample in open_samples:
            caption_of.setdefault(image_key(sample.image), []).append(sample)
        has_caption: set[str] = set()
        prompts_about: dict[str, set[str]] = {}
        for row in rows:
            key = image_key(row.record.image or "")
            if any(not self.benchmark.yes_no(sample) for sample in row.samples):
                has_caption.add(key)
            elif not row.samples:
                prompt = plain_question(row.record.question or "")
                prompts_about.setdefault(key, set()).add(prompt)
        filled = []
        for row in rows:
            key = image_key(row.record.image or "")
            samples = row.samples
            is_caption = key not in has_caption and len(prompts_about.get(key, ())) == 1
            if not samples and is_caption and len(caption_of.get(key, ())) == 1:
                samples = caption_of[key]
            filled.append(_Candidates(row.record, samples))
        return filled

    def _asked_subsets(self, rows: Sequence[_Candidates]) -> list[str]:
        """The subsets that the file holds answers to.

        Subsets share questions, so only one that no other subset has shows that a subset was asked.
        """
        sure, possible = set(), set()
        for row in rows:
            subsets = {sample.subset for sample in row.samples}
            possible |= subsets
            if len(subsets) == 1:
                sure |= subsets
        asked = sure or possible
        return [subset for subset in self.all_subsets if subset in asked]

    def _assign(self, rows: Sequence[_Candidates]) -> None:
        """Gives every sample of an asked subset its own row.

        Rows that may answer the same samples are told apart by the block of the file in which they
        stand; one row for many samples, as in a file of distinct questions, is shared by them.
        """
        asked = set(self.subsets)
        candidates = []
        for row in rows:
            candidates.append([sample for sample in row.samples if sample.subset in asked])
        groups: Counter[tuple[str, ...]] = Counter()
        for samples in candidates:
            groups[tuple(sample.id for sample in samples)] += 1
        # In a file of distinct questions a second row is a duplicate, not the next sample's.
        shared_groups = []
        for ids, count in groups.items():
            if len(ids) > 1:
                shared_groups.append(count)
        is_distinct = sum(count == 1 for count in shared_groups) > len(shared_groups) / 2
        before, behind = _neighbours(candidates)
        shared: list[tuple[Record, list[Sample]]] = []
        for index, (row, samples) in enumerate(zip(rows, candidates, strict=True)):
            if not samples:
                self.unmatched.append(row.record)
                continue
            free = [sample for sample in samples if sample.id not in self.record_of]
            if not free:
                self._add_duplicate(row.record, samples[0])
                continue
            if is_distinct or groups[tuple(sample.id for sample in samples)] == 1:
                shared.append((row.record, samples))
                continue
            in_block = [s for s in free if s.subset == before[index]] or [
                s for s in free if s.subset == behind[index]
            ]
            self.record_of[(in_block or free)[0].id] = row.record
        # Last, so that a sample's own row comes first.
        for record, samples in shared:
            free = [sample for sample in samples if sample.id not in self.record_of]
            if not free:
                self._add_duplicate(record, samples[0])
                continue
            for sample in free:
                self.record_of[sample.id] = record
        self._share_respelled(rows)

    def _share_respelled(self, rows: Sequence[_Candidates]) -> None:
        """POPE spells "imange" in places; an answer file may have asked only the right spelling."""
        by_question: dict[tuple[str, str], Record] = {}
        for row in rows:
            record = row.record
            if record.image is not None and record.question is not None:
                key = (image_key(record.image), _respelled(plain_question(record.question)))
                by_question.setdefault(key, record)
        for sample in self.samples:
            question = plain_question(sample.question)
            is_misspelled = question != _respelled(question)
            if is_misspelled and sample.subset in self.subsets:
                shared = by_question.get((image_key(sample.image), _respelled(question)))
                if sample.id not in self.record_of and shared is not None:
                    self.record_of[sample.id] = shared

    def _add_duplicate(self, record: Record, sample: Sample) -> None:
        first = self.record_of[sample.id]
        if record.id is not None and record.id == first.id and record.texts != first.texts:
            raise ModelError(
                f"Item {record.number}: the id {record.id} has two answers.",
                f"Item {first.number} answers it otherwise, and an answer belongs to one id.",
                "Remove one, or name the questions with images and categories by --questions FILE.",
            )
        self.duplicates.append(record)


def _neighbours(
    candidates: Sequence[Sequence[Sample]],
) -> tuple[list[str | None], list[str | None]]:
    """For each row the subset of the last row before, and of the next behind, that has only one."""

    def scan(order: Sequence[int]) -> list[str | None]:
        known: list[str | None] = [None] * len(candidates)
        last = None
        for index in order:
            subsets = {sample.subset for sample in candidates[index]}
            if len(subsets) == 1:
                last = subsets.pop()
            known[index] = last
        return known

    order = range(len(candidates))
    return scan(order), scan(order[::-1])


def _similarity(asked: str, sample: Sample) -> int:
    """How surely a recorded prompt is the sample's question, 0 if it is another.

    A prompt may hold more than the question: a system text, or "Please answer yes or no." The
    longest question in it is meant.
    """
    prompt, question = plain_question(asked).lower(), plain_question(sample.question).lower()
    if prompt == question:
        return 1_000_000
    if _respelled(prompt) == _respelled(question):
        return 999_999
    return len(question) if question and _respelled(question) in _respelled(prompt) else 0


def _asks(text: str, sample: Sample) -> bool:
    """Whether a text is the sample's question, with a suffix or without."""
    return _respelled(plain_question(sample.question).lower()) in _respelled(
        plain_question(text).lower()
    )


def _respelled(question: str) -> str:
    """POPE's early files spell "imange"; the questions are the same."""
    return question.replace("imange", "image")


def _named(records: Sequence[Record]) -> dict[str, Any]:
    """How many records, and what the first are called."""
    return {"count": len(records), "first": [_label(record) for record in records[:SHOWN]]}


def _shown(records: Sequence[Record]) -> str:
    more = " …" if len(records) > SHOWN else ""
    return ", ".join(_label(record) for record in records[:SHOWN]) + more


def _label(record: Record) -> str:
    name = record.image or record.id or record.question or ""
    return f"item {record.number} ({name[:80]})"
