"""`bench run` as a user types it, on real checkpoints (tiny, random) and pictures."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from bench import registry
from tests.conftest import BENCH, ROOT, bench, bench_process, draw, metrics, run_of
from tests.loopback_chat import chat_server, completion


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_seconds(file: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines(file)]


@pytest.fixture(scope="module")
def photographs(shared, tmp_path_factory) -> Path:
    """POPE questions about the photographs of the evaluation data."""
    out = tmp_path_factory.mktemp("photographs")
    assert (
        bench(
            "data", "pope", "--objects", shared / "images" / "coco" / "objects.json", "--out", out
        ).returncode
        == 0
    )
    return out


def test_pope_on_real_photographs_with_and_without_an_adapter(tiny, photographs, shared, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(tiny("llava"))
    lora = LoraConfig(
        r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False
    )
    get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    answers = {}
    for name, model in {
        "plain": tiny("llava"),
        "lora": f"{tiny('llava')}+{tmp_path / 'adapter'}",
    }.items():
        done = bench(
            "run",
            "--model",
            model,
            "--suite",
            "pope",
            "--data",
            photographs,
            "--images",
            shared / "images" / "coco",
            "--out",
            tmp_path / name,
            "--json",
        )
        assert done.returncode == 0, done.stderr
        run = run_of(done)
        measured = metrics(run)
        assert (measured["accuracy", "all"]["n"], measured["accuracy", "all"]["unscored"]) == (
            72,
            0,
        )
        assert {"auc", "average_precision", "calibration_error"} <= {key[0] for key in measured}
        rows = lines(run / "answers.jsonl")
        assert len(rows) == len({(row["image"], row["prompt"]) for row in rows}) < 72, (
            "each distinct pair once"
        )
        assert all(0 < row["p_yes"] < 1 and len(row["image_sha256"]) == 16 for row in rows)
        answers[name] = {row["key"]: row["text"] for row in rows}
        model_record = json.loads((run / "run.json").read_text())["model"]
        assert (
            len(model_record["weights_sha256"]) == 64 and model_record["engine"] == "shared-image"
        )
        assert (model_record["adapter_sha256"] is not None) == (name == "lora")
    assert answers["plain"] != answers["lora"], "the adapter must matter"

    wrong = f"{tiny('qwen2_5_vl')}+{tmp_path / 'adapter'}"
    where = (
        "--data",
        photographs,
        "--images",
        shared / "images" / "coco",
        "--out",
        tmp_path / "wrong",
    )
    other = bench("run", "--model", wrong, "--suite", "pope", *where)
    assert other.returncode == 2 and "does not fit this base" in other.stderr


def test_table_json_and_second_start(tiny, pictures, tmp_path):
    arguments = ("run", "--model", tiny("llava"), "--suite", "pope,chair", "--data", pictures)
    missing = bench(*arguments, cwd=tmp_path)
    assert (
        missing.returncode == 2 and "chair" in missing.stderr and "Traceback" not in missing.stderr
    )
    arguments = ("run", "--model", tiny("llava"), "--suite", "pope", "--data", pictures)
    first = bench_process(*arguments, cwd=tmp_path)
    assert first.returncode == 0
    (folder,) = [
        line.removeprefix("run: ") for line in first.stdout.splitlines() if line.startswith("run: ")
    ]
    for word in (
        "accuracy",
        "precision",
        "recall",
        "f1",
        "auc",
        "random",
        "adversarial",
        "mean",
        "±",
        "unscored",
    ):
        assert word in first.stdout
    before = (tmp_path / folder / "answers.jsonl").read_bytes()
    again = bench(*arguments, "--json", cwd=tmp_path)
    assert again.returncode == 0 and str(run_of(again)) == folder
    assert (tmp_path / folder / "answers.jsonl").read_bytes() == before, "nothing is asked twice"
    (run,) = json.loads(again.stdout)["runs"]
    assert set(run) == {"benchmark", "model", "folder", "metrics"}
    assert {"name", "subset", "value", "low", "high", "n", "unscored", "better"} <= set(
        run["metrics"][0]
    )
    assert folder in bench("list", "runs", cwd=tmp_path).stdout
    limited = bench(*arguments, "--limit", "9", "--json", cwd=tmp_path)
    sizes = {row["subset"]: row["n"] for row in json.loads(limited.stdout)["runs"][0]["metrics"]}
    assert sizes == {"random": 3, "popular": 3, "adversarial": 3, "all": 9, "mean": 9}


def test_protocol_and_suffix_are_recorded_and_matter(tiny, pictures, tmp_path):
    (tmp_path / "bare.yaml").write_text('base: llava\nsuffix: {pope: ""}\n')
    texts = {}
    for protocol in ("llava", "native", "bare.yaml"):
        done = bench(
            "run",
            "--model",
            tiny("llava"),
            "--suite",
            "pope",
            "--data",
            pictures,
            "--protocol",
            protocol,
            "--json",
            "--limit",
            "12",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / run_of(done)
        record = json.loads((folder / "run.json").read_text())
        assert record["model"]["protocol"]["name"] == protocol.removesuffix(".yaml")
        assert bool(record["prompt"]["suffix"]) == (protocol != "bare.yaml")
        rows = lines(folder / "answers.jsonl")
        assert all(("single word" in row["prompt"]) == (protocol != "bare.yaml") for row in rows)
        texts[protocol] = [row["text"] for row in rows]
    assert len({json.dumps(value) for value in texts.values()}) == 3


def test_missing_and_broken_images_are_unscored_and_can_be_repaired(tiny, pictures, tmp_path):
    import shutil

    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    images = data / "images" / "coco"
    whole = (images / "park.png").read_bytes()
    (images / "park.png").write_bytes(whole[: len(whole) // 2])
    (images / "zoo.png").unlink()
    (images / "room.png").write_text("<html>not an image</html>")
    arguments = (
        "run",
        "--model",
        tiny("llava"),
        "--suite",
        "pope",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--json",
    )
    done = bench(*arguments)
    assert done.returncode == 3
    measured = metrics(tmp_path / "run" / "pope")
    assert (measured["accuracy", "all"]["n"], measured["accuracy", "all"]["unscored"]) == (36, 54)
    for words in (
        "image park.png cannot be read",
        "image room.png cannot be read",
        "image zoo.png not found",
    ):
        assert words in done.stderr
    kept = without_seconds(tmp_path / "run" / "pope" / "answers.jsonl")
    for name in ("park.png", "zoo.png", "room.png"):
        shutil.copy(pictures / "images" / "coco" / name, images / name)
    assert bench(*arguments).returncode == 0
    rows = without_seconds(tmp_path / "run" / "pope" / "answers.jsonl")
    assert rows[: len(kept)] == kept and len(rows) == len({row["key"] for row in rows})
    draw(images / "street.png", 99)
    changed = bench(*arguments)
    assert (
        changed.returncode == 2 and "street.png has changed since it was answered" in changed.stderr
    )


def test_scenes_with_a_broken_picture_can_be_scored_again(tiny, tmp_path):
    """CHAIR takes the images at hand: the broken one stays a sample, and unscored, when the run is
    scored again."""
    data = tmp_path / "data"
    assert bench("data", "scenes", "--out", data, "--n", 8, "--split", "validation").returncode == 0
    broken = sorted((data / "images" / "scenes").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:200])
    done = bench(
        "run",
        "--model",
        tiny("llava"),
        "--suite",
        "chair",
        "--data",
        data,
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 3 and f"image {broken.name} cannot be read" in done.stderr
    before = metrics(tmp_path / "run" / "chair")
    assert (before["chair_s", "all"]["n"], before["chair_s", "all"]["unscored"]) == (7, 1)
    again = bench("score", tmp_path / "run" / "chair")
    assert again.returncode == 3 and "1 unscored: not answered" in again.stderr
    assert metrics(tmp_path / "run" / "chair") == before


def test_of_a_suite_what_can_be_measured_is(tmp_path):
    data = tmp_path / "data"
    assert bench("data", "scenes", "--out", data, "--n", 6, "--split", "validation").returncode == 0
    (data / "mmhal" / "mmhal-bench_answer_template.json").unlink()
    arguments = ("run", "--model", "llava-tiny", "--data", data, "--out", tmp_path / "run")
    done = bench(*arguments, "--suite", "quick")
    assert done.returncode == 3 and "mmhal is left out." in done.stderr
    assert f"`bench data get NAME --out {data}` downloads official files" in done.stderr
    finished = {folder.parent.name for folder in (tmp_path / "run").glob("*/metrics.json")}
    assert finished == {"pope", "chair", "amber-discriminative"}
    named = bench(*arguments, "--suite", "quick,mmhal")
    assert named.returncode == 2, "what is asked for by its name must be there"


def test_bad_input_is_one_clear_error(tiny, pictures, tmp_path):
    import shutil

    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    question_file = data / "pope" / "coco" / "coco_pope_popular.json"
    good = question_file.read_text()
    rows = good.splitlines()
    without_id = json.dumps({k: v for k, v in json.loads(rows[1]).items() if k != "question_id"})
    for content, words in {
        good[:-30]: "truncated or corrupt in line 30",
        "\n".join([rows[0], without_id]): "item 2 has no question_id",
        "\n".join([rows[0], rows[0]]): "the id popular/1 occurs twice",
        rows[0].replace('"yes"', '"maybe"'): "label 'maybe'",
        "": "is empty",
    }.items():
        question_file.write_text(content)
        done = bench(
            "run",
            "--model",
            tiny("llava"),
            "--suite",
            "pope",
            "--data",
            data,
            "--out",
            tmp_path / "run",
        )
        assert done.returncode == 2 and words in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr and "remedy:" in done.stderr
    question_file.unlink()
    done = bench("run", "--model", tiny("llava"), "--suite", "pope", "--data", data)
    assert done.returncode == 2 and "coco_pope_popular.json is missing" in done.stderr
    for model, words in {
        "lava": "Did you mean 'llava'?",
        str(tmp_path): "no checkpoint that transformers can load",
        f"{tiny('llava')}+{tmp_path}": "is not a PEFT adapter",
        "replay:no.jsonl": "There is no file no.jsonl",
    }.items():
        done = bench(
            "run", "--model", model, "--suite", "pope", "--data", pictures, "--out", tmp_path / "x"
        )
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )


def test_corrupt_weights_are_a_clear_error(tiny, pictures, tmp_path):
    import shutil

    folder = Path(shutil.copytree(tiny("llava"), tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    done = bench(
        "run", "--model", folder, "--suite", "pope", "--data", pictures, "--out", tmp_path / "run"
    )
    assert (
        done.returncode == 2 and "The weights in" in done.stderr and "Traceback" not in done.stderr
    )


def test_another_experiment_in_the_folder_is_refused(tiny, pictures, tmp_path):
    arguments = (
        "run",
        "--model",
        tiny("llava"),
        "--suite",
        "pope",
        "--data",
        pictures,
        "--out",
        tmp_path / "run",
    )
    assert bench(*arguments, "--limit", "6").returncode == 0
    done = bench(*arguments, "--limit", "6", "--protocol", "native")
    assert done.returncode == 2 and "model.protocol.name (llava → native)" in done.stderr


def test_mmhal_is_asked_now_and_judged_later(tiny, shared, tmp_path):
    arguments = (
        "run",
        "--model",
        tiny("llava"),
        "--suite",
        "mmhal",
        "--data",
        shared,
        "--out",
        tmp_path,
        "--json",
    )
    done = bench(*arguments)
    assert done.returncode == 3 and "bench judge" in done.stderr and "not judged" in done.stderr
    answered = lines(tmp_path / "mmhal" / "answers.jsonl")
    assert len(answered) == 12, "twelve of the photographs are at hand"
    reviews = shared / "outputs" / "mmhal_llava-onevision-0.5b" / "reviews.txt"
    judged = bench("judge", tmp_path / "mmhal", "--judge", f"replay:{reviews}", "--json")
    assert judged.returncode == 3 and "84 unscored: not answered" in judged.stderr
    measured = metrics(tmp_path / "mmhal")
    assert (measured["score", "all"]["n"], measured["score", "all"]["unscored"]) == (12, 84)
    raw = {row["sample"]: row["text"] for row in lines(tmp_path / "mmhal" / "verdicts.jsonl")}
    assert len(raw) == 12 and all("ating:" in text for text in raw.values())
    assert bench("judge", tmp_path / "pope", "--judge", f"replay:{reviews}").returncode == 2


def test_no_secret_is_written_anywhere(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with chat_server(lambda n, body: completion("Fine.\nRating: 5")) as (url, seen):
        judge = "openai:gpt-x@" + url.replace("//", "//user:hush-hush@") + "?token=sesame"
        replay = f"replay:{shared / 'outputs' / 'mmhal_llava-onevision-0.5b' / 'responses.json'}"
        command = [
            "bench",
            "run",
            "--model",
            replay,
            "--suite",
            "mmhal",
            "--data",
            str(shared),
            "--judge",
            judge,
        ]
        monkeypatch.setattr("sys.argv", command)
        done = bench(*command[1:], "--out", tmp_path, "--limit", "8")
    assert done.returncode == 0, done.stderr
    assert len(seen) == 8
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "openai:gpt-x@http://127.0.0.1" in written
    for secret in ("sk-very-secret", "hush-hush", "sesame"):
        assert secret not in written + done.stdout + done.stderr


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_server_that_echoes_the_key_tells_nobody(pictures, tmp_path, monkeypatch, status):
    monkeypatch.setattr("bench.chat.RETRIES", 0)
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    error = {"message": "wrong key sk-very-secret of user:hush-hush?token=sesame"}
    body = json.dumps({"error": error}).encode()
    with chat_server(lambda n, _: (status, "application/json", body)) as (url, requests):
        model = "openai:m@" + url.replace("//", "//user:hush-hush@") + "?token=sesame"
        words = ("--suite", "pope", "--data", pictures, "--limit", 6, "--out", tmp_path)
        done = bench("run", "--model", model, "--api-key-env", "MY_KEY", *words)
    assert done.returncode in (2, 3) and requests
    gone = bench("run", "--model", model, "--api-key-env", "MY_KEY", *words)
    assert gone.returncode == 2 and "cannot be reached" in gone.stderr
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    printed = done.stdout + done.stderr + gone.stderr
    assert "wrong key [hidden]" in written + printed
    for secret in ("sk-very-secret", "hush-hush", "sesame"):
        assert secret not in written + printed


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*BENCH, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_instants_then_resume_gives_the_same_answers(tiny, tmp_path, kills):
    """SIGKILL after a random moment of writing; the last start ends with the answers of an
    undisturbed run."""
    data = tmp_path / "data"
    names = [f"{number:03}.png" for number in range(60 if kills == 2 else 240)]
    (data / "images" / "coco").mkdir(parents=True)
    for seed, name in enumerate(names):
        draw(data / "images" / "coco" / name, seed)
    items = "dog cat car bus cup bowl oven bird".split()
    objects = {name: random.Random(name).sample(items, 4) for name in names}
    (tmp_path / "objects.json").write_text(json.dumps(objects))
    assert (
        bench("data", "pope", "--objects", tmp_path / "objects.json", "--out", data).returncode == 0
    )
    arguments = [
        "run",
        "--model",
        str(tiny("llava")),
        "--suite",
        "pope",
        "--data",
        str(data),
        "--out",
    ]
    assert bench(*arguments, tmp_path / "whole").returncode == 0
    killed = tmp_path / "killed" / "pope" / "answers.jsonl"
    rng, sizes = random.Random(1), []
    for _ in range(kills):
        before = killed.stat().st_size if killed.exists() else 0
        process = start([*arguments, str(tmp_path / "killed")], ROOT)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if killed.exists() and killed.stat().st_size > before:
                time.sleep(rng.random() * 0.15)
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sizes.append(killed.stat().st_size)
    whole = tmp_path / "whole" / "pope" / "answers.jsonl"
    assert len(set(sizes)) > 1 and sizes[0] < whole.stat().st_size, (
        "the kills must have hit running processes"
    )
    assert bench(*arguments, tmp_path / "killed").returncode == 0
    assert without_seconds(killed) == without_seconds(whole)
    assert metrics(killed.parent) == metrics(whole.parent)


# Each alias with the maker of its architecture: SmolVLM-Instruct's config is an idefics3.
ALIASES = {
    "llava": "llava",
    "llava-13b": "llava",
    "llava-next": "llava_next_mistral",
    "llava-next-vicuna": "llava_next",
    "llava-next-13b": "llava_next",
    "llava-onevision": "llava_onevision",
    "qwen2.5-vl": "qwen2_5_vl",
    "qwen3-vl": "qwen3_vl",
    "internvl3.5": "internvl3_5",
    "gemma3": "gemma3",
    "smolvlm": "idefics3",
    "smolvlm2": "smolvlm",
    "paligemma": "paligemma2",
}


def test_every_alias_has_a_tiny_checkpoint():
    shipped = {"llava-tiny", "llava-tiny-b"}
    assert registry.MODEL_ALIASES.keys() == ALIASES.keys() | shipped


# One alias of each architecture; a larger one of the same is asked in the same way.
@pytest.mark.parametrize("alias", {maker: alias for alias, maker in ALIASES.items()}.values())
def test_every_alias_answers_yes_or_no_and_describes(tiny, tmp_path, alias):
    """A folder of that name is taken before the alias."""
    shutil.copytree(tiny(ALIASES[alias]), tmp_path / alias)
    done = bench(
        "run",
        "--model",
        alias,
        "--suite",
        "pope,chair",
        "--data",
        "scenes",
        "--limit",
        "6",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for run in json.loads(done.stdout)["runs"]:
        assert {metric["n"] for metric in run["metrics"] if metric["subset"] == "all"} == {6}
        answers = lines(tmp_path / run["folder"] / "answers.jsonl")
        assert answers and all("text" in answer for answer in answers)


def test_answers_to_pope_are_scored_as_repope_without_a_model(tmp_path):
    """On scenes, whose labels need no correction, the figures are POPE's own."""
    asked = bench(
        "run", "--model", "llava-tiny", "--suite", "pope,mmhal", "--data", "scenes", "--limit", "90",
        "--out", tmp_path,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    done = bench("score", tmp_path, "--as", "repope")
    assert done.returncode == 0, done.stderr
    assert "‡ limited to 90 of 9,000 samples" in done.stdout
    mine, own = metrics(tmp_path / "repope"), metrics(tmp_path / "pope")
    record = json.loads((tmp_path / "repope" / "run.json").read_text())
    assert record["benchmark"]["name"] == "repope"
    assert record["model"] == json.loads((tmp_path / "pope" / "run.json").read_text())["model"]
    assert record["scored_from"]["benchmark"] == "pope"
    for subset in ("random", "popular", "adversarial"):
        assert mine["auc", subset]["n"] == own["auc", subset]["n"] == 30
        assert mine["accuracy", subset]["value"] == own["accuracy", subset]["value"]
    exported = bench("export", tmp_path / "repope", "--format", "csv", "--out", tmp_path / "csv")
    assert exported.returncode == 0, exported.stderr
    rows = pd.read_csv(tmp_path / "csv" / "repope.csv")
    assert rows["answer"].notna().all() and len(rows) == 90
    (tmp_path / "pope").rename(tmp_path / "elsewhere")
    again = bench("score", tmp_path / "repope")
    assert again.returncode == 0, "it is a run of its own"
    wrong = bench("score", tmp_path / "mmhal", "--as", "repope")
    assert wrong.returncode == 2 and "belongs to this benchmark" in wrong.stderr


def test_of_a_suite_what_has_images_is_measured(small_scenes, tmp_path):
    """AMBER's images are not there: it is named and left out, and asked for alone it is an error."""
    data = shutil.copytree(small_scenes, tmp_path / "data")
    queries = json.loads((data / "amber" / "query_all.json").read_text())
    for number, row in enumerate(queries):
        row["image"] = f"AMBER_{number}.jpg"
    (data / "amber" / "query_all.json").write_text(json.dumps(queries))
    words = ("run", "--model", "llava-tiny", "--data", data, "--judge", "scene", "--limit", "2")
    done = bench(*words, "--suite", "quick", "--out", tmp_path / "out")
    assert done.returncode in (0, 3), done.stderr
    assert "None of AMBER, discriminative's" in done.stderr and "images/amber" in done.stderr
    assert (tmp_path / "out" / "pope" / "metrics.json").is_file()
    alone = bench(*words, "--suite", "amber-discriminative", "--out", tmp_path / "alone")
    assert alone.returncode == 2 and "images was found" in alone.stderr


@pytest.fixture(scope="module")
def small_scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "d"
    assert bench("data", "scenes", "--n", "4", "--out", folder).returncode == 0
    return folder
