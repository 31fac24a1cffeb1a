"""A run's folder: append-only, crash-safe, resumable.

run.json        what was asked, and everything that can move a number
answers.jsonl   one line for each distinct (image, prompt), appended and flushed batch by batch
verdicts.jsonl  one line for each judged sample, the judge's raw text kept
scores.jsonl    one line for each sample
metrics.json    every metric with value, interval, n, unscored; digests of what they were made from
batches.jsonl   with --batch: the ids of the batches, and the requests in each
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

from bench.errors import StoreError
from bench.files import (
    append_lines,
    cannot_write,
    check_ours,
    dump,
    json_of,
    lines_of,
    read_json,
    replace_file,
    type_fault,
    write_json,
)
from bench.runs.record import RunRecord
from bench.runs.seal import check_file, check_seal, contents_of, seal
from bench.types import Answer, Metric, Request, Score, Verdict

if TYPE_CHECKING:
    from pydantic import BaseModel

FORMAT = 1
RECORD = "run.json"
SOFTWARE = "software"  # in a model's description: the versions of packages
# Parts of a record, by dotted name. A run is continued whatever they are: they move no number, or
# their change is recorded by session.
NOT_COMPARED = (
    "format",
    "created",
    "command",
    "name",
    "all_samples",
    "negotiated",
    "judge",
    "source",
    "environment",
    "sessions",
    f"model.{SOFTWARE}",
)
NOT_TOLD_BEFORE = ("prompt.max_tokens",)  # records of earlier versions do not have it
SERVED = "model.served"  # what a server says of its model, if it does
SHOWN_DIFFERENCES = 8
BYTES_PER_ANSWER = 2000  # in answers.jsonl and scores.jsonl, with a long answer
SPACE = 5_000_000  # bytes that a run may take beside its answers
SHOWN_LENGTH = 48  # characters of a value in an error
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Answer, Verdict, Score, Metric)}
T = TypeVar("T")


class Recorded(NamedTuple):
    """A recorded answer, and the sha256 (16 hex digits) of the image that it was given to."""

    answer: Answer
    image_sha256: str | None


class RunFolder:
    """Reads and writes one run's files. Writing needs `locked()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / RECORD
        self.answers_file = path / "answers.jsonl"
        self.verdicts_file = path / "verdicts.jsonl"
        self.batches_file = path / "batches.jsonl"
        self.scores_file = path / "scores.jsonl"
        self.metrics_file = path / "metrics.json"
        self._read_metrics: tuple[tuple[int, int, int], dict[str, Any]] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process only.

        Raises StoreError if another process has it or it cannot be made.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            # Not waiting: the other process may run for days.
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"{self.path} is in use.",
                "Another process is writing this run.",
                "Wait for it to end, or give this one another folder with --out.",
            ) from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def check_space(self, requests: int) -> None:
        """Raises StoreError if the disk has no room for so many answers."""
        needed = requests * BYTES_PER_ANSWER + SPACE
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise StoreError(
                f"{self.path} has no room for this run.",
                f"{needed / 1e6:.0f} MB may be needed and {free / 1e6:.0f} MB are free.",
                "Free space, or name a folder on another disk with --out.",
            )

    def record(self) -> dict[str, Any]:
        """The content of run.json.

        Raises StoreError if there is none or it is not one of ours.
        """
        if not self.record_file.is_file():
            raise StoreError(
                f"{self.path} is not a run.",
                f"It holds no {RECORD}.",
                "`bench list runs` shows the runs there are.",
            )
        record = json_of(self._content(self.record_file), self.record_file)
        version = record.get("format") if isinstance(record, dict) else None
        if version != FORMAT or isinstance(version, bool):
            raise StoreError(
                f"{self.record_file} has format {version!r}, and this version reads format "
                f"{FORMAT}.",
                "Another version of synth-align wrote it, or it is not a run's file.",
                "Install the version that made it, or run again in a new folder.",
            )
        check_ours(RunRecord, record, self.record_file)
        return dict(record)

    def begin(self, record: Mapping[str, Any], keys: Iterable[str] = ()) -> None:
        """Starts the run, or continues it if run.json says the same.

        A run that is continued may meet other versions of packages; `sessions` says which.

        Args:
            record: What is asked now.
            keys: Keys of the requests that this session can ask.

        Raises StoreError naming every recorded thing that differs.
        """
        if not self.record_file.exists():
            fault = type_fault(RunRecord, record)
            if fault:
                raise StoreError(
                    "The run cannot be recorded.",
                    fault,
                    "A model or judge of another package describes itself so: correct its "
                    "describe().",
                )
            self.write_record(record)
            return
        recorded = self.check_same(record)
        # Answers are the same whatever they are called. Who judges them stands beside his figures.
        updated = dict(recorded)
        if record.get("name"):
            updated["name"] = record["name"]
        answered = self.answers().keys()
        if not answered >= set(keys):
            sessions = _with_session(recorded, record, len(answered))
            if sessions != recorded.get("sessions", []):
                updated["sessions"] = sessions
        if updated != recorded:
            # The figures were made from the record as it was.
            self.metrics_file.unlink(missing_ok=True)
            self.write_record(updated)

    def check_same(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The content of run.json. Raises StoreError naming all that differs from `record`."""
        recorded = self.record()
        changed = differences(recorded, record)
        if changed:
            more = " …" if len(changed) > SHOWN_DIFFERENCES else ""
            raise StoreError(
                f"{self.path} holds a run of another experiment.",
                f"It differs in {'; '.join(changed[:SHOWN_DIFFERENCES])}{more}.",
                "Give this run a folder of its own with --out, or delete the old one.",
            )
        return recorded

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replaces run.json."""
        write_json(self.record_file, {"format": FORMAT, **record})

    def answers(self) -> dict[str, Recorded]:
        """Recorded answers by request key."""
        answers = {}
        for row in self._rows(self.answers_file, ("key", "image")):
            digest = row.get("image_sha256")
            answers[row["key"]] = Recorded(_build(Answer, row, self.answers_file), digest)
        return answers

    def size_of_answers(self) -> int:
        """The size of answers.jsonl in bytes; 0 if there is none."""
        return self.answers_file.stat().st_size if self.answers_file.exists() else 0

    def answered_images(self) -> list[str]:
        """The names of the images that have answers, in order of their first."""
        rows = self._rows(self.answers_file, ("image",))
        return list(dict.fromkeys(row["image"] for row in rows))

    def tokens(self) -> tuple[int, int] | None:
        """Prompt and generated tokens of all answers that a server was paid for, None if none."""
        prompt_tokens, tokens, is_paid = 0, 0, False
        for answer, _ in self.answers().values():
            if answer.prompt_tokens is not None:
                is_paid = True
                prompt_tokens += answer.prompt_tokens
                tokens += answer.tokens
        return (prompt_tokens, tokens) if is_paid else None

    def append_answers(self, batch: Sequence[tuple[Request, Answer, str | None]]) -> None:
        """Appends one batch of (request, answer, the image's digest) and flushes it to the disk."""
        rows = []
        for request, answer, digest in batch:
            row = {
                "key": request.key,
                "image": request.image,
                "prompt": request.prompt,
                **asdict(answer),
            }
            del row["error"]  # answers with an error are not recorded
            if answer.prompt_tokens is None:
                del row["prompt_tokens"]
            if not answer.thoughts:
                del row["thoughts"]
            # Tenths of milliseconds: more digits would only make the file longer.
            row["seconds"] = round(answer.seconds, 4)
            row["image_sha256"] = digest
            rows.append(row)
        append_lines(self.answers_file, rows)

    def verdicts(self, judge: str) -> dict[str, Verdict]:
        """Verdicts by sample id, given by the judge whose digest is `judge`."""
        verdicts = {}
        for row in self.all_verdicts():
            if row.get("judge") == judge:
                verdicts[row["sample"]] = _build(Verdict, row, self.verdicts_file)
        return verdicts

    def all_verdicts(self) -> list[dict[str, Any]]:
        """The rows of verdicts.jsonl: sample, judge and text, in the order in which they came."""
        return self._rows(self.verdicts_file, ("sample", "text"))

    def append_verdicts(self, batch: Sequence[tuple[str, Verdict]], judge: str) -> None:
        """Appends one batch of (sample id, verdict) and flushes it to the disk."""
        rows = []
        for sample, verdict in batch:
            row: dict[str, Any] = {"sample": sample, "judge": judge, "text": verdict.text}
            if verdict.official:
                row["official"] = True
            rows.append(row)
        append_lines(self.verdicts_file, rows)

    def scores(self) -> dict[str, Score]:
        """Recorded scores by sample, none if the run was never scored."""
        scores = {}
        for row in self._rows(self.scores_file, ("sample",)):
            scores[row["sample"]] = build_score(row, self.scores_file)
        return scores

    def metrics(self) -> list[Metric]:
        """The recorded metrics. Raises StoreError if the run was never scored."""
        if not self.metrics_file.is_file():
            raise StoreError(
                f"{self.path} has no metrics.",
                "The run is not finished.",
                "Start the same `bench run` again.",
            )
        return [build_metric(row, self.metrics_file) for row in self.metric_rows()]

    def metric_rows(self) -> list[dict[str, Any]]:
        """The recorded metrics as metrics.json, which must be there, has them."""
        return list(self._sealed()["metrics"])

    def write_results(
        self, record: Mapping[str, Any], scores: Sequence[Score], metrics: Sequence[Metric]
    ) -> None:
        """Replaces run.json, scores.jsonl and metrics.json.

        Nobody ever reads figures beside the record of others: until the new ones are there, the
        run has none.
        """
        is_same_record = json.loads(dump({"format": FORMAT, **record})) == self.record()
        text = "".join(f"{dump(asdict(score))}\n" for score in scores)
        is_same = is_same_record and _holds(self.scores_file, text)
        if not is_same:
            self.metrics_file.unlink(missing_ok=True)
        if not is_same_record:
            self.write_record(record)
        if not is_same:
            replace_file(self.scores_file, text)
        rows = list(map(asdict, metrics))
        write_json(self.metrics_file, seal(contents_of(self.path), rows))

    def _rows(self, file: Path, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of one of the files, each of which must have these texts."""
        rows = lines_of(self._content(file), file)
        for number, row in enumerate(rows, start=1):
            for name in texts:
                if not isinstance(row.get(name), str):
                    raise StoreError(
                        f"{file} is corrupt in line {number}.",
                        f"Its {name} is {_short(row.get(name))!r}.",
                        "Delete that line: what it holds is made again at the next start.",
                    )
        return rows

    def _content(self, file: Path) -> bytes:
        """What a file holds, nothing if it is not there.

        Raises StoreError if that is not what a finished run's figures were made from.
        """
        data = file.read_bytes() if file.exists() else b""
        if self.metrics_file.is_file():
            check_file(file, data, self._sealed())
        return data

    def _sealed(self) -> dict[str, Any]:
        """The content of metrics.json, read again only if it has changed."""
        state = self.metrics_file.stat()
        version = (state.st_ino, state.st_mtime_ns, state.st_size)
        if self._read_metrics is None or self._read_metrics[0] != version:
            content = check_seal(self.metrics_file, read_json(self.metrics_file, dict[str, Any]))
            self._read_metrics = (version, content)
        return self._read_metrics[1]


def _holds(file: Path, text: str) -> bool:
    return file.is_file() and file.read_bytes() == text.encode()


def build_metric(row: Mapping[str, Any], file: Path) -> Metric:
    """A metric from its JSON object in a file. Raises StoreError for what is none."""
    values = {name: math.nan if value is None else value for name, value in row.items()}
    for name in ("caveats", "by_seed"):
        if isinstance(row.get(name), list):
            values[name] = tuple(row[name])
    return _build(Metric, values, file)


def build_score(row: Mapping[str, Any], file: Path) -> Score:
    """A score from its JSON object in a file. Raises StoreError for what is none."""
    return _build(Score, row, file)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two run records, as "data.sha256 (a → b)".

    What cannot move a number is left out.
    """
    a, b = flatten(old), flatten(new)
    changed = []
    # The model's name says more than the digests of its files.
    for key in sorted(a.keys() | b.keys(), key=lambda key: (key != "model.name", key)):
        # A server that was down says nothing of its model; that makes it no other model.
        if key.startswith(SERVED) and None in (_served(old), _served(new)):
            continue
        if key in NOT_TOLD_BEFORE and None in (a.get(key), b.get(key)):
            continue
        is_compared = not any(f"{key}.".startswith(f"{part}.") for part in NOT_COMPARED)
        if is_compared and a.get(key) != b.get(key):
            changed.append(f"{key} ({_short(a.get(key))} → {_short(b.get(key))})")
    return changed


def asked_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's description without the versions of packages: what is asked, not by what."""
    return {name: value for name, value in model.items() if name != SOFTWARE}


def _with_session(
    recorded: Mapping[str, Any], record: Mapping[str, Any], answers: int
) -> list[dict[str, Any]]:
    """The sessions that asked by something else than the one before, up to the one begun now.

    Each has its start, how many answers were recorded before it, and by what it asks. Starts tell
    no sessions apart: clocks are set back.
    """
    sessions = [item for item in recorded.get("sessions", ()) if item["answers"] < answers]
    by = _asks_by(record)
    before = sessions[-1] if sessions else _asks_by(recorded)
    if by.items() <= before.items():
        return sessions
    return [*sessions, {"created": record.get("created"), "answers": answers, **by}]


def _asks_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a session asks by, beside what it asks."""
    return {
        "environment": record.get("environment"),
        SOFTWARE: record["model"].get(SOFTWARE),
    }


def _served(record: Mapping[str, Any]) -> Any:
    model = record.get("model")
    return model.get("served") if isinstance(model, Mapping) else None


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys, values as JSON would give them back.

    An empty mapping is as none.
    """
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{name}.")
        else:
            # A tuple is a list once it has been in a file.
            flat[name] = json.loads(dump(item))
    return flat


def _build(kind: type[T], row: Mapping[str, Any], file: Path) -> T:
    """A dataclass from a row; what other versions wrote beside its fields is left out."""
    from pydantic import ValidationError

    try:
        checked = _model_of(kind.__name__).model_validate(row)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise StoreError(
            f"{file} is corrupt.",
            f"{fault['msg']}: {place} of {_short(dict(row))}.",
            "Restore it, or delete that line: what it holds is made again at the next start.",
        ) from error
    return kind(**{name: row[name] for name in checked.model_fields_set})


@cache
def _model_of(name: str) -> type[BaseModel]:
    """A model with the fields of one of our dataclasses, which takes no type for another."""
    from pydantic import ConfigDict, create_model

    kind = KINDS[name]
    hints, model_fields = get_type_hints(kind), {}
    for item in fields(kind):
        default: Any = item.default if item.default is not MISSING else ...
        if item.default_factory is not MISSING:
            default = item.default_factory()
        model_fields[item.name] = (hints[item.name], default)
    config = ConfigDict(strict=True, extra="ignore")
    return create_model(name, __config__=config, **model_fields)  # type: ignore[call-overload,no-any-return]


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
