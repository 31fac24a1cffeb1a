"""A run's folder: append-only, crash-safe, resumable.

run.json        what was asked, and everything that can move a number
answers.jsonl   one line per distinct (image, prompt), appended and flushed batch by batch
verdicts.jsonl  one line per judged sample, the judge's raw text kept
scores.jsonl    one line per sample
metrics.json    every metric with value, interval, n, unscored
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import StoreError, os_reason
from bench.types import Answer, Metric, Request, Score, Verdict

FORMAT = 1
NOT_COMPARED = ("created", "command", "judge", "source")
T = TypeVar("T")


class RunFolder:
    """Reads and writes one run's files. Writing needs `locked()`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers_file = path / "answers.jsonl"
        self.verdicts_file = path / "verdicts.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process alone. Raises StoreError where another has it or it cannot be made."""
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"{self.path} is in use.",
                "Another process is writing this run.",
                "Wait for it to end, or give this one another folder with --out.",
            ) from error
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            yield
        finally:
            lock.release()

    def record(self) -> dict[str, Any]:
        """The content of run.json. Raises StoreError where there is none or it is not one of ours."""
        file = self.path / "run.json"
        if not file.is_file():
            raise StoreError(
                f"{self.path} is not a run.", "It holds no run.json.", "`bench list runs` shows the runs there are."
            )
        record = read_json(file)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, dict) else None
            raise StoreError(
                f"{file} has format {found!r}, and this version reads format {FORMAT}.",
                "Another version of synth-align wrote it, or it is not a run's file.",
                "Install the version that made it, or run again in a new folder.",
            )
        return record

    def begin(self, record: Mapping[str, Any]) -> None:
        """Starts the run, or continues it where run.json says the same.

        Raises StoreError naming every recorded thing that differs.
        """
        if not (self.path / "run.json").exists():
            self.write_record(record)
            return
        old = self.record()
        changed = differences(old, record)
        if changed:
            raise StoreError(
                f"{self.path} holds a run of another experiment.",
                "It differs in " + "; ".join(changed[:8]) + (" …" if len(changed) > 8 else "") + ".",
                "Give this run a folder of its own with --out, or delete the old one.",
            )
        if record.get("judge") and record.get("judge") != old.get("judge"):
            self.write_record({**old, "judge": record["judge"]})

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replaces run.json."""
        write_json(self.path / "run.json", {"format": FORMAT, **record})

    def answers(self) -> dict[str, tuple[Answer, str | None]]:
        """Recorded answers by request key, each with the sha256 (16 hex digits) of the image it was given to."""
        rows = read_lines(self.answers_file)
        return {row["key"]: (_build(Answer, row), row.get("image_sha256")) for row in rows}

    def answered_images(self) -> list[str]:
        """The names of the images that have answers, in order of their first."""
        return list(dict.fromkeys(row["image"] for row in read_lines(self.answers_file)))

    def tokens(self) -> tuple[int, int] | None:
        """Prompt and generated tokens of all answers that a server was paid for, None where none was."""
        paid = [row for row in read_lines(self.answers_file) if row.get("prompt_tokens") is not None]
        return (sum(row["prompt_tokens"] for row in paid), sum(row["tokens"] for row in paid)) if paid else None

    def append_answers(self, batch: Sequence[tuple[Request, Answer, str | None]]) -> None:
        """Appends one batch and flushes it to the disk."""
        rows = []
        for request, answer, digest in batch:
            row = {"key": request.key, "image": request.image, "prompt": request.prompt, **asdict(answer)}
            del row["error"]
            if answer.prompt_tokens is None:
                del row["prompt_tokens"]
            rows.append(row | {"seconds": round(answer.seconds, 4), "image_sha256": digest})
        append_lines(self.answers_file, rows)

    def verdicts(self, judge: str) -> dict[str, Verdict]:
        """Verdicts by sample id given by the judge whose digest is `judge`."""
        rows = read_lines(self.verdicts_file)
        return {row["sample"]: _build(Verdict, row) for row in rows if row.get("judge") == judge}

    def append_verdicts(self, batch: Sequence[tuple[str, Verdict]], judge: str) -> None:
        """Appends one batch of (sample id, verdict) and flushes it to the disk."""
        append_lines(self.verdicts_file, [{"sample": sample, "judge": judge, "text": v.text} for sample, v in batch])

    def write_results(self, scores: Sequence[Score], metrics: Sequence[Metric]) -> None:
        """Replaces scores.jsonl and metrics.json."""
        replace_lines(self.path / "scores.jsonl", map(asdict, scores))
        write_json(self.path / "metrics.json", {"metrics": [metric_row(metric) for metric in metrics]})

    def metrics(self) -> list[Metric]:
        """The recorded metrics. Raises StoreError where the run was never scored."""
        file = self.path / "metrics.json"
        if not file.is_file():
            raise StoreError(
                f"{self.path} has no metrics.", "The run is not finished.", "Start the same `bench run` again."
            )
        rows: list[dict[str, Any]] = read_json(file)["metrics"]
        return [_build(Metric, {k: math.nan if v is None else v for k, v in row.items()}) for row in rows]


def metric_row(metric: Metric) -> dict[str, Any]:
    """The metric as a JSON object: NaN as null."""
    row = asdict(metric)
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two run records, as "data.sha256 (a → b)", without what cannot move a number."""
    a, b = flatten(old), flatten(new)
    keys = [k for k in sorted(a.keys() | b.keys()) if k.split(".")[0] not in (*NOT_COMPARED, "format")]
    return [f"{k} ({_short(a.get(k))} → {_short(b.get(k))})" for k in keys if a.get(k) != b.get(k)]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys, values as JSON would give them back."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= flatten(item, f"{name}.") if isinstance(item, Mapping) and item else {name: json.loads(dump(item))}
    return flat


