"""JSON, JSON lines and text files: read with errors that name the line, written crash-safe.

Two kinds of files are read. Ours (`read_json`, `read_lines`) were written by this package; a fault
in one is a StoreError. Other people's (`read_rows`) are official question files and recorded
answers; a fault in one is a DataError.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, overload

from bench.errors import DataError, StoreError, first_fault_of, one_line, os_reason
from bench.escaping import in_all_texts

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Kind = TypeVar("Kind")
TEMPORARY = ".tmp"  # ends the name of what `replace_file` has not renamed yet
UNFINISHED = ".unfinished"  # in a folder that is being written
WRITING = ".writing.lock"  # the lock of the process that writes it
RESTORE = "Restore the file from its source."
SHA256 = re.compile(r"[0-9a-f]{64}")
CACHED_FROM = 2**25  # bytes, which take 20 ms to hash
TAIL_BLOCK = 65536  # bytes that are read at a time to find the last line end


def dump(value: Any) -> str:
    """Canonical one-line JSON; lone surrogates in model text are replaced, NaN is refused."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def parse_json(text: str | bytes, constant: Callable[[str], Any] | None = None) -> Any:
    """The content of a JSON text.

    Args:
        text: The text.
        constant: Gets NaN, Infinity and -Infinity, which are no JSON and which some write all the
            same; None takes them as Python does.

    Raises:
        ValueError: It is no JSON, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(file: Path, kind: type[Kind]) -> Kind:
    """The content of one of our JSON files. Raises StoreError if it is not JSON of that kind."""
    content: Kind = json_of(file.read_bytes(), file)
    check_ours(kind, content, file)
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}")


def json_of(data: bytes, file: Path) -> Any:
    """As `read_json`, of a content that was read already."""
    try:
        return parse_json(data.decode(), _refuse_constant)
    except ValueError as error:
        raise StoreError(
            f"{file} is not readable.",
            f"It is not JSON: {error}.",
            "Restore it, or run again in a new folder.",
        ) from error


@overload
def read_lines(file: Path) -> list[dict[str, Any]]: ...
@overload
def read_lines(file: Path, kind: type[Kind]) -> list[Kind]: ...
def read_lines(file: Path, kind: Any = None) -> list[Any]:
    """The objects of one of our JSON-lines files, none if it does not exist.

    A torn last line (no line end, from a kill in the middle of a write) is dropped with a warning.

    Args:
        file: The file.
        kind: Of each row, a TypedDict; it may have more.

    Raises:
        StoreError: Any other line is corrupt or of another kind.
    """
    rows = lines_of(file.read_bytes(), file) if file.exists() else []
    if kind is not None:
        check_ours(list[kind], rows, file)
    return rows


def lines_of(data: bytes, file: Path) -> list[dict[str, Any]]:
    """As `read_lines`, of a content that was read already."""
    body, _, torn = data.rpartition(b"\n")
    if torn:
        warnings.warn(f"{file}: dropped a torn last line of {len(torn)} bytes", stacklevel=2)
    rows: list[dict[str, Any]] = []
    if not body:
        return rows
    # Only "\n" ends a line: splitlines() would also cut at U+2028 and kin inside a model's answer.
    for number, line in enumerate(body.split(b"\n"), start=1):
        try:
            row = parse_json(line, _refuse_constant)
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
    """Appends rows in one write and flushes them to the disk.

    What a failed or killed write left behind the last line end is cut off first. Raises StoreError
    if the file cannot be written; it then holds what it held before.
    """
    if not rows:
        return
    data = "".join(dump(row) + "\n" for row in rows).encode()
    try:
        with file.open("ab+", buffering=0) as out:
            end = _end_of_last_line(out)
            out.truncate(end)
            try:
                # An unbuffered write may take only a part, for one on a disk that is nearly full.
                while data:
                    data = data[out.write(data) :]
                os.fsync(out.fileno())
            except OSError:
                out.truncate(end)
                raise
    except OSError as error:
        raise cannot_write(file, error) from error


def sha256_of(file: Path) -> str:
    """A file's sha256, read in pieces."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest_of(file: Path) -> str:
    """A file's sha256; of a large one computed once for its path, size and time of change."""
    status = file.stat()
    if status.st_size < CACHED_FROM:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    key = f"{file.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    cached = _digests_folder() / hashlib.sha256(key.encode()).hexdigest()
    try:
        known = cached.read_text(encoding="utf-8")
        if SHA256.fullmatch(known):
            return known
    except (OSError, ValueError):
        pass  # it was never computed
    digest = sha256_of(file)
    # A cache that cannot be written costs time and nothing else.
    with suppress(OSError, StoreError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cached, digest)
    return digest


