"""A pytest plugin: `pytest --bench-model PATH --bench-ref FILE` gates a checkpoint in your tests.

    def test_the_checkpoint_is_no_worse(bench_gate):
        assert bench_gate.passed, bench_gate.report

Tests that use the fixture are skipped if no model is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from leaderboards.gate import Check


@dataclass(frozen=True)
class Gate:
    """The outcome of a gate: its checks, and the report to show if it fails."""

    checks: Sequence[Check]
    report: str

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(item.verdict == "passed" for item in self.checks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the gate."""
    group = parser.getgroup("synth-align", "regression gate for vision-language models")
    group.addoption("--bench-model", help="model to gate: hub id or folder, +ADAPTER for LoRA")
    group.addoption(
        "--bench-ref", type=Path, help="reference, made by `bench check RUN --save FILE`"
    )
    group.addoption("--bench-margins", type=Path, help="YAML of margins, floors and drift")
    group.addoption("--bench-judge", help="judge, if the reference's benchmarks need one")
    group.addoption(
        "--bench-out", type=Path, help="folder of the run, to resume it; default: a temporary one"
    )


@pytest.fixture(scope="session")
def bench_gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Runs --bench-model on the benchmarks of --bench-ref and checks it against that."""
    option = request.config.getoption
    if not option("--bench-model"):
        pytest.skip("no --bench-model")
    if not option("--bench-ref"):
        raise pytest.UsageError(
            "--bench-model needs --bench-ref, made by `bench check RUN --save FILE`"
        )
    # A project that only has the package installed must not pay for importing it.
    from bench.errors import BenchError
    from bench.runs.jobs import judge_for, load_model, run_suite
    from leaderboards import gate

    try:
        references = gate.read_reference(option("--bench-ref"))
        margins = gate.read_margins(option("--bench-margins"), references)
        out = option("--bench-out") or tmp_path_factory.mktemp("bench")
        model = load_model(option("--bench-model"), {})
        # Data and limit are the reference's, or the comparison would be refused.
        for name, reference in references.items():
            data, limit = reference.record["source"]["data"], reference.record["limit"]
            judge = judge_for(option("--bench-judge"), data)
            subsets = reference.record.get("subsets")
            run_suite([name], model, judge, data, limit, out, subsets)
        checks = gate.check(gate.recorded(out), references, margins)
    except BenchError as error:
        raise pytest.UsageError(str(error)) from error
    return Gate(checks, gate.as_text(checks))
