"""How many faults the harnesses make, and from which seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.commands import make_base


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=300, help="how many faults a harness makes")
    parser.addoption("--fault-seed", type=int, default=0, help="from which they are drawn")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands work on, made once for all of a harness."""
    return make_base(tmp_path_factory.mktemp("base"))
