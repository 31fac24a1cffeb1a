"""A pytest plugin: `pytest --bench-model PATH --bench-ref FILE` gates a checkpoint in your tests.

    def test_the_checkpoint_is_no_worse(bench_gate):
        assert bench_gate.passed, bench_gate.report

Tests that use the fixture are skipped if neither option is given. Nothing of the package is
imported before the fixture is used, so that projects that do not use it, or have a folder `bench`
of their own, pay nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from leaderboards.gate import Check


MODEL_OPTIONS = ("protocol", "decoding", "device", "dtype")


@dataclass(frozen=True)
class Gate:
    """The outcome of a gate: its checks, and the report to show if it fails."""

    checks: Sequence[Check]
    report: str

    @property
    def passed(self) -> bool:
        """Whether every check passed; caveats are told and no check."""
        from leaderboards import gate

        return gate.outcome(self.checks) == "passed"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the gate."""
    group = parser.getgroup("synth-align", "regression gate for vision-language models")
    group.addoption("--bench-model", help="model to gate: hub id or folder, +ADAPTER for LoRA")
    group.addoption(
        "--bench-ref", type=Path, help="reference, made by `bench check RUN --save FILE`"
    )
    group.addoption("--bench-margins", type=Path, help="YAML of margins, floors and drift")
    group.addoption("--bench-judge", help="judge, if the reference's benchmarks need one")
    group.addoption("--bench-data", help="hub, scenes or a folder; default: the reference's")
    group.addoption("--bench-images", type=Path, help="images, if not under the data's images/")
    for name in MODEL_OPTIONS:
        group.addoption(f"--bench-{name}", help=f"as --{name} of `bench run`")
    group.addoption(
        "--bench-out", type=Path, help="folder of the run, to resume it; default: a temporary one"
    )


@pytest.fixture(scope="session")
def bench_gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """Runs --bench-model on the benchmarks of --bench-ref and checks it against that."""
    option = request.config.getoption
    model, reference_file = option("--bench-model"), option("--bench-ref")
    if not model and not reference_file:
        pytest.skip("no --bench-model and no --bench-ref")
    if not model or not reference_file:
        pytest.fail(
            "--bench-model and --bench-ref belong together; `bench check RUN --save FILE` makes a "
            "reference",
            pytrace=False,
        )
    try:
        from bench.errors import BenchError
        from bench.runs.jobs import judge_for, load_model
        from bench.runs.suites import run_suite
        from leaderboards import gate
    except ImportError as error:
        pytest.fail(
            f"synth-align cannot be imported: {error}. A folder `bench`, `reports` or "
            "`leaderboards` of this project hides it: run `pytest` (not `python -m pytest`) from a "
            "folder that has none, rename the folder, or call the `bench` command.",
            pytrace=False,
        )

    try:
        references = gate.read_reference(reference_file)
        margins = gate.read_margins(option("--bench-margins"), references)
        out = option("--bench-out") or tmp_path_factory.mktemp("bench")
        adapter = load_model(model, {name: option(f"--bench-{name}") for name in MODEL_OPTIONS})
        # Data and limit are the reference's, or the comparison would be refused.
        for name, reference in references.items():
            record = reference.record
            data = option("--bench-data") or record["source"]["data"]
            judge = judge_for(option("--bench-judge"), data)
            images = option("--bench-images")
            run_suite(
                [name], adapter, judge, data, record["limit"], out, record.get("subsets"), images
            )
        checks = gate.check(gate.recorded(out), references, margins)
    except BenchError as error:
        pytest.fail(str(error), pytrace=False)
    return Gate(checks, gate.as_text(checks))
