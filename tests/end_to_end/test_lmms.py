"""lmms-eval both ways: our models inside it, its tasks inside `bench run`. Runs in the tox
environment `lmms`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import registry
from bench.errors import DataError, ModelError
from tests.conftest import ROOT, bench, draw, metrics

try:
    from importlib.metadata import version

    version("lmms-eval")
except ImportError:
    pytest.skip("needs lmms-eval (docs/lmms-eval.md)", allow_module_level=True)

TINY = ROOT / "bench" / "scenes" / "llava-tiny"
UTILS = """
def picture(doc): return [doc["image"].convert("RGB")] * doc.get("copies", 1)
def text(doc): return doc["question"]
def score(doc, results):
    if "explode" in doc["question"]: raise ValueError("no such thing")
    row = {"score": float(results[0].lower().rstrip(".") == doc["answer"]), "said": results[0].lower()}
    return {"right": row, "said_yes": row}
def mean(rows): return sum(row["score"] for row in rows) / len(rows)
def share_of_yes(rows): return sum(row["said"].startswith("yes") for row in rows) / len(rows)
"""
YAML = """
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {name}.parquet}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.picture
doc_to_text: !function utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 8, temperature: 0, do_sample: false}}
process_results: !function utils.score
metric_list:
  - {{metric: right, aggregation: !function utils.mean, higher_is_better: true}}
  - {{metric: said_yes, aggregation: !function utils.share_of_yes, higher_is_better: true}}
