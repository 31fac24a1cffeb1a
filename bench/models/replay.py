"""`replay:FILE`: answers that somebody recorded earlier, so that published outputs can be scored.

Reads JSON or JSON lines: LLaVA's answer files (`question_id`, `prompt`, `text`; the `questions.jsonl` beside one
says which image an id is about), this tool's own answers.jsonl, MMHal-Bench response files, CHAIR captions
(`image_id`, `caption`, also under "sentences") and AMBER responses (`id`, `response`).
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.benchmarks.common import read_rows
from bench.errors import DataError, ModelError
from bench.types import Answer, Batch, Benchmark, Request, Sample

TEXT_FIELDS = ("model_answer", "caption", "response", "text", "answer")
COCO_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?0*(\d+)(?:\.jpg)?$")


@dataclass(frozen=True)
class Record:
    """One recorded answer with what is known of the question it belongs to."""

    text: str
    id: str | None
    image: str | None
    question: str | None
    p_yes: float | None = None
    p_no: float | None = None


class ReplayModel:
    """Answers from a file. Raises ModelError where it is missing, unreadable or ambiguous."""

    reads_images = False

    def __init__(self, file: str, options: Mapping[str, Any]) -> None:
        path = Path(file)
        if path.is_dir():
            path = path / "answers.jsonl"
        if not path.is_file():
            raise ModelError(f"There is no file {file}.", "replay:FILE needs recorded answers.", "Check the path.")
        self.file = path
        self.records = read_records(path)
        self.images = tuple(dict.fromkeys(_file_name(r.image) for r in self.records if r.image is not None))

    def describe(self) -> dict[str, Any]:
        """The file and its content's digest."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return {"kind": "replay", "name": self.file.resolve().parent.name, "file": str(self.file), "sha256": digest}

    def suffix(self, benchmark: Benchmark) -> str:
        """Recorded answers had their own prompts."""
        return ""

    def max_tokens(self, benchmark: Benchmark, sample: Sample) -> int:
        """Not used: nothing is generated."""
        return benchmark.max_tokens(sample)

    def recorded_images(self) -> Sequence[str] | None:
        """The names of the images that answers were recorded for."""
        return self.images

    def answer(self, requests: Sequence[Request], done: frozenset[str]) -> Iterator[Batch]:
        """Looks up every request by image and question, else by sample id, else (captions) by image.

        Raises ModelError where no request finds an answer.
        """
        pairs, ids = self._index()
        tails = Counter(sample.rpartition("/")[2] for request in requests for sample in request.samples)
        batch: Batch = []
        for request in requests:
            record = _find(request, pairs, ids, tails)
            if record is None:
                batch.append((request, Answer("", error="no recorded answer")))
            else:
                answer = Answer(record.text, finish="recorded", p_yes=record.p_yes, p_no=record.p_no)
                batch.append((request, answer))
        if all(answer.error for _, answer in batch):
            raise ModelError(
                f"None of the {len(self.records)} answers in {self.file} belongs to this benchmark.",
                f"Looked for image {requests[0].image} with '{requests[0].question}', and for ids such as "
                f"{requests[0].samples[0]}.",
                "Give answers that carry image and question, put the questions.jsonl they were made from beside "
                "them, or choose the benchmark they were made for.",
            )
        yield [(request, answer) for request, answer in batch if request.key not in done]

    def _index(self) -> tuple[dict[tuple[str, str | None], Record], dict[str, Record]]:
        pairs: dict[tuple[str, str | None], Record] = {}
        ids: dict[str, Record] = {}
        for record in self.records:
            if record.id is not None:
                ids.setdefault(record.id, record)
            if record.image is not None:
                kept = pairs.setdefault((_image_key(record.image), _spelled(record.question)), record)
                if kept.text != record.text:
                    warnings.warn(f"{self.file}: several answers for {record.image}; the first counts", stacklevel=2)
                if record.question is not None and "\n" in record.question:
                    pairs.setdefault((_image_key(record.image), _spelled(record.question.rpartition("\n")[0])), record)
        return pairs, ids


def _find(
    request: Request, pairs: Mapping[tuple[str, str | None], Record], ids: Mapping[str, Record], tails: Counter[str]
) -> Record | None:
    image = _image_key(request.image)
    for question in (request.prompt, request.question):
        if (image, _spelled(question)) in pairs:
            return pairs[image, _spelled(question)]
    for sample in request.samples:
        tail = sample.rpartition("/")[2]
        found = ids.get(sample) or (ids.get(tail) if tails[tail] == 1 else None)
        if found is not None:
            return found
    return pairs.get((image, None))


def read_records(file: Path) -> list[Record]:
    """All recorded answers of a file. Raises ModelError where an item has no text or one id has two answers."""
    rows = _rows(file)
    questions = _questions_beside(file)
    records = []
    texts: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        text = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
        if text is None:
            raise ModelError(
                f"{file}: item {number} has no answer.",
                f"None of its fields {', '.join(map(str, row))} is one of {', '.join(TEXT_FIELDS)} with a text.",
                "Remove the item or give it its answer.",
            )
        number_or_name = row.get("question_id", row.get("id"))
        known = questions.get(str(number_or_name), {})
        image = row.get("image", row.get("image_src", row.get("image_id", known.get("image"))))
        question = row.get("question", known.get("text", row.get("prompt")))
        sample = None if number_or_name is None or known else str(number_or_name)
        if sample is not None and texts.setdefault(sample, text) != text:
            raise ModelError(
                f"{file}: the id {sample} has two answers.",
                "Answers belong to ids, so each must be unique.",
                "Remove one, or put the questions.jsonl with images and categories beside the file.",
            )
        p_yes, p_no = row.get("p_yes"), row.get("p_no")
        records.append(Record(text.strip(), sample, None if image is None else str(image), question, p_yes, p_no))
    return records


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("{"):
            try:
                whole = json.loads(text)
            except ValueError:
                whole = None
            if isinstance(whole, dict) and isinstance(whole.get("sentences"), list):
                return list(whole["sentences"])
        return read_rows(file, ())
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be replayed.", str(error), "Restore the file.") from error


def _questions_beside(file: Path) -> dict[str, dict[str, Any]]:
    beside = file.with_name("questions.jsonl")
    if beside == file or not beside.is_file():
        return {}
    return {str(row["question_id"]): row for row in read_rows(beside, ("question_id", "image", "text"))}


def _image_key(image: str) -> str:
    name = image.rsplit("/", 1)[-1]
    coco = COCO_NAME.match(name)
    return coco.group(1) if coco else name


def _spelled(question: str | None) -> str | None:
    """POPE's early files spell "imange"; the questions are the same."""
    return question and question.replace("imange", "image")


def _file_name(image: str) -> str:
    name = image.rsplit("/", 1)[-1]
    return f"COCO_val2014_{int(name):012d}.jpg" if name.isdigit() else name
