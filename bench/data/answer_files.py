"""Recorded answers as people have them: the form of the file, and which field of a row is what.

What a field is gets decided once for a file, from the names of all its fields, and is recorded. Two
fields that could both be the model's words are never guessed between.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import DataError, ModelError, one_line
from bench.files import parse_json, read_rows

# The model's words, by the name of the field. `text` and `answer` are last, because questions and
# labels have these names too.
ANSWER_FIELDS = tuple(
    "model_answer caption prediction pred predict predicted_answer response model_response "
    "output outputs model_output generated_text generation completion pred_answer "
    "filtered_resps resps text answer".split()
)
QUESTION_FIELDS = ("question", "prompt", "query", "instruction", "input", "text")
IMAGE_FIELDS = tuple(
    "image image_src image_source image_file image_path image_name img img_path file_name filename "
    "images image_id img_id".split()
)
ID_FIELDS = ("question_id", "sample_id", "id", "image_id")
CATEGORY_FIELDS = ("category", "subset", "split", "type", "pope_type")
# Fields that hold what is right, whatever else the row holds.
LABEL_FIELDS = ("label", "gt_answer", "gt", "target", "ground_truth", "reference")
# Layouts by the fields that only they have: (name, fields, the model's words). What else is there
# is no second candidate: VLMEvalKit's `answer` is the label, lmms-eval's `resps` are unfiltered.
CERTAIN_LAYOUTS = (
    ("this tool's answers", {"key", "image", "prompt", "text"}, "text"),
    ("MMHal-Bench responses", {"model_answer"}, "model_answer"),
    ("lmms-eval samples", {"doc_id", "filtered_resps"}, "filtered_resps"),
    ("lmms-eval samples", {"doc_id", "resps"}, "resps"),
    ("VLMEvalKit predictions", {"index", "answer", "prediction"}, "prediction"),
)
# Names for what is left if one candidate is.
LAYOUTS = (
    ("LLaVA answers", {"question_id", "prompt", "text"}, "text"),
    ("CHAIR captions", {"image_id", "caption"}, "caption"),
    ("POPE questions with answers", {"text", "label", "response"}, "response"),
    ("AMBER responses", {"id", "response"}, "response"),
)
BY_NAME = "fields by name"
COPIED = 0.98  # of the rows; from then on a field repeats another one
# LLaVA's questions lie beside its answers, or a folder above them.
DELIMITERS = ",\t;"
QUESTION_FILES = ("questions.jsonl", "llava_pope_test.jsonl")
MAGIC = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PAR1", "a parquet file"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite data base"),
    (b"ARROW1", "an Arrow file"),
)
COCO_DIGITS = 12
LARGEST_WORKBOOK = 2_000_000_000  # bytes when it is unpacked
WRAPPERS = re.compile(r"<image>|<\|image\|>|<img>.*?</img>|\[image\]", re.IGNORECASE)
COCO_NAME = re.compile(
    r"(?:COCO_(?P<split>(?:train|val|test)20\d\d)_)?0*([0-9]{1,12})(?:\.(?:jpe?g|png))?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Record:
    """One recorded answer with what is known of the question that it belongs to.

    Args:
        number: Which item of the file it is, from 1.
        texts: The words by candidate field; None if the file has none for this row.
        id: The question's id in the file's own numbering.
        image: The image's file name or number.
        question: The question as it was asked.
        categories: What may name the part of the benchmark.
        p_yes: Probability that the first token was a form of yes.
        p_no: The same for no.
        finish: Why the answer ended, if the file tells.
    """

    number: int
    texts: Mapping[str, str | None]
    id: str | None
    image: str | None
    question: str | None
    categories: tuple[str, ...]
    p_yes: float | None = None
    p_no: float | None = None
    finish: str | None = None


@dataclass(frozen=True)
class AnswerFile:
    """The records of a file, and what its fields are.

    Args:
        path: The file.
        layout: The name of a known layout; "fields by name" if it is none.
        candidates: The fields that may be the model's words, the likeliest first.
        fields: What was taken for id, image, question and category, by its role.
        records: The records in the order of the file.
    """

    path: Path
    layout: str
    candidates: tuple[str, ...]
    fields: Mapping[str, str]
    records: Sequence[Record]


def read_answer_file(
    path: Path,
    answer_field: str | None = None,
    question_field: str | None = None,
    questions: Path | None = None,
) -> AnswerFile:
    """Reads recorded answers.

    Args:
        path: JSON, JSON lines, or CSV with a header.
        answer_field: The field of the model's words; decided from all names if None.
        question_field: The field of the question; decided from all names if None.
        questions: A file of questions by id; one that lies beside the answers if None.

    Raises:
        ModelError: It is another kind of file, or no field can be the answer.
    """
    rows = [_flat(row) for row in _rows(path)]
    if not rows:
        raise ModelError(
            f"{path} holds no answer.",
            "Its list is empty.",
            "Name the file that holds the answers.",
        )
    fields = _common_fields(rows)
    for option, name in (("--answer-field", answer_field), ("--question-field", question_field)):
        if name is not None and name not in fields:
            raise ModelError(
                f"{path} has no field {name} in all its items.",
                f"{option} names it; the items have {', '.join(sorted(fields))}.",
                "Name one of these.",
            )
    layout, candidates = _candidates(rows, fields, answer_field)
    image_field = _first(IMAGE_FIELDS, fields)
    id_field = _first(ID_FIELDS, fields)
    if question_field is None:
        # A field cannot be question and answer; LLaVA's `text` is the answer, POPE's the question.
        taken = candidates[0] if len(candidates) == 1 else None
        question_field = _first([name for name in QUESTION_FIELDS if name != taken], fields)
    if answer_field is None:
        candidates = tuple(name for name in candidates if name != question_field)
        candidates = _without_copies(rows, candidates, question_field)
    if not candidates:
        raise ModelError(
            f"{path}: item 1 has no answer.",
            f"None of its fields {', '.join(fields)} is one of {', '.join(ANSWER_FIELDS)} with a "
            "text that is neither the question nor the label.",
            "Name the field of the model's words with --answer-field.",
        )
    question_of = _questions_by_id(path, questions, rows, image_field, question_field)
    records = []
    for number, row in enumerate(rows, start=1):
        row_id = _text(row.get(id_field)) if id_field else None
        known = question_of.get(row_id or "", {})
        image = _image(row.get(image_field)) if image_field else None
        question = _text(row.get(question_field)) if question_field else None
        if known:
            image, question = image or _image(known["image"]), str(known["text"])
        # Captions by number: what else could the number be of?
        if image is None and question is None:
            image = row_id
        p_yes, p_no = _probabilities(path, number, row)
        categories = [_text(row.get(name)) for name in CATEGORY_FIELDS]
        categories.append(_text(known.get("category")))
        records.append(
            Record(
                number,
                {name: _answer_text(path, number, name, row) for name in candidates},
                # The ids of a questions file are its own: image and question identify its samples.
                None if known else row_id,
                image,
                question,
                tuple(name for name in categories if name is not None),
                p_yes,
                p_no,
                row.get("finish"),
            )
        )
    roles = {"id": id_field, "image": image_field, "question": question_field}
    named = {role: name for role, name in roles.items() if name is not None}
    return AnswerFile(path, layout, candidates, named, records)


def _candidates(
    rows: Sequence[Mapping[str, Any]], fields: Mapping[str, None], answer_field: str | None
) -> tuple[str, tuple[str, ...]]:
    """The layout, and the fields that may be the model's words."""
    if answer_field is not None:
        return BY_NAME, (answer_field,)
    for name, needed, answer in CERTAIN_LAYOUTS:
        if needed <= fields.keys():
            return name, (answer,)
    candidates = []
    for name in ANSWER_FIELDS:
        # A field of numbers or of objects is not what a model said.
        if name in fields and any(_is_text(row.get(name)) for row in rows):
            candidates.append(name)
    for name, needed, answer in LAYOUTS:
        if needed <= fields.keys() and [*candidates] in ([answer], [answer, "text"]):
            return name, tuple(candidates)
    return BY_NAME, tuple(candidates)


