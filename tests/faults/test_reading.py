"""Thousands of inputs that are nearly right: each is read, or refused with one clear error."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alignment.training.checkpoints import DIGESTS
from bench.files import digests_below, indented
from bench.runs.seal import OWN, contents_of, seal, with_digest
from tests.conftest import ROOT
from tests.faults import forked, inputs
from tests.faults.mutations import mutated

pytestmark = pytest.mark.slow
ESCAPE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
FLOOD = 200_000  # characters on a terminal
REFUSED = re.compile(r"^ error: .+\nreason: .+\nremedy: .", re.MULTILINE | re.DOTALL)


def fault_of(outcome: forked.Outcome, words: tuple[str, ...]) -> str | None:
    """What is wrong with how a command ended, None if nothing is."""
    if "Traceback" in outcome.err or outcome.code == 70:
        lines = [line.strip() for line in outcome.err.strip().splitlines()]
        ours = [line for line in lines if line.startswith(f'File "{ROOT}')]
        error = next((line for line in reversed(lines) if ERROR.match(line)), "")
        return f"traceback {error[:120]} at {ours[-1].split('/', 3)[-1] if ours else '?'}"
    if outcome.code < 0:
        return f"killed by signal {-outcome.code} after {outcome.seconds:.0f} s"
    if outcome.memory > forked.MEMORY:
        return f"{outcome.memory / 2**20:.0f} MiB"
    if len(outcome.out) + len(outcome.err) > FLOOD:
        return f"{len(outcome.out) + len(outcome.err)} characters"
    if ESCAPE.search(outcome.out.replace("\r", "")) or ESCAPE.search(outcome.err.replace("\r", "")):
        return "control characters on the terminal"
    has_found = words[:2] == ("data", "check") and outcome.out
    if outcome.code == 2 and not REFUSED.search(outcome.err) and not has_found:
        return f"exit code 2 without three lines: {outcome.err[-200:]!r}"
    if outcome.code == 0 and "--json" in words:
        return fault_of_json(outcome.out)
    return None


def fault_of_json(text: str) -> str | None:
    """What is wrong with the JSON of a command that ended well."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return f"no JSON: {error}"
    return None if is_possible(value) else "a fraction outside 0 and 1"


def is_possible(value: Any) -> bool:
    """Whether each value whose unit is a fraction lies between 0 and 1."""
    if isinstance(value, list):
        return all(map(is_possible, value))
    if not isinstance(value, dict):
        return True
    number = value.get("value")
    is_fraction = value.get("unit") == "fraction" and isinstance(number, int | float)
    if is_fraction and not (math.isfinite(number) and -1e-9 <= number <= 1 + 1e-9):
        return False
    return all(map(is_possible, value.values()))


def words_of(item: inputs.Input, here: Path) -> tuple[str, ...]:
    """The command that reads an input."""
    return tuple(word.format(here=here, out=here.parent / "out") for word in item.words)


def mutate(here: Path, item: inputs.Input, seed: str) -> None:
    """Puts one mutation of an input in the place of the valid one.

    Half of the times the digests are made anew: what the file holds is then read, and not refused.
    """
    file, rng = here / item.file, random.Random(seed)
    file.write_bytes(mutated(file.read_bytes(), file.name, rng))
    if rng.random() < 0.5:
        # What is no JSON any more has no digest.
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            seal_anew(file)


def seal_anew(file: Path) -> None:
    """Gives what was mutated the digests of what is written so."""
    metrics, digests = file.with_name("metrics.json"), file.with_name(DIGESTS)
    if file == metrics or file.name == "reference.json":
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(indented(with_digest({k: content[k] for k in content if k != OWN})))
    elif metrics.is_file():
        figures = json.loads(metrics.read_text(encoding="utf-8"))["metrics"]
        metrics.write_text(indented(seal(contents_of(file.parent), figures)))
    elif digests.is_file() and file != digests:
        names = [path for path in file.parent.iterdir() if path != digests]
        digests.write_text(json.dumps(digests_below(file.parent, names)))


def restore(here: Path, item: inputs.Input, valid: Path) -> None:
    """Puts back what a mutation and its command have changed."""
    folder = Path(item.changes or Path(item.file).parent)
    shutil.rmtree(here / folder)
    shutil.copytree(valid / folder, here / folder)
    if item.changes:
        shutil.copy(valid / item.file, here / item.file)
    shutil.rmtree(here.parent / "out", ignore_errors=True)


def test_every_input_is_read_as_it_is(tmp_path):
    """An input that is refused before anything is changed in it would test nothing."""
    from bench.cli import main  # noqa: F401

    here = tmp_path / "inputs"
    kinds = inputs.make(here)
    valid = shutil.copytree(here, tmp_path / "valid", symlinks=True)
    for item in {item.words: item for item in kinds}.values():
        words = words_of(item, here)
        outcome = forked.run(words)
        assert outcome.code in (0, 3), f"{words}: {outcome.err}"
        restore(here, item, valid)


def test_every_mutated_input_is_read_or_refused(tmp_path, pytestconfig):
    from bench.cli import main  # noqa: F401

    here = tmp_path / "inputs"
    kinds = inputs.make(here)
    valid = shutil.copytree(here, tmp_path / "valid", symlinks=True)
    asked, first = pytestconfig.getoption("--faults"), pytestconfig.getoption("--fault-seed")
    weights = [item.cost for item in kinds]
    rng = random.Random(first)
    found: dict[str, list[str]] = {}
    for number in range(asked):
        (item,) = rng.choices(kinds, weights)
        mutate(here, item, f"{first}-{number}")
        words = words_of(item, here)
        fault = fault_of(forked.run(words), words)
        restore(here, item, valid)
        if fault is not None:
            found.setdefault(fault, []).append(f"{item.name} {first}-{number}")
    lines = [f"{len(where)} × {fault}: {where[0]}" for fault, where in found.items()]
    (tmp_path / "found.txt").write_text("\n".join(sorted(lines, reverse=True)))
    assert not found, "\n".join(sorted(lines, reverse=True))
