"""Finished runs in trackers, offline: what their own libraries read is what was measured."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

from bench.integrations.trackers import figures_of_run, track
from bench.runs.run import Run
from tests.conftest import bench, metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was sent to TensorBoard by the command itself."""
    folder = tmp_path_factory.mktemp("track")
    words = ("run", "--model", "llava-tiny", "--suite", "pope", "--data", "scenes", "--limit", "30")
    done = bench(*words, "--out", folder, "--track", "tensorboard")
    assert done.returncode == 0, done.stderr
    return Run(folder / "pope")


@pytest.fixture
def accuracy(run):
    return metrics(run.folder)["accuracy", "mean"]


def test_tensorboard_has_figures_ends_examples_and_the_record(run, accuracy):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        (scalar,) = events.Scalars(f"pope/accuracy/mean{end}")
        assert scalar.value == pytest.approx(accuracy[key], rel=1e-6)
    assert len(events.Images("examples")) == 1
    assert "run.json/text_summary" in events.Tags()["tensors"]


def test_an_unknown_tracker_is_refused_before_the_first_question(tmp_path):
    words = ("run", "--model", "llava-tiny", "--suite", "pope", "--data", "scenes")
    done = bench(*words, "--out", tmp_path / "r", "--track", "tensorbord")
    assert done.returncode == 2
    assert "tensorboard, wandb, trackio, mlflow" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_tracker_that_fails_costs_nothing(run, monkeypatch):
    (run.folder / "tensorboard-taken").write_text("")
    monkeypatch.setattr(run, "folder", run.folder / "tensorboard-taken")  # a file, no folder
    (remark,) = track(run, ["tensorboard"])
    assert remark.startswith("tensorboard did not take")


def test_wandb_offline(run, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert track(run, ["wandb"]) == []
    wandb.teardown()  # as at a process's end: its service has written all
    (summary,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    content = summary.read_bytes()
    assert b"pope/accuracy/mean_low" in content and b"model.weights_sha256" in content


def test_mlflows_file_store(run, accuracy, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    assert track(run, ["mlflow"]) == []
    (kept,) = mlflow.search_runs(experiment_names=["synth-align"], output_format="list")
    assert kept.data.metrics["pope/accuracy/mean"] == pytest.approx(accuracy["value"])
    assert set(kept.data.metrics) == set(figures_of_run(run))
    assert kept.data.params["model.name"] == "llava-tiny"


def test_trackio(run, accuracy, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    pytest.importorskip("trackio")
    assert track(run, ["trackio"]) == []
    (database,) = tmp_path.rglob("synth-align.db")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("SELECT metrics FROM metrics")]
    figures = {name: value for row in rows for name, value in row.items()}
    assert figures["pope/accuracy/mean"] == pytest.approx(accuracy["value"])