def _digests_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "synth-align" / "sha256"


def digests_below(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The sha256 of files, by their path in the folder, with "/"."""
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def replace_file(file: Path, content: str | bytes) -> None:
    """Writes a content so that a reader sees the old one or the new, never a part of either.

    A device or a pipe is written to and not replaced.
    """
    # A path may hold bytes that are no text.
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    # Beside the file, so that the rename stays on one file system.
    temporary = file.with_name(file.name + TEMPORARY)
    try:
        if file.exists() and not file.is_file():
            file.write_bytes(data)
            return
        with _held(temporary):
            try:
                with temporary.open("wb") as out:
                    out.write(data)
                    out.flush()
                    # Without it a crash may leave an empty file behind the rename.
                    os.fsync(out.fileno())
                temporary.replace(file)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise cannot_write(file, error) from error


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """One process at a time has the file of that name, until it is renamed or removed."""
    try:
        from fcntl import LOCK_EX, flock  # not everywhere
    except ImportError:
        yield
        return
    # Some file systems number a file anew at every look: they must not hold anybody up for ever.
    for _ in range(1000):
        with file.open("ab") as held:
            with suppress(OSError):  # not every file system has locks
                flock(held, LOCK_EX)
            if _is_at(held, file):
                yield
                return
    yield


def _is_at(opened: IO[bytes], file: Path) -> bool:
    """Whether an open file still has that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened.fileno()), file.stat())
    return False


def remove_temporary(folder: Path) -> None:
    """Removes what kills have left of `replace_file` in a folder."""
    for file in folder.rglob(f"*{TEMPORARY}"):
        file.unlink()


