"""`bench run --workers N --ray ADDRESS` on a real cluster of two nodes, on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from alignment.stages import images
from bench.errors import ModelError
from bench.files import append_lines
from bench.models.ray_workers import RayModel
from tests.conftest import BENCH, ROOT, bench_process
from tests.tiny_pipelines import clip_model, sd3_pipeline

TINY = ROOT / "bench" / "scenes" / "llava-tiny"
RUN = ("run", "--model", TINY, "--suite", "pope", "--data", "scenes", "--limit", "1500", "--json")


def answers(out: Path) -> list[dict]:
    rows = map(json.loads, (out / "pope" / "answers.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(autouse=True)
def plain_ray(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def ray_command(*words: str) -> None:
    command = [Path(sys.executable).with_name("ray"), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture
def cluster(plain_ray):
    """Two `ray start` processes: a head with one processor and a second node with two."""
    pytest.importorskip("ray", reason="needs the extra [ray]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray_command(
        "start",
        "--head",
        "--port",
        address.split(":")[1],
        "--num-cpus",
        "1",
        "--include-dashboard=false",
    )
    try:
        ray_command("start", "--address", address, "--num-cpus", "2")
        yield address
    finally:
        ray_command("stop", "--force")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[dict]:
    """What a single process answers."""
    out = tmp_path_factory.mktemp("alone")
    done = bench_process(*RUN, "--out", out)
    assert done.returncode == 0, done.stderr
    return answers(out)


def started(address: str, out: Path) -> subprocess.Popen[str]:
    """A run on three workers that has answered something."""
    words = [*BENCH, *map(str, RUN), "--out", str(out), "--workers", "3", "--ray", address]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    file = out / "pope" / "answers.jsonl"
    while process.poll() is None and not (file.exists() and file.stat().st_size):
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_two_nodes_answer_as_one_process_though_a_worker_is_killed(cluster, alone, tmp_path):
    process = started(cluster, tmp_path)
    workers = subprocess.run(
        ["pgrep", "-f", "^ray::_Worker"], capture_output=True, text=True
    ).stdout.split()
    assert len(workers) == 3
    os.kill(int(workers[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "a worker was lost" in err
    assert answers(tmp_path) == alone


@pytest.mark.slow
def test_a_cluster_that_is_gone_loses_nothing(cluster, alone, tmp_path):
    process = started(cluster, tmp_path)
    ray_command("stop", "--force")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and "no longer answer" in err and "is kept" in err, err
    kept = answers(tmp_path)
    assert kept == alone[: len(kept)] and 0 < len(kept) < len(alone)
    done = bench_process(*RUN, "--out", tmp_path)
    assert done.returncode == 0 and answers(tmp_path) == alone, (
        "and a single process goes on where they stopped"
    )


@pytest.mark.slow
def test_more_workers_than_machines_and_a_wrong_address_are_refused(cluster, tmp_path):
    crowd = bench_process(*RUN, "--out", tmp_path, "--workers", "9", "--ray", cluster)
    assert crowd.returncode == 2 and "no room for 9 workers" in crowd.stderr
    nobody = bench_process(*RUN, "--out", tmp_path, "--ray", "127.0.0.1:1")
    assert nobody.returncode == 2 and "no Ray cluster at 127.0.0.1:1" in nobody.stderr


@pytest.mark.slow
def test_responses_for_an_alignment_are_the_same_from_workers(plain_ray, tmp_path):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    recipe = yaml.safe_load((ROOT / "alignment" / "recipes" / "scenes-tiny.yaml").read_text())
    recipe |= {"prompts": recipe["prompts"] | {"count": 12}, "evaluate": None, "variants": {}}
    artifacts = []
    for name, workers in (("alone", None), ("spread", 2)):
        changed = recipe | {"responses": recipe["responses"] | {"samples": 2, "workers": workers}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(changed))
        done = bench_process("align", tmp_path / f"{name}.yaml", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / name).glob("responses-*")
        artifacts.append((folder.name, (folder / "responses.jsonl").read_text()))
    assert artifacts[0] == artifacts[1], "under the same key, to the letter"


@pytest.mark.slow
def test_images_are_the_same_from_workers_though_one_is_killed(plain_ray, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    settings = images.DiffusersImages(
        kind="diffusers",
        model=str(sd3_pipeline(tmp_path / "sd3")),
        steps=2,
        side=32,
        guidance=[5.0, 7.0],
        batch=2,
        reward={"kind": "clip", "model": str(clip_model(tmp_path / "clip"))},
    )
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    rows = []
    for number in range(24):
        rows.append({"id": str(number), "prompt": f"{number} dogs", "instructions": ["Describe."]})
    append_lines(prompts / "prompts.jsonl", rows)

    def made(name, **more):
        out = tmp_path / name
        out.mkdir()
        changed = settings.model_copy(update=more)
        counts = images.run(changed, {"prompts": prompts}, out, 0)
        assert counts == {"images": 24, "candidates": 48, "dropped": 0}
        files = {file.name: file.read_bytes() for file in (out / "images").iterdir()}
        return (out / "images.jsonl").read_text(), files

    alone = made("alone")
    assert made("spread", workers=2) == alone
    written = []

    def kill_one(file, new):
        append_lines(file, new)
        written.append(new)
        if len(written) == 1:
            pids = subprocess.run(
                ["pgrep", "-f", "^ray::_PaintingWorker"], capture_output=True, text=True
            ).stdout.split()
            os.kill(int(pids[0]), signal.SIGKILL)

    monkeypatch.setattr(images, "append_lines", kill_one)
    with pytest.warns(UserWarning, match="a worker was lost"):
        assert made("killed", workers=2) == alone
    monkeypatch.undo()
    missing = settings.model_copy(update={"workers": 2, "model": str(tmp_path / "nothing")})
    (tmp_path / "missing").mkdir()
    with pytest.raises(ModelError, match=r"text-to-image pipeline .* cannot be loaded"):
        images.run(missing, {"prompts": prompts}, tmp_path / "missing", 0)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModelError, match=r"needs Ray.*\n.*\n.*synth-align\[ray\]"):
        RayModel(str(TINY), {"workers": 2}).describe()
