"""The bench inside a training: the figures on the way are those of `bench run` on the adapter."""

from __future__ import annotations

import json

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.settings import RecipeError
from alignment.stages import dpo
from alignment.training.measuring import BenchCallback
from alignment.training.settings import Lora, Measuring, Training
from bench.files import read_lines
from tests.conftest import bench, scene_stages


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Six pairs about scenes."""

    def texts(number):
        rejected = "The image shows a dog, a cat and a person in a park."
        return "Describe the image in detail.", "The image shows a park.", rejected

    return scene_stages(tmp_path_factory.mktemp("stages"), texts)


def test_figures_on_the_way_are_those_of_a_run_on_the_adapter(inputs, tmp_path):
    measure = Measuring(suite=["pope", "chair"], every=2, data="scenes", limit=30)
    training = Training(
        model="llava-tiny",
        batch=2,
        learning_rate=1e-3,
        trackers=["tensorboard"],
        lora=Lora(rank=4, alpha=8),
        measure=measure,
    )
    out = tmp_path / "dpo-0"
    out.mkdir()
    counts = dpo.run(training, inputs, out, 0)
    assert counts["steps"] == 3
    rows = read_lines(out / "measured.jsonl")
    assert sorted({row["step"] for row in rows}) == [2, 3]  # every second one, and the last
    model = f"llava-tiny+{out / 'adapter'}"
    done = bench(
        "run", "--model", model, "--suite", "pope,chair", "--data", "scenes", "--limit", 30,
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    values = {}
    for run in json.loads(done.stdout)["runs"]:
        for metric in run["metrics"]:
            if metric["subset"] == "all":
                values[metric["name"]] = metric
    last = {row["figure"]: row for row in rows if row["step"] == 3}
    for title, name in (("POPE accuracy", "accuracy"), ("CHAIRs", "chair_s")):
        row, metric = last[title], values[name]
        assert row["value"] == pytest.approx(100 * metric["value"])
        assert row["low"] == pytest.approx(100 * metric["low"])
        assert row["n"] == metric["n"] and row["caveats"]
    # Each measurement is a run, and says which adapter it was.
    records = {}
    for step in (2, 3):
        folder = tmp_path / "measured" / "dpo-0" / f"step-{step}" / "pope"
        records[step] = json.loads((folder / "run.json").read_text())["model"]["adapter_sha256"]
        assert not (folder.parent / "adapter").exists()
    assert records[2] != records[3]
    run = json.loads((tmp_path / "run" / "pope" / "run.json").read_text())
    assert records[3] == run["model"]["adapter_sha256"]
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "dpo-0")).Reload()
    logged = [event.step for event in events.Scalars("train/bench/CHAIRs")]
    assert logged == [2, 3]
    lows = [event.value for event in events.Scalars("train/bench/CHAIRs/low")]
    assert lows[1] == pytest.approx(last["CHAIRs"]["low"], abs=1e-3)


def test_a_model_without_an_adapter_is_told(tiny, tmp_path):
    from bench.models.hf import HFModel

    callback = BenchCallback(str(tiny("llava")), ["pope"], 1, tmp_path)
    state = TrainerState(global_step=1, max_steps=4, is_world_process_zero=True)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    network = HFModel(str(tiny("llava")), {}).model
    with pytest.raises(RecipeError, match="measures adapters"):
        callback.on_step_end(arguments, state, TrainerControl(), model=network)


def test_measuring_and_fsdp_do_not_go_together():
    measure = Measuring(suite=["pope"], every=2)
    training = Training(model="llava", launch="fsdp --num_processes 2", measure=measure)
    with pytest.raises(RecipeError, match="does not go with"):
        dpo.check(training)