def _is_text(value: Any) -> bool:
    if isinstance(value, list) and len(value) == 1:
        return _is_text(value[0])
    return isinstance(value, str)


def _without_copies(
    rows: Sequence[Mapping[str, Any]], candidates: Sequence[str], question_field: str | None
) -> tuple[str, ...]:
    """The candidates that do not repeat the question or a label."""
    others = [name for name in (question_field, *LABEL_FIELDS) if name is not None]
    kept = []
    for name in candidates:
        is_copy = False
        for other in others:
            equal = sum(same_text(row.get(name), row.get(other)) for row in rows)
            # One row alone may be a model that is right.
            if len(rows) > 1 and equal >= COPIED * len(rows):
                is_copy = True
        if not is_copy or (name not in ("text", "answer") and len(candidates) == 1):
            kept.append(name)
    return tuple(kept)


def same_text(one: Any, two: Any) -> bool:
    """Whether both are the same words, but for case and a full stop; False if one is no text."""
    if not isinstance(one, str) or not isinstance(two, str):
        return False
    return one.strip().rstrip(".").lower() == two.strip().rstrip(".").lower()


def _common_fields(rows: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """The fields of every row, in the order of the first; a value may be missing in some rows."""
    names = dict.fromkeys(rows[0])
    for row in rows[1:]:
        names = {name: None for name in names if name in row}
    filled: dict[str, None] = {}
    for name in names:
        if any(row[name] not in (None, "") for row in rows):
            filled[name] = None
    return filled


def _first(names: Sequence[str], fields: Mapping[str, None]) -> str | None:
    for name in names:
        if name in fields:
            return name
    return None


def _text(value: Any) -> str | None:
    # NaN is how tables write nothing.
    is_nothing = value is None or value == "" or value != value
    return None if is_nothing else str(value)


def _image(value: Any) -> str | None:
    """An image's name, also from a list with one, or from an object with its path."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = next((value[name] for name in ("path", "image", "url") if value.get(name)), None)
    return _text(value)


def _probability(value: Any) -> float | None:
    """A probability, None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= 1 and not isinstance(value, bool) else None


def _probabilities(
    path: Path, number: int, row: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """P(yes) and P(no) of a row, None where it has none."""
    probabilities: list[float | None] = []
    for name in ("p_yes", "p_no"):
        value = row.get(name)
        probability = _probability(value)
        if probability is None and _text(value) is not None:
            raise ModelError(
                f"{path}: item {number} has an impossible {name}.",
                f"It is {value!r:.60}; a probability lies between 0 and 1.",
                "Write probabilities, or leave the field out.",
            )
        probabilities.append(probability)
    p_yes, p_no = probabilities
    if (p_yes or 0) + (p_no or 0) > 1 + 1e-6:
        raise ModelError(
            f"{path}: item {number} has impossible probabilities.",
            f"p_yes {p_yes} and p_no {p_no} are more than 1 together.",
            "Write probabilities over all words, or leave both fields out.",
        )
    return p_yes, p_no


def _answer_text(path: Path, number: int, name: str, row: Mapping[str, Any]) -> str | None:
    """The words, None if this row has none; an empty text is an answer too."""
    value = row[name]
    # lmms-eval and vLLM keep a list of samples; the first one is the greedy answer.
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value != value:
        return None
    if not isinstance(value, str):
        raise ModelError(
            f"{path}: item {number} has no answer.",
            f"Its {name} is {type(value).__name__}, not a text.",
            "Name another field with --answer-field, or remove the item.",
        )
    return value.strip()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what lmms-eval nests one level down: the question's own fields."""
    flat = dict(row)
    if "doc_id" not in row:
        return flat
    for nested in row.values():
        if isinstance(nested, dict):
            for name in (*ID_FIELDS, *IMAGE_FIELDS, "category", "question"):
                if isinstance(nested.get(name), str | int):
                    flat.setdefault(name, nested[name])
    return flat


def _refuse_one_object(path: Path, text: str) -> None:
    """Raises ModelError if the text is a single object over several lines, in no known layout."""
    try:
        content = parse_json(text)
    except ValueError:  # JSON lines
        return
    if "\n" in text.strip():
        raise ModelError(
            f"{path} holds no list of answers.",
            f"It is one JSON object with the keys {', '.join(map(str, content))[:200]}.",
            "Name the file that holds the answers.",
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    """The items of the file. Raises ModelError naming what the file is if it has none."""
    try:
        head = path.open("rb").read(64)
        if head.startswith(MAGIC[0][0]) and _is_workbook(path):
            return _workbook_rows(path)
        for magic, kind in MAGIC:
            if head.startswith(magic):
                raise ModelError(
                    f"{path} cannot be replayed.",
                    f"It is {kind}.",
                    "Give the answers as JSON, JSON lines, Excel, or CSV with a header.",
                )
        text = path.read_text(encoding="utf-8-sig")
        start = text.lstrip()[:1]
        if start == "{":
            rows = _rows_of_object(path, text)
            if rows is not None:
                return rows
            _refuse_one_object(path, text)
        header = text.partition("\n")[0]
        delimiter = max(DELIMITERS, key=header.count)
        if start not in ("{", "[") and delimiter in header and path.suffix != ".jsonl":
            return _csv_rows(path, text, delimiter)
        return read_rows(path, {})
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} cannot be replayed.",
            _without_remedy(error),
            "Restore it from its source.",
        ) from error


def _is_workbook(path: Path) -> bool:
    """Whether a zip archive is an Excel file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _workbook_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an Excel file's first sheet, as VLMEvalKit writes it."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > LARGEST_WORKBOOK:
        raise ModelError(
            f"{path} cannot be replayed.",
            f"It says that it holds {size / 1e9:.1f} GB, which no answers need.",
            "Give the answers as CSV.",
        )
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        lines = book.worksheets[0].iter_rows(values_only=True)
        header = next(lines, ())
        rows = []
        for line in lines:
            row = {}
            for name, value in zip(header, line, strict=False):
                if name is not None:
                    # An empty cell is an empty answer.
                    row[str(name)] = "" if value is None else value
            if any(value != "" for value in row.values()):
                rows.append(row)
    except Exception as error:  # openpyxl raises whatever a broken part makes it raise
        raise ModelError(
            f"{path} is a broken Excel file.",
            f"{type(error).__name__}: {error}.",
            "Restore the file.",
        ) from error
    if not rows:
        raise ModelError(f"{path} is empty.", "It holds no answer.", "Restore the file.")
    return rows


def _rows_of_object(path: Path, text: str) -> list[dict[str, Any]] | None:
    """The items of one JSON object; None if the file is JSON lines.

    They are CHAIR's sentences, lists by part of the benchmark, rows by id, or answers by id.
    """
    try:
        content = parse_json(text)
    except ValueError:  # JSON lines
        return None
    if not isinstance(content, dict) or set(content) & {*ANSWER_FIELDS, *QUESTION_FIELDS}:
        return None
    lists = {}
    for name, value in content.items():
        is_rows = isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
        if is_rows and set(value[0]) & {*ANSWER_FIELDS}:
            lists[name] = value
    if len(lists) == 1:
        return list(next(iter(lists.values())))
    if lists:
        return [{"category": name, **row} for name, rows in lists.items() for row in rows]
    if all(isinstance(value, dict) for value in content.values()):
        return [{"id": name, **row} for name, row in content.items()]
    if all(isinstance(value, str) for value in content.values()):
        return [{"id": name, "response": value} for name, value in content.items()]
    return None


def _csv_rows(path: Path, text: str, delimiter: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ModelError(
                    f"{path} is no CSV with a header.",
                    f"Line {reader.line_num} has another number of fields than the first line.",
                    "Give JSON, JSON lines, or CSV with a header.",
                )
            rows.append(dict(row))
    except csv.Error as error:
        raise ModelError(
            f"{path} is no CSV with a header.",
            f"Line {reader.line_num}: {error}.",
            "Restore the file.",
        ) from error
    if not rows:
        raise ModelError(f"{path} is empty.", "It holds no answer.", "Restore the file.")
    return rows


def _questions_by_id(
    path: Path,
    questions: Path | None,
    rows: Sequence[Mapping[str, Any]],
    image_field: str | None,
    question_field: str | None,
) -> dict[str, dict[str, Any]]:
    """The rows of a questions file by id; none without one that fits the answers."""
    if questions is not None:
        if not questions.is_file():
            raise ModelError(
                f"There is no file {questions}.", "--questions names it.", "Check the path."
            )
        by_id = _by_id(questions)
        if not _fit(rows, by_id, image_field, question_field):
            raise ModelError(
                f"{questions} are not the questions of {path}.",
                "Ids are missing, or images or questions of equal ids differ.",
                "Name the file that the answers were made from.",
            )
        return by_id
    for folder in (path.parent, path.parent.parent):
        for name in QUESTION_FILES:
            beside = folder / name
            if not beside.is_file() or beside == path:
                continue
            try:
                by_id = _by_id(beside)
            except ModelError:  # a file of that name that is something else
                continue
            # Another benchmark's questions may lie there.
            if _fit(rows, by_id, image_field, question_field):
                return by_id
    return {}


def _fit(
    rows: Sequence[Mapping[str, Any]],
    by_id: Mapping[str, Mapping[str, Any]],
    image_field: str | None,
    question_field: str | None,
) -> bool:
    """Whether a questions file has all ids, and nothing that a row knows contradicts it."""
    for row in rows:
        known = by_id.get(str(row.get("question_id")))
        if known is None:
            return False
        image = _image(row.get(image_field)) if image_field else None
        if image is not None and image_key(image) != image_key(str(known["image"])):
            return False
        question = _text(row.get(question_field)) if question_field else None
        if question is not None and not _is_same_question(question, str(known["text"])):
            return False
    return True


def _is_same_question(one: str, other: str) -> bool:
    """Whether one prompt is the other, or holds it among other words."""
    first, second = plain_question(one).lower(), plain_question(other).lower()
    return first in second or second in first


def _by_id(file: Path) -> dict[str, dict[str, Any]]:
    try:
        rows = read_rows(file, {"question_id": str | int, "image": str, "text": str})
    except DataError as error:
        raise ModelError(
            f"The questions {file} cannot be read.",
            _without_remedy(error),
            "Restore the file from its source.",
        ) from error
    return {str(row["question_id"]): row for row in rows}


def _without_remedy(error: Exception) -> str:
    return f"{error.fact} {error.reason}" if isinstance(error, DataError) else one_line(error)


def image_key(image: str) -> str:
    """COCO's number of an image if its name has one, else the bare file name without its ending.

    >>> image_key("val2014/COCO_val2014_000000000042.jpg"), image_key("42"), image_key("a/b.png")
    ('42', '42', 'b')
    """
    name = re.split(r"[/\\]", image)[-1]
    coco = COCO_NAME.match(name)
    return coco.group(2) if coco else name.rpartition(".")[0] or name


def image_name(image: str) -> str:
    """The image's file name; COCO's own for what has only its number or another ending.

    >>> image_name("42"), image_name("COCO_train2014_000000000042"), image_name("a/b.png")
    ('COCO_val2014_000000000042.jpg', 'COCO_train2014_000000000042.jpg', 'b.png')
    """
    name = re.split(r"[/\\]", image)[-1]
    coco = COCO_NAME.match(name)
    stem = name.partition(".")[0]
    # 0.jpg is anybody's; COCO's own numbers have twelve digits.
    is_coco = coco is not None and (coco["split"] or name.isdigit() or len(stem) == COCO_DIGITS)
    if coco is None or not is_coco:
        return name
    return f"COCO_{(coco['split'] or 'val2014').lower()}_{int(coco.group(2)):012d}.jpg"


def plain_question(question: str) -> str:
    """A question without marks of the image, on one line.

    >>> plain_question("<image>\\nIs it\\\\nred?")
    'Is it red?'
    """
    text = WRAPPERS.sub(" ", question.replace("\\n", "\n"))
    return " ".join(text.split())