def dump(value: Any) -> str:
    """Canonical one-line JSON; lone surrogates in model text are replaced, NaN is refused."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a JSON-lines file, none where it does not exist.

    A torn last line (no line end, from a kill in the middle of a write) is dropped with a warning.
    Raises StoreError where any other line is corrupt.
    """
    if not file.exists():
        return []
    content = file.read_bytes()
    body, _, torn = content.rpartition(b"\n")
    if torn:
        warnings.warn(f"{file}: dropped a torn last line of {len(torn)} bytes", stacklevel=2)
    rows = []
    for number, line in enumerate(body.split(b"\n") if body else [], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise StoreError(
                f"{file} is corrupt in line {number}.",
                "The line is not a JSON object.",
                "Delete that line: its sample is asked again at the next start, the others stay.",
            )
        rows.append(row)
    return rows


def append_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows in one write and flushes them to the disk; cuts off what a failed or killed write left."""
    if not rows:
        return
    data = "".join(dump(row) + "\n" for row in rows).encode()
    try:
        with file.open("ab+", buffering=0) as out:
            end = _end_of_last_line(out)
            out.truncate(end)
            try:
                while data:
                    data = data[out.write(data) :]
                os.fsync(out.fileno())
            except OSError:
                out.truncate(end)
                raise
    except OSError as error:
        raise _cannot_write(file, error) from error


def replace_file(file: Path, text: str) -> None:
    """Writes `text` so that a reader sees the old content or the new, never a part."""
    temporary = file.with_name(file.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(file, error) from error


def replace_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `file` by `rows` as JSON lines."""
    replace_file(file, "".join(dump(row) + "\n" for row in rows))


def write_json(file: Path, value: Any) -> None:
    """Replaces `file` by `value` as indented JSON."""
    replace_file(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _end_of_last_line(out: Any) -> int:
    """The offset after the last line end of a file opened for reading."""
    position: int = out.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 65536)
        out.seek(start)
        newline: int = out.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises StoreError where it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(
            f"{file} is not readable.", f"It is not JSON: {error}.", "Restore it, or run again in a new folder."
        ) from error


def _build(kind: type[T], row: Mapping[str, Any]) -> T:
    names: Iterable[str] = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in row.items() if key in names})


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 48 else text[:47] + "…"


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written.",
        f"The system says: {os_reason(error)}.",
        "Free space or mend the permissions, then start the same command again: what was answered is kept.",
    )
