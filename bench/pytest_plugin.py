"""A pytest plugin: `pytest --bench-model PATH --bench-ref FILE` gates a checkpoint in anybody's tests.

    def test_the_checkpoint_is_no_worse(bench_gate):
        assert bench_gate.passed, bench_gate.report

Tests that use the fixture are skipped where no model is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Gate:
    """The outcome of a gate: `checks` as `leaderboards.gate.Check`, `report` to show where it fails."""

    checks: list[Any]
    report: str

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(item.passed for item in self.checks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the gate."""
    group = parser.getgroup("synth-align", "regression gate for vision-language models")
    group.addoption("--bench-model", help="model to gate: hub id or folder, +ADAPTER for LoRA")
    group.addoption("--bench-ref", type=Path, help="reference, made by `bench check RUN --save FILE`")
    group.addoption("--bench-margins", type=Path, help="YAML of margins, floors and drift")
    group.addoption("--bench-judge", help="judge, where the reference's benchmarks need one")
    group.addoption("--bench-out", type=Path, help="folder of the run, to resume it; default: a temporary one")


@pytest.fixture(scope="session")
def bench_gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Runs --bench-model on the benchmarks of --bench-ref and checks it against that."""
    option = request.config.getoption
    if not option("--bench-model"):
        pytest.skip("no --bench-model")
    if not option("--bench-ref"):
        raise pytest.UsageError("--bench-model needs --bench-ref, made by `bench check RUN --save FILE`")
    from bench.compose import judge_for, load_judge, load_model, run_suite
    from bench.errors import BenchError
    from leaderboards import gate

    try:
        against = gate.read_reference(option("--bench-ref"))
        margins = gate.read_margins(option("--bench-margins"))
        out = option("--bench-out") or tmp_path_factory.mktemp("bench")
        model = load_model(option("--bench-model"), {})
        for name, reference in against.items():
            data, limit = reference.record["source"]["data"], reference.record["limit"]
            judge = load_judge(judge_for(option("--bench-judge"), data), None)
            run_suite([name], model, judge, data, limit, out)
        checks = gate.check(gate.recorded(out), against, margins)
    except BenchError as error:
        raise pytest.UsageError(str(error)) from error
    return Gate(checks, gate.as_text(checks))
