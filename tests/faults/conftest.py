"""How many faults the harnesses make, and from which seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data.source_table import BASE_VARIABLE
from tests.conftest import SHARED
from tests.faults.commands import DOWNLOADED, make_base
from tests.loopback_files import serve
from tests.unit.test_data_get import on_the_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=300, help="how many faults a harness makes")
    parser.addoption("--fault-seed", type=int, default=0, help="from which they are drawn")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the commands work on, made once for all of a harness; a server has what they download."""
    files = on_the_server(SHARED, DOWNLOADED) if SHARED.is_dir() else {}
    with serve(files) as (address, _), pytest.MonkeyPatch.context() as patch:
        patch.setenv(BASE_VARIABLE, address)
        yield make_base(tmp_path_factory.mktemp("base"))