def write_data(file: Path, content: str) -> None:
    """Writes a file of data; nothing happens if it is there already.

    Raises DataError if another one is there: it may be somebody's own, or an official one.
    """
    if file.is_file():
        if file.read_bytes() == content.encode("utf-8", "replace"):
            return
        raise DataError(
            f"{file} is there already.",
            "It is another one, and may not be had again.",
            "Name another folder, or move it away.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, content)


def replace_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `file` by `rows` as JSON lines."""
    replace_file(file, "".join(dump(row) + "\n" for row in rows))


def write_json(file: Path, value: Any) -> None:
    """Replaces `file` by `value` as indented JSON, see `indented`."""
    replace_file(file, indented(value) + "\n")


def indented(value: Any) -> str:
    """Indented JSON; what is not known (NaN, which JSON has not) is null."""
    text = json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_without_nan, value))
    return None if isinstance(value, float) and math.isnan(value) else value


def _end_of_last_line(out: IO[bytes]) -> int:
    """The offset behind the last line end of a file opened for reading."""
    position = out.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - TAIL_BLOCK)
        out.seek(start)
        newline = out.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


@contextmanager
def locked(file: Path, held: str, report: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock file; as long as another process has it, waits.

    Args:
        file: The lock; its folder must be there.
        held: What is told while waiting.
        report: Gets that line.

    Raises:
        StoreError: The file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"{held}; waiting until it is done")
            lock.acquire()
    except OSError as error:
        raise cannot_write(file, error) from error
    try:
        yield
    finally:
        lock.release()


def lay_out(target: Path, build: Callable[[Path], object]) -> None:
    """Builds a folder beside its place and moves it there when it is whole, unless it is there.

    A second process waits and then finds it done; what a killed one left is removed.

    Args:
        target: The folder.
        build: Fills the folder that it is given, which it makes.
    """
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent.with_suffix(".lock")):
        if target.is_dir():
            return
        for leftover in target.parent.glob("*.part"):
            shutil.rmtree(leftover)
        unfinished = target.with_name(f"{target.name}.part")
        try:
            build(unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def folder_of_its_own(out: Path, asked: str, report: Callable[[str], None]) -> Iterator[None]:
    """Makes a folder for what is written inside; until that is whole, a file in it says so.

    What the same command left there when it was killed is removed first. A second process waits.

    Args:
        out: A new or empty folder, or one that was left so.
        asked: What is written, the same for the same command.
        report: Gets a line while another process writes there.

    Raises:
        StoreError: It holds something else.
    """
    mark, lock, content = out / UNFINISHED, out / WRITING, os.fsencode(f"{asked}\n")
    _check_is_free(out, content)
    out.mkdir(parents=True, exist_ok=True)
    if _is_mark(lock, content):
        # Its writer was killed between the last two lines, or is just about to end.
        with suppress(FileNotFoundError):
            lock.replace(mark)
    with locked(lock, f"another process writes {out}", report):
        try:
            _check_is_free(out, content)  # the other one may have written it
        except StoreError:
            lock.unlink(missing_ok=True)
            raise
        mark.write_bytes(content)
        for path in sorted(out.iterdir()):
            if path not in (mark, lock):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
        mark.replace(lock)  # so that the one file that is left is a mark
        # Whoever waits for it finds a folder that is not empty.
        lock.unlink(missing_ok=True)


def _check_is_free(out: Path, content: bytes) -> None:
    """Raises StoreError if a folder holds something else than an unfinished one of that mark."""
    mark, lock = out / UNFINISHED, out / WRITING
    # On a full disk half of the mark is written, and nothing else.
    if mark.is_file() and content.startswith(mark.read_bytes()):
        return
    if _is_mark(lock, content):
        return
    if out.exists() and (not out.is_dir() or set(out.iterdir()) - {lock}):
        raise StoreError(
            f"{out} is not empty.", "What is written would mix with it.", "Name a new folder."
        )


def _is_mark(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False


def cannot_write(path: Path, error: OSError) -> StoreError:
    """The error for a file or folder that the system does not let us write."""
    return StoreError(
        f"{path} cannot be written.",
        f"The system says: {os_reason(error)}.",
        "Free space or change the permissions, then start the same command again: "
        "what was answered is kept.",
    )


def read_text(file: Path) -> str:
    """Somebody's text. Raises DataError if it cannot be read or is not UTF-8."""
    try:
        # Editors on Windows put a mark in front.
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else one_line(error)
        raise DataError(f"{file} cannot be read.", f"{reason}.", RESTORE) from error


def without_surrogates(value: Any) -> Any:
    """Half a character ("\\ud800") is none: nothing can be made of it, neither tokens nor bytes."""
    return in_all_texts(value, lambda text: text.encode("utf-8", "replace").decode())


def read_rows(file: Path, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of somebody's JSON array or JSON-lines file, whichever it is.

    Args:
        file: The file.
        fields: What every row must have, and of which type; it may have more.

    Raises:
        DataError: Names the line or item that is truncated, is not JSON, lacks a field or has
            another type there.
    """
    from pydantic import ConfigDict, create_model

    text = read_text(file)
    # The suffix says little: POPE's .json files are JSON lines.
    rows = _array(file, text) if text.lstrip().startswith("[") else _lines(file, text)
    if "\\ud" in text.lower():
        rows = without_surrogates(rows)
    if not rows:
        raise DataError(f"{file} is empty.", "It holds no question.", RESTORE)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{file}: item {number} is not a JSON object.", f"It is {row!r:.60}.", RESTORE
            )
        missing = [name for name in fields if row.get(name) is None]
        if missing:
            raise DataError(
                f"{file}: item {number} has no {', '.join(missing)}.",
                f"Every item needs {', '.join(fields)}.",
                "Complete the item or restore the file from its source.",
            )
    kinds = {name: (kind, ...) for name, kind in fields.items()}
    strict = ConfigDict(strict=True)
    check_types(list[create_model("Item", __config__=strict, **kinds)], rows, file)  # type: ignore[call-overload, misc]
    return rows


def check_ours(kind: Any, content: Any, file: Path) -> None:
    """As `check_types`, of a file that this package wrote. Raises StoreError."""
    fault = type_fault(kind, content)
    if fault:
        raise StoreError(
            f"{file} is not as it was written.",
            fault,
            "Restore it, or delete its folder and start the same command again.",
        )


def type_fault(kind: Any, content: Any) -> str | None:
    """What in a content is of another type and where, None if nothing is."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        return first_fault_of(error)
    return None


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once for each type: that of a run's record takes 5 ms."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def check_types(kind: Any, content: Any, file: Path) -> None:
    """Raises DataError if the content of somebody's file is of another type, naming the place.

    Args:
        kind: A type, as `dict[str, list[int]]`.
        content: What was parsed.
        file: The file.
    """
    fault = type_fault(kind, content)
    if fault:
        raise DataError(
            f"{file} is not as published.",
            fault,
            "Write it as the source does, or restore the file from there.",
        )


def _array(file: Path, text: str) -> list[Any]:
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise DataError(
            f"{file} is truncated or corrupt.", f"It is not JSON: {error}.", RESTORE
        ) from error
    return list(rows)


def _lines(file: Path, text: str) -> list[Any]:
    rows = []
    # Only "\n" ends a line: a model's answer may hold U+2028 and kin.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise DataError(
                f"{file} is truncated or corrupt in line {number}.",
                f"The line is not JSON: {error}.",
                RESTORE,
            ) from error
    return rows
