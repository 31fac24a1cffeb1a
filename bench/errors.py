"""Errors that a user can act on: each states a fact, a reason and a remedy."""

from __future__ import annotations

from typing import Any


class BenchError(Exception):
    """Something the user can put right.

    Args:
        fact: What happened.
        reason: Why it happened.
        remedy: What to do about it.
    """

    def __init__(self, fact: str, reason: str = "", remedy: str = "") -> None:
        self.fact, self.reason, self.remedy = fact, reason, remedy
        super().__init__("\n".join(part for part in (fact, reason, remedy) if part))


class UnknownNameError(BenchError):
    """A name that no registry table holds."""


class DataError(BenchError):
    """Questions, images or annotations that are missing, corrupt or inconsistent."""


class StoreError(BenchError):
    """A run folder that cannot be used as asked."""


class ModelError(BenchError):
    """A model, adapter or protocol that cannot be loaded or asked."""


class JudgeError(BenchError):
    """A judge that cannot be reached or configured."""


def os_reason(error: BaseException) -> str:
    """The operating system's own words for `error`, without the errno noise."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def faults_of(error: Any) -> str:
    """All that pydantic finds wrong, each with its field."""
    faults = []
    for fault in error.errors():
        faults.append(f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}")
    return "; ".join(faults)


def first_fault_of(error: Any) -> str:
    """What pydantic finds wrong first, where, and what stands there."""
    fault = error.errors(include_url=False)[0]
    steps = []
    for step in reversed(fault["loc"]):  # from the innermost outwards; items count from 1
        steps.append(str(step + 1 if isinstance(step, int) else step))
    where = " of ".join(steps) or "the whole"
    return f"{fault['msg']}: {where} is {fault['input']!r:.60}."


def one_line(error: object, length: int = 300) -> str:
    """What an error says, on one line of at most `length` characters; its type if it says nothing.

    Libraries put whole paragraphs into their messages; a terminal line shows the beginning.
    """
    text = " ".join(str(error).split())[:length]
    return text or type(error).__name__


def first_line(error: object) -> str:
    """The first line of what an error says, for paragraphs of which that says what happened."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0] if lines else error)
