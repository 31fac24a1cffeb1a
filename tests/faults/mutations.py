"""Inputs that are nearly right: what truncation, editors, other programs and malice make of a file.

Every mutation is drawn from a generator with a seed, so that a failure can be had again.
"""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

BYTES = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"{",
    b"]",
    b"\xe2\x80\xa8",
    b"\x1b[31m",
    b"NaN",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3.5,
    1e308,
    10**40,
    float("nan"),
    float("inf"),
    "",
    "yes",
    "12",
    "\x1b[31mred",
    "a\x00b",
    "\ud800",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "<img src=x onerror=alert(1)>",
    "x" * 100_000,
    "é\u202e\u2028",
    [],
    {},
    [[]],
    ["a", 1, None],
    {"a": {"b": [1, 2, {"c": None}]}},
    {"name": "x"},
)
DEPTH = 3000


def mutated(content: bytes, name: str, rng: random.Random) -> bytes:
    """The content of a file after one or several mutations.

    Args:
        content: Of the valid file.
        name: Its name; the ending says what it is.
        rng: The source of all choices.
    """
    structured = _structured(name)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if structured is not None and rng.random() < 0.75:
            content = structured(content, rng)
        else:
            content = rng.choice(_BYTEWISE)(content, rng)
    return content


def _structured(name: str) -> Callable[[bytes, random.Random], bytes] | None:
    if name.endswith((".json", ".jsonl", ".ipynb")):
        return _json
    if name.endswith((".yaml", ".yml")):
        return _yaml
    if name.endswith((".txt", ".csv", ".tsv", ".jinja")):
        return _lines
    if name.endswith((".xlsx", ".zip")):
        return _archive
    if name.endswith(".parquet"):
        return _parquet
    return None


def _json(content: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(content)
        return _dumped(_changed(value, rng), rng)
    except (ValueError, RecursionError):
        pass
    # JSON lines: some line of them.
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    try:
        lines[number] = _dumped(_changed(json.loads(lines[number]), rng), rng)
    except (ValueError, RecursionError):
        return _lines(content, rng)
    return b"\n".join(lines)


def _dumped(value: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.03:
        return b"[" * DEPTH + b"]" * DEPTH
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _yaml(content: bytes, rng: random.Random) -> bytes:
    try:
        value = yaml.safe_load(content)
        text = yaml.safe_dump(_changed(value, rng), allow_unicode=True)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return _lines(content, rng)
    if rng.random() < 0.03:
        return b"a: " + b"[" * DEPTH + b"]" * DEPTH
    return text.encode("utf-8", "replace")


def _changed(value: Any, rng: random.Random) -> Any:
    """A value with one thing in it replaced, left out, renamed or doubled."""
    places: list[tuple[Any, Any]] = []

    def walk(item: Any) -> None:
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, below in list(pairs)[:2000]:
            places.append((item, key))
            if isinstance(below, dict | list):
                walk(below)

    if not isinstance(value, dict | list) or not value or rng.random() < 0.03:
        return rng.choice(VALUES)
    walk(value)
    holder, key = rng.choice(places)
    how = rng.random()
    if how < 0.6:
        holder[key] = rng.choice(VALUES)
    elif how < 0.75:
        del holder[key]
    elif how < 0.85 and isinstance(holder, dict):
        holder[str(rng.choice(("x", "", "name", "A" * 300, "\x1b[0m")))] = holder.pop(key)
    elif how < 0.95 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), json.loads(json.dumps(holder[key])))
    else:
        holder[key] = {"x": holder[key]} if rng.random() < 0.5 else [holder[key]]
    return value


def _lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    how = rng.randrange(5)
    if how == 0:
        del lines[number]
    elif how == 1:
        lines.insert(number, lines[rng.randrange(len(lines))])
    elif how == 2:
        lines[number] = str(rng.choice(VALUES)).encode("utf-8", "surrogatepass")
    elif how == 3:
        lines[number] = lines[number][: rng.randrange(len(lines[number]) + 1)]
    else:
        rng.shuffle(lines)
    return b"\n".join(lines)


def _archive(content: bytes, rng: random.Random) -> bytes:
    """A zip archive with a member mutated, left out, renamed or there twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    # What an earlier mutation left may be no archive any more.
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, zlib.error):
        return _flip(content, rng)
    number = rng.randrange(len(members))
    name, inside = members[number]
    how = rng.random()
    if how < 0.6:
        members[number] = name, rng.choice((_lines, *_BYTEWISE))(inside, rng)
    elif how < 0.75:
        del members[number]
    elif how < 0.9:
        members[number] = rng.choice(("../../out", "/etc/x", "x/", f"{name}\x1b[31m")), inside
    else:
        members.append(rng.choice(members))
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # a name that is there twice
        for name, inside in members:
            archive.writestr(name, inside)
    return made.getvalue()


def _parquet(content: bytes, rng: random.Random) -> bytes:
    """A table with a value changed, as far as a column's type allows; else its bytes."""
    try:
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
        made = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(_changed(rows, rng)), made)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError, OSError):
        return rng.choice(_BYTEWISE)(content, rng)
    return made.getvalue()


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    place = rng.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    )


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(BYTES) + content[place:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.randrange(1, 200))
    return content[:end] + content[start:end] * rng.choice((1, 3, 50)) + content[end:]


def _empty(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\n", b" ", b"null", b"[]", b"{}", b"0", b'""', b"\xef\xbb\xbf"))


def _encoded(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32")), "replace"
    )


_BYTEWISE = (_flip, _flip, _cut, _insert, _repeat, _empty, _encoded)
