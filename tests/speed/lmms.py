"""POPE inside lmms-eval, by its own llava_hf and by our models, and by `bench run`: time and figures of one run.

    python tests/speed/lmms.py            # POPE's 9,000 questions on scenes, llava-tiny: every figure of every way
    python tests/speed/lmms.py --size 120m [--images 2] [--questions 18]   # 576 image tokens, random weights: time

Needs the environment of docs/lmms-eval.md. All ways run in turn in one process; ratios are what to quote. Seconds are
of the evaluation, without loading the model; the questions are lmms-eval's own task `pope`, with a local file of data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

TASK = """\
include: {pope}
task: pope_here
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {data}}}}}
{more}"""
FIGURES = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")


def write_task(folder: Path, rows: list[dict[str, str]], more: str = "") -> None:
    """lmms-eval's `pope` on rows of image, question, answer and question_id."""
    import lmms_eval
    from datasets import Dataset, Image

    folder.mkdir()
    pope = Path(lmms_eval.__file__).parent / "tasks" / "pope" / "pope.yaml"
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(folder / "test.parquet")
    (folder / "pope_here.yaml").write_text(
        TASK.format(pope=pope, data=folder / "test.parquet", more=more)
    )


def evaluate(name: str, arguments: str, folder: Path) -> tuple[float, dict[str, Any], list[str]]:
    """Seconds, figures and answers of one model of lmms-eval."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    model = get_model(name).create_from_arg_string(arguments)
    manager = TaskManager("ERROR", include_path=str(folder))
    started = time.perf_counter()
    results = simple_evaluate(model, tasks=["pope_here"], task_manager=manager, log_samples=True)
    seconds = time.perf_counter() - started
    figures = {
        key.removeprefix("pope_").removesuffix(",none"): v
        for key, v in results["results"]["pope_here"].items()
    }
    return seconds, figures, [row["filtered_resps"][0] for row in results["samples"]["pope_here"]]


def scene_rows() -> list[dict[str, str]]:
    from bench.scenes.data import official_folder

    folder, rows = official_folder(), []
    for subset in ("random", "popular", "adversarial"):
        for line in (
            (folder / "pope" / "coco" / f"coco_pope_{subset}.json").read_text().splitlines()
        ):
            row = json.loads(line)
            (path,) = (folder / "images").rglob(row["image"])
            keyed = {
                "question_id": f"{subset}-{row['question_id']}",
                "question": row["text"],
                "answer": row["label"],
            }
            rows.append(keyed | {"image": str(path)})
    return rows


def noise_rows(folder: Path, images: int, questions: int) -> list[dict[str, str]]:
    from tests.speed.engine import make_requests

    requests = make_requests(folder, images, questions)
    return [
        {"image": str(r.path), "question": r.question, "answer": "yes", "question_id": r.key}
        for r in requests
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=("tiny", "120m"), default="tiny")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--questions", type=int, default=18)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.size == "tiny":
            model, rows, more = str(ROOT / "bench" / "scenes" / "llava-tiny"), scene_rows(), ""
        else:
            import torch

            from tests.speed.engine import make_model
            from tests.tiny_models import LLAVA_TEMPLATE

            model = str(make_model(folder / "model", "120m", torch.float32))
            (Path(model) / "chat_template.jinja").write_text(LLAVA_TEMPLATE)
            rows = noise_rows(folder, asked.images, asked.questions)
            more = "generation_kwargs: {max_new_tokens: 2, temperature: 0, num_beams: 1, do_sample: false}\n"
        write_task(folder / "tasks", rows, more)
        ways = {
            "llava_hf": f"pretrained={model},device_map=cpu,device=cpu,dtype=float32",
            "synth_align": f"model={model},protocol=native",
        }
        done = {way: evaluate(way, arguments, folder / "tasks") for way, arguments in ways.items()}
        (slow, *_, expected), (quick, *_, answers) = done.values()
        same = sum(a == b for a, b in zip(expected, answers, strict=True))
        print(
            f"{len(rows)} questions: llava_hf {slow:.1f} s, synth_align {quick:.1f} s: {slow / quick:.2f} times faster"
        )
        print(f"{same} of {len(rows)} answers are the same")
        if asked.size == "tiny":
            compare_figures(done, folder)


def compare_figures(done: dict[str, Any], folder: Path) -> None:
    """The figures of both adapters inside lmms-eval, of the same task under `bench run`, and of
    our own POPE."""
    from bench.runs.jobs import load_model
    from bench.runs.suites import run_suite

    model, columns = (
        load_model("llava-tiny", {"protocol": "native"}),
        {way: results[1] for way, results in done.items()},
    )
    for suite, data in (("lmms:pope_here", str(folder / "tasks")), ("pope", "scenes")):
        started = time.perf_counter()
        (outcome,) = run_suite(
            [suite], model, None, data, None, folder / suite.replace(":", "-")
        ).values()
        print(f"bench run --suite {suite}: {time.perf_counter() - started:.1f} s")
        subset = "all" if any(m.subset == "all" for m in outcome.metrics) else None
        results = {
            m.name.removeprefix("pope_"): m.value for m in outcome.metrics if m.subset == subset
        }
        columns[f"bench {suite}"] = results | {
            "f1_score": results.get("f1_score", results.get("f1"))
        }
    for figure in FIGURES:
        print(
            f"{figure:10}",
            *(f"{way} {100 * results[figure]:.2f}" for way, results in columns.items()),
            sep="  ",
        )


if __name__ == "__main__":
    main()
