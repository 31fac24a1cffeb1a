"""Runs in folders: every command finds the same ones, and one is never taken for another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.runs.run import by_benchmark, find_runs
from tests.conftest import bench
from tests.recorded_runs import metric_row, pope_run, record_of, sealed

RIGHT = [number % 10 != 0 for number in range(2000)]


@pytest.fixture
def deep(tmp_path):
    """A folder whose only run lies three folders down."""
    metrics = [metric_row("accuracy", "mean", 0.9)]
    pope_run(tmp_path / "deep" / "a" / "b" / "pope", RIGHT, record_of("deep"), metrics)
    return tmp_path / "deep"


@pytest.fixture
def double(tmp_path):
    """A folder with two POPE runs."""
    for name, right in (("first", RIGHT), ("second", RIGHT[::-1])):
        metrics = [metric_row("accuracy", "mean", 0.9)]
        pope_run(tmp_path / "double" / name / "pope", right, record_of(name), metrics)
    return tmp_path / "double"


def test_a_run_at_any_depth_is_found_by_every_command(deep, tmp_path):
    (folder,) = [run.folder for run in find_runs(deep)]
    assert folder == deep / "a" / "b" / "pope"
    assert str(folder) in bench("list", "runs", "--folder", deep).stdout
    assert bench("compare", deep, deep).returncode == 0
    assert "deep" in bench("board", deep).stdout
    assert bench("report", deep, "--out", tmp_path / "report").returncode == 0
    reference = tmp_path / "ref.json"
    assert bench("check", deep, "--save", reference).returncode == 0
    assert bench("check", deep, "--against", reference).returncode == 0


def test_two_runs_of_a_benchmark_are_named_where_one_is_meant(double, deep, tmp_path):
    for command in (
        ("compare", double, deep),
        ("check", double, "--save", tmp_path / "ref.json"),
        ("check", double, "--against", deep),
        ("check", deep, "--against", double),
    ):
        done = bench(*command)
        assert done.returncode == 2, command
        assert "two runs of pope" in done.stderr
        assert str(double / "first" / "pope") in done.stderr
        assert str(double / "second" / "pope") in done.stderr
    assert not (tmp_path / "ref.json").exists()


def test_two_runs_of_a_benchmark_are_both_used_where_many_may_stand(double, deep, tmp_path):
    comparisons = json.loads(bench("compare", deep, double, "--json").stdout)["comparisons"]
    assert [item["second"].split("/")[-2] for item in comparisons] == ["first", "second"]
    board = bench("board", double).stdout
    assert "\nfirst " in board and "\nsecond " in board
    assert bench("report", deep, double, "--out", tmp_path / "report").returncode == 0
    table = (tmp_path / "report" / "tables" / "pope.md").read_text()
    assert "| first |" in table and "| second |" in table and "| deep |" in table


def test_a_folder_without_a_run_is_told(tmp_path):
    for command in (("compare", tmp_path, tmp_path), ("score", tmp_path), ("check", tmp_path)):
        done = bench(*command, *(("--against", tmp_path) if command[0] == "check" else ()))
        assert done.returncode == 2
        assert "holds no run" in done.stderr
    assert "holds no run" in bench("board", tmp_path).stdout
    assert bench("list", "runs", "--folder", tmp_path).stdout == ""


def test_a_run_reads_a_file_when_it_is_asked_for(deep):
    (run,) = find_runs(deep)
    (run.folder / "scores.jsonl").write_text("no JSON\n")
    sealed(run.folder)
    assert run.model == "deep"
    with pytest.raises(StoreError, match="corrupt in line 1"):
        assert run.scores


def test_score_and_judge_take_folders_of_runs(tmp_path):
    arguments = ("--model", "llava-tiny", "--suite", "pope,mmhal", "--data", "scenes")
    done = bench("run", *arguments, "--limit", 24, "--out", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    before = json.loads(done.stdout)["runs"]
    again = json.loads(bench("score", tmp_path / "runs", "--json").stdout)["runs"]
    by_name = {run["benchmark"]: run["metrics"] for run in before}
    assert {run["benchmark"]: run["metrics"] for run in again} == by_name
    judged = json.loads(bench("judge", tmp_path / "runs", "--judge", "scene", "--json").stdout)
    assert [run["benchmark"] for run in judged["runs"]] == ["mmhal"]
    alone = bench("judge", tmp_path / "runs" / "pope", "--judge", "scene")
    assert alone.returncode == 2 and "takes no judge" in alone.stderr


def test_one_run_for_each_benchmark():
    with pytest.raises(StoreError, match="holds no run"):
        find_runs(Path("/no/such/folder"))
    assert by_benchmark([]) == {}
