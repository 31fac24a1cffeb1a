"""Two commands at once on one folder: both do their work, or one says in one clear error that the other is at it.

Whatever their order was, the same commands one after the other must then end as if nothing had been.
"""

from __future__ import annotations

import itertools
import random
import shutil

import pytest

from tests.faults import forked
from tests.faults.commands import NAMES, SECONDS, command_in, differing, ended, prepare

pytestmark = pytest.mark.slow
ONCE = ("scenes", "convert")  # they refuse a folder that is done
PAIRS = list(itertools.combinations_with_replacement(NAMES, 2))


def test_two_commands_at_once(base, tmp_path, pytestconfig):
    from bench.cli import main  # noqa: F401

    asked = min(len(PAIRS), max(6, pytestconfig.getoption("--faults") // 10))
    rng = random.Random(pytestconfig.getoption("--fault-seed"))
    found = []
    for names in rng.sample(PAIRS, asked):
        expected = None
        for at_once in (False, True):
            here = tmp_path / "work" / "here"
            first, second = prepare(base, here, names[0]), command_in(here, names[1])
            if at_once:
                starts = [forked.started(command, SECONDS) for command in (first, second)]
                for start in starts:
                    outcome = start.result()
                    is_told = outcome.code in (0, 3) or "error:" in outcome.err
                    if not is_told or "Traceback" in outcome.err or outcome.code == 70:
                        found.append(f"{names}: {outcome.code}: {outcome.err[-500:]}")
            for name, command in zip(names, (first, second), strict=True):
                outcome = forked.in_child(command, SECONDS)
                is_there = name in ONCE and "is not empty" in outcome.err
                if outcome.code not in (0, 3) and not is_there:
                    found.append(f"{names}, afterwards: {outcome.code}: {outcome.err[-500:]}")
            left = ended(here)
            if expected is not None:
                wrong = differing(left, expected)
                if wrong:
                    found.append(f"{names}: other content in {', '.join(wrong[:6])}")
            expected = left
            shutil.rmtree(here)
    assert not found, f"{len(found)} in {asked} pairs:\n" + "\n".join(found)
