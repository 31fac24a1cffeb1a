"""How many faults the harnesses make, and from which seed."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=300, help="how many faults a harness makes")
    parser.addoption("--fault-seed", type=int, default=0, help="from which they are drawn")