"""


def write_task(folder: Path, name: str, rows: list[dict]) -> None:
    from datasets import Dataset, Image

    folder.mkdir(exist_ok=True)
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(folder / f"{name}.parquet")
    (folder / "utils.py").write_text(UTILS)
    (folder / f"{name}.yaml").write_text(YAML.format(name=name))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """POPE-like questions about scenes, in no order of pictures."""
    from bench.scenes.data import official_folder

    folder = official_folder()
    lines = (folder / "pope" / "coco" / "coco_pope_random.json").read_text().splitlines()[:90]
    rows = []
    for line in sorted(lines, key=lambda text: json.loads(text)["text"]):
        row = json.loads(line)
        (path,) = (folder / "images").rglob(row["image"])
        rows.append({"image": str(path), "question": row["text"], "answer": row["label"]})
    root = tmp_path_factory.mktemp("tasks") / "mine"
    write_task(root, "scenes_pope", rows)
    return root


def lmms_eval(model: str, arguments: str, tasks: Path, out: Path) -> dict:
    command = [
        sys.executable,
        "-m",
        "lmms_eval",
        "--model",
        model,
        "--model_args",
        arguments,
        "--tasks",
        "scenes_pope",
    ]
    more = [
        "--include_path",
        str(tasks),
        "--batch_size",
        "1",
        "--output_path",
        str(out),
        "--log_samples",
    ]
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    files = list(out.rglob("*_results.json"))
    assert files, done.stdout[-2000:] + done.stderr[-2000:]
    (samples,) = out.rglob("*_samples_scenes_pope.jsonl")
    answers = {
        row["doc_id"]: row["filtered_resps"]
        for row in map(json.loads, samples.read_text().splitlines())
    }
    return json.loads(files[0].read_text())["results"]["scenes_pope"] | {"answers": answers}


def test_inside_lmms_eval_our_models_say_what_its_own_adapter_says(tasks, tmp_path):
    ours = lmms_eval("synth_align", f"model={TINY}", tasks, tmp_path / "ours")
    theirs = lmms_eval(
        "llava_hf",
        f"pretrained={TINY},device_map=cpu,device=cpu,dtype=float32",
        tasks,
        tmp_path / "its",
    )
    assert len(ours["answers"]) == 90 and ours["answers"] == theirs["answers"]
    for figure in ("right,none", "said_yes,none"):
        assert ours[figure] == theirs[figure]


def test_a_model_can_be_used_again_after_clean(tasks):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    model = get_model("synth_align").create_from_arg_string(f"model={TINY}", {"batch_size": "8"})
    manager = TaskManager("ERROR", include_path=str(tasks))
    results = [
        simple_evaluate(model, tasks=["scenes_pope"], task_manager=manager)["results"]
        for _ in range(2)
    ]
    assert results[0]["scenes_pope"]["right,none"] == results[1]["scenes_pope"]["right,none"] > 0.5
    with pytest.raises(ModelError, match="no model_args typo"):
        get_model("synth_align").create_from_arg_string("model=llava-tiny,typo=1", {})


def test_a_task_of_lmms_eval_in_our_runner_gives_its_figures_and_is_compared(tasks, tmp_path):
    theirs = lmms_eval("synth_align", f"model={TINY}", tasks, tmp_path / "its")
    words = ("--suite", "lmms:scenes_pope", "--data", tasks)
    for model in ("llava-tiny", "llava-tiny-b"):
        done = bench("run", "--model", model, *words, "--out", tmp_path / model)
        assert done.returncode == 0, done.stderr
    run = tmp_path / "llava-tiny" / "lmms-scenes_pope"
    measured = metrics(run)
    for figure in ("right", "said_yes"):
        assert measured[figure, "all"]["value"] == pytest.approx(
            theirs[f"{figure},none"], abs=1e-12
        )
        assert (
            measured[figure, "all"]["low"]
            < measured[figure, "all"]["value"]
            < measured[figure, "all"]["high"]
        )
    assert (
        len(
            {json.loads(line)["image"] for line in (run / "answers.jsonl").read_text().splitlines()}
        )
        < 30
    )
    assert bench("score", run).returncode == 0, "scored again, without a model"
    other = tmp_path / "llava-tiny-b" / "lmms-scenes_pope"
    done = bench("compare", run, other, "--json")
    rows = {row["figure"]: row for row in json.loads(done.stdout)["comparisons"][0]["rows"]}
    # said_yes is a function of the task's own, not a mean of the score it is given.
    assert rows.keys() == {"lmms:scenes_pope right"}
    row = rows["lmms:scenes_pope right"]
    assert row["first"][0] == pytest.approx(measured["right", "all"]["value"])
    assert row["second"][0] == pytest.approx(metrics(other)["right", "all"]["value"])


def test_an_export_and_lmms_evals_own_samples_are_the_same_rows(tasks, tmp_path):
    theirs = lmms_eval("synth_align", f"model={TINY}", tasks, tmp_path / "its")
    words = ("--suite", "lmms:scenes_pope", "--data", tasks)
    assert bench("run", "--model", "llava-tiny", *words, "--out", tmp_path / "run").returncode == 0
    run = tmp_path / "run" / "lmms-scenes_pope"
    done = bench("export", run, "--format", "lmms-eval", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (its_file,) = (tmp_path / "its").rglob("*_samples_scenes_pope.jsonl")
    (our_file,) = (tmp_path / "out").glob("*_samples_*.jsonl")
    its, ours = (
        {row["doc_id"]: row for row in map(json.loads, file.read_text().splitlines())}
        for file in (its_file, our_file)
    )
    assert its.keys() == ours.keys() and len(its) == 90
    for number, row in its.items():
        for name in ("input", "target", "filtered_resps"):
            assert ours[number][name] == row[name], name
    results = json.loads(next((tmp_path / "out").glob("*_results.json")).read_text())["results"]
    (figures,) = results.values()
    assert figures["right,none"] == pytest.approx(theirs["right,none"], abs=1e-12)
    # Its own file, asked of nobody, comes to the same figure.
    replay = ("run", "--model", f"replay:{its_file}", *words, "--out", tmp_path / "replayed")
    again = bench(*replay)
    assert again.returncode == 0, again.stderr
    measured = metrics(tmp_path / "replayed" / "lmms-scenes_pope")["right", "all"]["value"]
    assert measured == pytest.approx(theirs["right,none"], abs=1e-12)


def test_what_cannot_be_run_is_told_and_a_failing_scorer_costs_its_sample_alone(tmp_path):
    rows = [
        {"image": str(draw(tmp_path / f"{i}.png", i)), "question": f"Is it {i}?", "answer": "no"}
        for i in range(3)
    ]
    write_task(tmp_path / "t", "boom", [*rows, rows[0] | {"question": "explode?"}])
    words = (
        "run",
        "--model",
        "llava-tiny",
        "--out",
        tmp_path / "out",
        "--data",
        tmp_path / "t",
        "--suite",
    )
    done = bench(*words, "lmms:boom")
    assert (
        done.returncode == 3
        and "the task's scorer failed: ValueError: no such thing" in done.stderr
    )
    assert metrics(tmp_path / "out" / "lmms-boom")["right", "all"]["n"] == 3
    write_task(tmp_path / "t", "two", [row | {"copies": 2} for row in rows])
    for task, reason in (
        ("two", "Document 0 has 2 images"),
        ("nothing_like_it", "nothing_like_it"),
    ):
        refused = bench(*words, f"lmms:{task}")
        assert (
            refused.returncode == 2
            and reason in refused.stderr
            and "cannot be run here" in refused.stderr
        )


def test_without_lmms_eval_the_error_names_the_extra(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("bench.integrations.lmms_eval_task.version", missing)
    with pytest.raises(DataError, match=r"synth-align\[lmms\]"):
        registry.benchmark("lmms:pope")
