"""Runs for other tools: what is written is read again, by pandas, by `replay:`, by inspect_ai."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from huggingface_hub import snapshot_download

from bench.files import replace_file
from tests.chromium import chromium
from tests.conftest import bench, metrics
from tests.loopback_hub import client_of, hub_server
from tests.recorded_runs import sealed


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    words = ("run", "--model", "llava-tiny", "--suite", "pope,mmhal,chair", "--data", "scenes")
    assert bench(*words, "--limit", "30", "--out", folder).returncode == 0
    return folder


def values_of(run):
    """The figures that answers and their P(yes) decide."""
    values = {}
    for (name, subset), row in metrics(run).items():
        if name in ("accuracy", "precision", "recall", "f1", "chair_s", "chair_i", "score", "auc"):
            values[name, subset] = row["value"]
    return values


@pytest.mark.parametrize("task", ["pope", "mmhal", pytest.param("chair", marks=pytest.mark.slow)])
def test_lmms_evals_samples_are_replayed_to_the_same_figures(runs, tmp_path, task):
    done = bench("export", runs / task, "--format", "lmms-eval", "--out", tmp_path / "lmms")
    assert done.returncode == 0, done.stderr
    samples = tmp_path / "lmms" / f"{task}_samples_{task}.jsonl"
    assert str(samples) in done.stdout
    words = ("--suite", task, "--data", "scenes", "--out", tmp_path / "again")
    again = bench("run", "--model", f"replay:{samples}", *words)
    assert again.returncode in (0, 3), again.stderr
    assert values_of(tmp_path / "again" / task) == pytest.approx(
        values_of(runs / task), nan_ok=True
    )
    results = json.loads((tmp_path / "lmms" / f"{task}_results.json").read_text())
    figures = results["results"][task]
    name = {"pope": "accuracy", "mmhal": "score", "chair": "chair_s"}[task]
    (subset,) = {"pope": ["mean"], "mmhal": ["all"], "chair": ["all"]}[task]
    assert figures[f"{name},none"] == metrics(runs / task)[name, subset]["value"]


def test_tables_have_a_row_a_sample(runs, tmp_path):
    for form in ("csv", "parquet"):
        assert bench("export", runs, "--format", form, "--out", tmp_path).returncode == 0
    pope = pd.read_parquet(tmp_path / "pope.parquet")
    assert len(pope) == 30
    accuracy = metrics(runs / "pope")["accuracy", "all"]["value"]
    assert pope["score.correct"].mean() == pytest.approx(accuracy)
    chair = pd.read_csv(tmp_path / "chair.csv")
    false = chair["score.hallucinated"].map(json.loads)
    assert (false.map(len) > 0).mean() == metrics(runs / "chair")["chair_s", "all"]["value"]
    assert chair["question"].str.contains("describe", case=False).all()


def test_a_file_in_the_place_of_the_folder_is_told(runs, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = bench("export", runs / "pope", "--format", "csv", "--out", tmp_path / "out")
    assert done.returncode == 2 and "cannot be used" in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_two_runs_of_a_benchmark_become_two_files(runs, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(runs / "pope", tmp_path / "runs" / name / "pope")
    done = bench("export", tmp_path / "runs", "--format", "csv", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = {
        file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.csv")
    }
    assert files == {"a/pope.csv", "b/pope.csv"}


def test_inspect_ai_reads_its_log(runs, tmp_path):
    log = pytest.importorskip("inspect_ai.log")
    assert bench("export", runs / "pope", "--format", "inspect", "--out", tmp_path).returncode == 0
    read = log.read_eval_log(str(tmp_path / "pope.eval"))
    assert read.status == "success" and len(read.samples) == 30
    right = [sample.scores["pope"].value == "C" for sample in read.samples]
    assert sum(right) / 30 == pytest.approx(metrics(runs / "pope")["accuracy", "all"]["value"])
    (score,) = read.results.scores
    assert score.metrics["accuracy"].value == metrics(runs / "pope")["accuracy", "mean"]["value"]


@pytest.mark.slow
def test_inspect_ais_viewer_opens_its_log(runs, tmp_path):
    pytest.importorskip("inspect_ai")
    assert bench("export", runs, "--format", "inspect", "--out", tmp_path).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from inspect_ai._cli.main import main; main()"
    words = ("view", "start", "--log-dir", tmp_path, "--port", str(port))
    viewer = subprocess.Popen([sys.executable, "-c", program, *words])
    try:
        with chromium() as opened:
            shown, deadline = "", time.monotonic() + 60
            while "30 rows" not in shown and time.monotonic() < deadline:
                time.sleep(1)
                with contextlib.suppress(Exception):  # it listens some seconds after its start
                    opened.get(f"http://127.0.0.1:{port}/#/logs/chair.eval")
                    time.sleep(2)
                    shown = opened.find_element("tag name", "body").text
    finally:
        viewer.terminate()
        viewer.wait()
    value = metrics(runs / "chair")["chair_s", "all"]["value"]
    assert f"CHAIR_S\n{value:.3g}" in shown and "NaN" not in shown
    assert "llava-tiny" in shown and "scene_test_0_000001.png" in shown


def test_without_inspect_ai_it_says_what_to_install(runs, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    done = bench("export", runs / "pope", "--format", "inspect", "--out", tmp_path)
    assert done.returncode == 2
    assert "pip install inspect_ai" in done.stderr


def test_every_eval_ever_has_values_with_intervals_and_directions(runs, tmp_path):
    done = bench("export", runs, "--format", "every-eval-ever", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "chair.json").read_text())
    assert record["model_info"]["id"] == "llava-tiny"
    by_name = {result["evaluation_name"]: result for result in record["evaluation_results"]}
    assert "chair length" not in by_name, "neither direction is better"
    rate = by_name["chair chair_s"]
    recorded = metrics(runs / "chair")["chair_s", "all"]
    assert rate["metric_config"]["lower_is_better"] is True
    assert rate["score_details"]["score"] == recorded["value"]
    interval = rate["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == (recorded["low"], recorded["high"])
    assert "limited to 30" in rate["score_details"]["details"]["caveats"]
    score = json.loads((tmp_path / "mmhal.json").read_text())["evaluation_results"][0]
    assert (score["metric_config"]["min_score"], score["metric_config"]["max_score"]) == (0, 6)
    assert all(isinstance(text, str) for text in score["score_details"]["details"].values())


@pytest.fixture
def hub(tmp_path):
    with hub_server({}) as empty, client_of(empty, tmp_path / "home"):
        yield empty


def test_what_is_pushed_is_a_data_set_and_runs_with_the_same_figures(
    hub, runs, tmp_path, monkeypatch
):
    from datasets import load_dataset

    done = bench("push", runs, "us/runs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{hub.url}/datasets/us/runs"]
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    assert hub.visibility == {"us/runs": "private"}
    rows = load_dataset("us/runs", "pope", split="test")
    assert len(rows) == 30
    accuracy = metrics(runs / "pope")["accuracy", "all"]["value"]
    assert sum(rows["score.correct"]) / 30 == pytest.approx(accuracy)
    folder = snapshot_download("us/runs", repo_type="dataset")
    again = shutil.copytree(folder, tmp_path / "again", symlinks=False)
    compared = bench("compare", runs, again / "runs", "--json")
    assert compared.returncode == 0, compared.stderr
    benchmarks = json.loads(compared.stdout)["comparisons"]
    assert [item["benchmark"] for item in benchmarks] == ["chair", "mmhal", "pope"]
    for item in benchmarks:
        assert {row["difference"][0] for row in item["rows"]} == {0.0}
    card = (again / "README.md").read_text()
    accuracy = metrics(runs / "pope")["accuracy", "mean"]["value"]
    assert f"{100 * accuracy:.2f}" in card and "limited to 30 of 9,000 samples" in card


def test_no_folder_of_this_machine_is_pushed(hub, runs, tmp_path):
    run = shutil.copytree(runs / "pope", tmp_path / "home of somebody" / "pope")
    record = json.loads((run / "run.json").read_text())
    assert record["source"]["model"].startswith("/")
    record["command"] = [
        "run",
        "--out",
        str(run.parent),
        f"--images={run}/images",
        "--suite",
        "a/b",
    ]
    replace_file(run / "run.json", json.dumps(record))
    sealed(run)
    assert bench("push", run, "us/one").returncode == 0
    text = hub.repositories["dataset", "us/one"]["runs/pope/run.json"].decode()
    assert "/tmp" not in text and "somebody/" not in text
    told = json.loads(text)
    assert told["source"]["model"] == "llava-tiny"
    assert told["command"][-4:] == ["home of somebody", "--images=images", "--suite", "a/b"]


@pytest.mark.slow
def test_a_second_push_replaces_the_first_and_other_data_stays(hub, runs):
    for run in (runs / "pope", runs / "chair"):
        assert bench("push", run, "us/runs").returncode == 0
    files = set(hub.repositories["dataset", "us/runs"])
    assert "runs/chair/scores.jsonl" in files and "runs/pope/scores.jsonl" not in files
    photographs = {"README.md": b"---\ntags: [cats]\n---\n", "cats.parquet": b"PAR1"}
    hub.repositories["dataset", "us/cats"] = photographs
    done = bench("push", runs / "pope", "us/cats")
    assert done.returncode == 2 and "us/cats holds other data" in done.stderr
    assert hub.repositories["dataset", "us/cats"] == photographs


def test_what_the_hub_refuses_is_told(hub, runs):
    hub.refused.add("them")
    done = bench("push", runs / "pope", "them/runs")
    assert done.returncode == 2 and "403" in done.stderr and "HF_TOKEN" in done.stderr
    for name in ("no-owner", "../../x", "a b/c"):
        done = bench("push", runs / "pope", name)
        assert done.returncode == 2 and "could not be pushed" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_a_run_that_is_not_finished_is_not_pushed(hub, runs, tmp_path):
    shutil.copytree(runs / "pope", tmp_path / "pope")
    (tmp_path / "pope" / "metrics.json").unlink()
    done = bench("push", tmp_path / "pope", "us/other")
    assert done.returncode == 2 and "is not finished" in done.stderr


@pytest.mark.slow
def test_results_on_the_hubs_data_stand_beside_the_card(runs, tmp_path):
    from huggingface_hub import parse_eval_result_entries

    for name in ("pope", "chair"):
        shutil.copytree(runs / name, tmp_path / "runs" / name)
        file = tmp_path / "runs" / name / "run.json"
        record = json.loads(file.read_text())
        record["source"]["data"] = "hub"
        replace_file(file, json.dumps(record))
        sealed(file.parent)
    done = bench("report", tmp_path / "runs", "--out", tmp_path / "out", "--model-card")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "out" / ".eval_results" / "synth-align.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("lmms-lab/POPE", "default")
    accuracy = metrics(runs / "pope")["accuracy", "mean"]["value"]
    assert entry.value == round(100 * accuracy, 2)
    assert "accuracy, 95 % interval" in entry.notes and "limited to 30" in entry.notes
    scenes = bench("report", runs, "--out", tmp_path / "scenes", "--model-card")
    assert scenes.returncode == 0
    assert not (tmp_path / "scenes" / ".eval_results").exists()
    card = (tmp_path / "scenes" / "README.md").read_text()
    assert "license: apache-2.0" in card, "as the model's own card says"
