"""`--data hub` and hub models: the real clients against a real server on loopback that speaks the
hub's protocol."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import _tree_cache

from bench.data.source_table import table
from bench.judges.rubric import OFFICIAL_SOURCE
from tests.conftest import bench, bench_process, draw, metrics
from tests.loopback_chat import chat_server, completion
from tests.loopback_files import serve
from tests.loopback_hub import Hub, Reply, client_of, commit_of, hub_server
from tests.original_format import write_original

POPE, MMHAL = ("dataset", "lmms-lab/POPE"), ("dataset", "Shengcao1006/MMHal-Bench")
(ZIP,) = [file for file in table()["mmhal"].files if file.is_archive]
PINNED = ZIP.commit
MODEL = ("model", "owner/tiny-llava")
SUBSETS = ("adversarial", "popular", "random")
PHOTOGRAPHS = (310196, 210789, 9)
ALONE = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1,localhost",
    "HF_HUB_OFFLINE": "0",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "OMP_NUM_THREADS": "1",  # two threads on a tiny model wait for each other wherever a core is busy
}
DEFAULT = b"- {config_name: default, data_files: [{split: test, path: data/test-*}]}\n---\n"
POPE_CARD = (
    b"---\nconfigs:\n- {config_name: Full, data_files: [{split: random, path: Full/random-*}]}\n"
)
POPE_CARD += DEFAULT


def run(hub: Hub, home: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """`bench run` of a user whose hub is `hub` and whose HF_HOME is `home`; no other host can be
    reached."""
    caches = {"HF_HUB_CACHE": str(home / "hub"), "HF_DATASETS_CACHE": str(home / "datasets")}
    return bench_process(
        "run", *arguments, HF_ENDPOINT=hub.url, HF_HOME=str(home), **caches, **ALONE
    )


def run_here(hub: Hub, home: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """As `run`, in this process, which spares the seconds that importing torch takes."""
    with pytest.MonkeyPatch.context() as patch, client_of(hub, home):
        for name, value in ALONE.items():
            patch.setenv(name, value)
        return bench("run", *arguments)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and three lines that hold `words`."""
    lines = done.stderr.splitlines()[-3:]
    assert (done.returncode, [line[:8] for line in lines]) == (
        2,
        [" error: ", "reason: ", "remedy: "],
    ), done.stderr
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in "\n".join(lines)] == [], done.stderr


def layouts(home: Path, benchmark: str) -> list[str]:
    """What lies where layouts are kept."""
    return sorted(path.name for path in (home / "synth-align" / benchmark).glob("*"))


@pytest.fixture(scope="module")
def pope_rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Six questions (three yes, three no) in each category about each of three pictures, as lmms-
    lab/POPE has them."""
    folder = tmp_path_factory.mktemp("photographs")
    rows: list[dict[str, Any]] = []
    for category in SUBSETS:
        for number, photograph in enumerate(PHOTOGRAPHS):
            image = draw(folder / f"{number}.jpg", number).read_bytes()
            for question_index, what in enumerate(
                ("dog", f"{category} cat", "car", f"{category} bus", "cup", f"{category} tv")
            ):
                row = {"id": str(len(rows)), "question_id": str(6 * number + question_index + 1)}
                row |= {
                    "question": f"Is there a {what} in the image?",
                    "answer": "no" if question_index % 2 else "yes",
                }
                row |= {
                    "image_source": f"COCO_val2014_{photograph:012}",
                    "image": {"bytes": image, "path": None},
                }
                rows.append(row | {"category": category})
    return rows


@pytest.fixture(scope="module")
def pope_files(pope_rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """The repository: the questions in any order over two shards, and a second configuration that
    is not asked for."""
    from datasets import Dataset, Features, Image, Value

    names = ("id", "question_id", "question", "answer", "image_source")
    features = Features(
        dict.fromkeys(names, Value("string")) | {"image": Image(), "category": Value("string")}
    )

    def shard(rows: list[dict[str, Any]]) -> bytes:
        Dataset.from_list(rows, features=features).to_parquet(file := io.BytesIO())
        return file.getvalue()

    rows = random.Random(0).sample(pope_rows, len(pope_rows))
    parts = {
        "data/test-00000-of-00002": rows[:30],
        "data/test-00001-of-00002": rows[30:],
        "Full/random-0": rows[:3],
    }
    return {"README.md": POPE_CARD} | {
        f"{name}.parquet": shard(part) for name, part in parts.items()
    }


@pytest.fixture(scope="module")
def pope_answers(pope_rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right answers, but "yes" to everything about the first picture."""
    file = tmp_path_factory.mktemp("pope") / "answers.json"
    said = [
        {
            "image": f"{row['image_source']}.jpg",
            "question": row["question"],
            "text": "Yes." if "310196" in row["image_source"] else row["answer"],
        }
        for row in pope_rows
    ]
    file.write_text(json.dumps(said))
    return file


def test_pope_is_downloaded_once_and_needs_no_hub_afterwards(
    pope_rows, pope_files, pope_answers, tmp_path
):
    home, arguments = (
        tmp_path / "home",
        ("--model", f"replay:{pope_answers}", "--suite", "pope", "--data", "hub"),
    )
    with hub_server({POPE: pope_files}) as hub:
        first = run(hub, home, *arguments, "--out", tmp_path / "first")
        assert first.returncode == 0, first.stderr
        assert not any("/Full/random" in request for request in hub.requests), (
            "another configuration"
        )
        hub.requests.clear()
        assert run(hub, home, *arguments, "--out", tmp_path / "second").returncode == 0
        assert hub.requests == ["GET /api/datasets/lmms-lab/POPE"], (
            "only the newest commit is asked for"
        )
    measured = metrics(tmp_path / "first" / "pope")
    for subset in SUBSETS:
        row = measured["accuracy", subset]
        assert (row["n"], row["unscored"], row["value"]) == (18, 0, pytest.approx(15 / 18))
    assert measured["accuracy", "all"]["n"] == 54

    layout = home / "synth-align" / "pope" / commit_of(pope_files)
    assert {path.name: path.read_bytes() for path in (layout / "images").rglob("*.jpg")} == {
        f"{row['image_source']}.jpg": row["image"]["bytes"] for row in pope_rows
    }
    for subset in SUBSETS:
        lines = (layout / f"pope/coco/coco_pope_{subset}.json").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {
                "question_id": int(row["question_id"]),
                "image": f"{row['image_source']}.jpg",
                "text": row["question"],
                "label": row["answer"],
            }
            for row in pope_rows
            if row["category"] == subset
        ]
    assert bench("data", "check", layout, "--suite", "pope").returncode == 0
    offline = run(hub, home, *arguments, "--out", tmp_path / "offline")
    assert offline.returncode == 0, offline.stderr
    assert metrics(tmp_path / "offline" / "pope") == measured


@pytest.mark.parametrize(
    "fault", ["500", pytest.param("html", marks=pytest.mark.slow), "truncated"]
)
def test_a_misbehaving_hub_is_one_clear_error_and_leaves_nothing_behind(
    pope_files, pope_answers, tmp_path, fault
):
    arguments = ("--model", f"replay:{pope_answers}", "--suite", "pope", "--out", tmp_path / "run")
    with hub_server({POPE: pope_files}) as hub:
        hub.fault = fault
        assert_refused(
            run_here(hub, tmp_path, *arguments),
            "lmms-lab/POPE could not be downloaded",
            "--data DIR",
        )
        assert layouts(tmp_path, "pope") == [] and not (tmp_path / "run").exists()
        hub.fault = None
        assert run_here(hub, tmp_path, *arguments).returncode == 0, "nothing broken was kept"
    assert layouts(tmp_path, "pope") == [commit_of(pope_files), "newest"]


def test_a_row_of_pope_that_is_not_as_it_was_is_named(pope_rows, pope_answers, tmp_path):
    from datasets import Dataset

    rows = [{**pope_rows[0], "image": None}, *pope_rows[1:]]
    Dataset.from_list(rows).to_parquet(shard := io.BytesIO())
    files = {"README.md": b"---\nconfigs:\n" + DEFAULT}
    files["data/test-0.parquet"] = shard.getvalue()
    arguments = ("--model", f"replay:{pope_answers}", "--suite", "pope", "--out", tmp_path / "run")
    with hub_server({POPE: files}) as hub:
        refused = run_here(hub, tmp_path, *arguments)
    assert_refused(refused, "Row 1 of lmms-lab/POPE", "image is None", "--data DIR")
    assert layouts(tmp_path, "pope") == []


@pytest.fixture(scope="module")
def mmhal_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """MMHal-Bench with four pictures; its zip also holds what must not be written where it says,
    or at all."""
    folder = tmp_path_factory.mktemp("mmhal")
    pictures = {
        f"{number}_o.jpg": draw(folder / f"{number}.jpg", number).read_bytes()
        for number in range(4)
    }
    template = [
        {
            "question_type": "other",
            "question_topic": "food",
            "image_id": f"{index:016x}",
            "image_src": f"https://farm1.staticflickr.com/1/{index % 4}_o.jpg",
            "image_content": ["cup"],
            "question": f"What is at place {index}?",
            "gt_answer": "A cup.",
            "model_answer": "",
        }
        for index in range(96)
    ]
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("images")
        for name, content in pictures.items():
            archive.writestr(f"images/{name}", content)
        archive.writestr("../../evil.jpg", b"evil")
        archive.writestr("images/evil.py", b"evil")
    return {
        "response_template.json": json.dumps(template).encode(),
        "test_data.zip": packed.getvalue(),
    }


@contextmanager
def mmhal_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that has these files at the pinned commit."""
    with hub_server({MMHAL: files}) as hub:
        hub.pinned.add(PINNED)
        yield hub


@pytest.fixture
def mmhal_arguments(mmhal_files: dict[str, bytes], tmp_path: Path) -> list[Any]:
    """Recorded answers, and reviews that rate every other one 6 and 1."""
    template = json.loads(mmhal_files["response_template.json"])
    answers = tmp_path / "answers.json"
    answers.write_text(
        json.dumps([{**item, "model_answer": f"A {index}."} for index, item in enumerate(template)])
    )
    reviews = tmp_path / "reviews.json"
    reviews.write_text(json.dumps([f"Rating: {6 if index % 2 else 1}" for index in range(96)]))
    return [
        "--model",
        f"replay:{answers}",
        "--suite",
        "mmhal",
        "--data",
        "hub",
        "--judge",
        f"replay:{reviews}",
    ]


def test_mmhal_is_unpacked_into_its_layout_alone(mmhal_files, mmhal_arguments, tmp_path):
    home = tmp_path / "deep" / "home"
    with mmhal_hub(mmhal_files) as hub:
        done = run_here(hub, home, *mmhal_arguments, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    row = metrics(tmp_path / "run" / "mmhal")["score", "all"]
    assert (row["n"], row["unscored"], row["value"]) == (96, 0, 3.5)
    layout = home / "synth-align" / "mmhal" / PINNED
    assert [
        path for path in tmp_path.rglob("*evil*") if path.parent != layout / "images" / "mmhal"
    ] == []
    written = {path.name for path in (layout / "images").rglob("*.*")}
    assert written - {"evil.jpg"} == {f"{number}_o.jpg" for number in range(4)}
    (layout / "images" / "mmhal" / "evil.jpg").unlink(missing_ok=True)
    assert bench("data", "check", layout, "--suite", "mmhal").returncode == 0


@pytest.mark.parametrize("damage", ["cut", pytest.param("scratched", marks=pytest.mark.slow)])
def test_a_corrupt_zip_is_one_clear_error_whose_remedy_works(
    mmhal_files, mmhal_arguments, tmp_path, damage
):
    home, arguments = tmp_path / "home", [*mmhal_arguments, "--out", tmp_path / "run"]
    whole = mmhal_files["test_data.zip"]
    image = whole.index(b"_o.jpg") + 6  # where the first picture's deflated bytes begin
    scratched = whole[:image] + b"\xff" * 20 + whole[image + 20 :]
    bad = {**mmhal_files, "test_data.zip": whole[:-40] if damage == "cut" else scratched}
    with mmhal_hub(bad) as hub:
        assert_refused(run_here(hub, home, *arguments), "test_data.zip", "cannot be unpacked")
        assert layouts(home, "mmhal") == [] and not (tmp_path / "run").exists()
        hub.repositories[MMHAL] = mmhal_files
        assert run_here(hub, home, *arguments).returncode == 0, "what the remedy says must help"

        shutil.rmtree(home / "synth-align")
        (kept,) = (home / "hub").glob("datasets--*/snapshots/*/test_data.zip")
        kept.resolve().write_bytes(bad["test_data.zip"])
        assert_refused(run_here(hub, home, *arguments), "test_data.zip", "start again")
        assert run_here(hub, home, *arguments).returncode == 0, "what the remedy says must help"


OBJHAL = ("dataset", "HaoyeZhang/RLHF-V-Evaluation")
OBJHAL_FILES = {"obj_halbench_300_with_image.jsonl": b'{"image_id": 9, "question": "What?"}\n'}


def get_data(hub: Hub, home: Path, names: list[str], out: Path, files: str):
    """`bench data get` of a user whose hub is `hub` and whose other sources lie at `files`."""
    return bench_process(
        "data", "get", *names, "--out", out,
        HF_ENDPOINT=hub.url, HF_HOME=str(home), HF_HUB_CACHE=str(home / "hub"),
        SYNTH_ALIGN_SOURCES=files, **ALONE,
    )  # fmt: skip


def not_of_the_hub(shared):
    """The other files of both benchmarks, where their repositories have them."""
    files = {}
    for file in [*table()["mmhal"].files, *table()["objhal"].files]:
        if not file.is_of_hub:
            content = (shared / file.path).read_bytes()
            files[f"{file.repository}/{file.commit}/{file.source}"] = content
    return files


def test_files_of_the_hub_are_checked_unpacked_and_recorded(shared, mmhal_files, tmp_path):
    out, home = tmp_path / "data", tmp_path / "home"
    with (
        mmhal_hub(mmhal_files) as hub,
        serve(not_of_the_hub(shared)) as (files, _),
    ):
        hub.repositories[OBJHAL] = OBJHAL_FILES
        done = get_data(hub, home, ["mmhal", "objhal"], out, files)
        assert done.returncode == 0, done.stderr
        assert "downloaded: images/mmhal/" in done.stdout
        (objhal,) = OBJHAL_FILES.items()
        assert (out / "objhal" / objhal[0]).read_bytes() == objhal[1]
        images = out / "images" / "mmhal"
        names = {path.name for path in images.iterdir()}
        assert names == {"evil.jpg"} | {f"{number}_o.jpg" for number in range(4)}
        assert not (tmp_path / "evil.jpg").exists() and not list(out.rglob("evil.py"))
        before = (images / "1_o.jpg").read_bytes()
        (images / "1_o.jpg").write_bytes(b"half")
        checked = bench("data", "check", out, "--suite", "mmhal").stdout
        assert "1 files are not as in their pinned source, the first is images/mmhal/" in checked
        again = get_data(hub, home, ["mmhal"], out, files)
        assert "downloaded: images/mmhal/" in again.stdout, again.stderr
        assert (images / "1_o.jpg").read_bytes() == before
        asked = len(hub.requests)
        done = get_data(hub, home, ["mmhal"], out, files)
        assert done.stdout.count("there already") == 2 and len(hub.requests) == asked
    record = json.loads((out / "sources.json").read_text())
    assert record["images/mmhal/"]["commit"] == PINNED
    assert record["objhal/" + objhal[0]]["commit"] == commit_of(OBJHAL_FILES), "not a branch"
    digest = hashlib.sha256(mmhal_files["test_data.zip"]).hexdigest()
    assert record["images/mmhal/"]["sha256"] == digest


@pytest.mark.parametrize("fault", ["truncated", "flipped", "500", "gone"])
def test_a_lying_hub_writes_nothing_and_the_rest_comes(shared, mmhal_files, tmp_path, fault):
    out = tmp_path / "data"
    with mmhal_hub(mmhal_files) as hub, serve(not_of_the_hub(shared)) as (files, _):
        hub.fault = None if fault == "gone" else fault
        if fault == "gone":
            hub.repositories.clear()
        done = get_data(hub, tmp_path / "home", ["mmhal"], out, files)
        assert_refused(done, "start again")
        assert "downloaded: mmhal/mmhal-bench_answer_template.json" in done.stdout
        assert not (out / "images").exists() or not list((out / "images").rglob("*.jpg"))
        hub.fault = None
        hub.repositories[MMHAL] = mmhal_files
        done = get_data(hub, tmp_path / "home", ["mmhal"], out, files)
        assert done.returncode == 0 and "downloaded: images/mmhal/" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def model_files(tiny: Any) -> dict[str, bytes]:
    """A tiny LLaVA as a hub repository, with the files that real ones have beside the checkpoint."""
    files = {path.name: path.read_bytes() for path in tiny("llava").iterdir()}
    return files | {
        "README.md": b"# tiny\n",
        ".gitattributes": b"* text\n",
        "pytorch_model.bin": b"the same again",
    }


def test_a_hub_model_runs_and_needs_no_hub_afterwards(model_files, pictures, tmp_path):
    arguments = [
        "--model",
        "owner/tiny-llava",
        "--suite",
        "pope",
        "--data",
        pictures,
        "--limit",
        "18",
    ]
    arguments += ["--out", tmp_path / "run"]
    with hub_server({MODEL: model_files}) as hub:
        done = run(hub, tmp_path / "home", *arguments)
        assert done.returncode == 0, done.stderr
        assert not any("pytorch_model.bin" in request for request in hub.requests), (
            "safetensors are enough"
        )
    record = json.loads((tmp_path / "run" / "pope" / "run.json").read_text())["model"]
    assert (record["name"], record["revision"]) == ("owner/tiny-llava", commit_of(model_files))
    assert metrics(tmp_path / "run" / "pope")["accuracy", "all"]["n"] == 18
    offline = run_here(hub, tmp_path / "home", *arguments)
    assert offline.returncode == 0, offline.stderr


def of_hub_model(pictures: Path, out: Path) -> list[Any]:
    """The arguments of a short run."""
    model = ["--model", "owner/tiny-llava", "--suite", "pope", "--data", pictures]
    return [*model, "--limit", "6", "--out", out]


def scratched(hub: Hub, name: str) -> None:
    """From now on one byte of a file is lost on the way; its size and what the hub says are not."""
    honest = hub.reply

    def reply(method: str, target: str, form: bytes) -> Reply:
        answer = honest(method, target, form)
        if method == "GET" and target.endswith(name):
            return answer._replace(body=answer.body.replace(b"o", b"\xa2", 1))
        return answer

    hub.reply = reply  # type: ignore[method-assign]


def assert_named_and_not_kept(hub: Hub, command: Callable[[], Any], name: str, owner: str) -> None:
    """A broken file is refused by its name; with the right one the same command then runs."""
    honest = hub.reply
    scratched(hub, f"/{name}")
    assert_refused(command(), f"{name} of {owner} came broken from the hub")
    hub.reply = honest  # type: ignore[method-assign]
    again = command()
    assert again.returncode == 0, again.stderr


def test_a_small_file_that_came_broken_is_named_and_not_kept(model_files, pictures, tmp_path):
    arguments = of_hub_model(pictures, tmp_path / "run")
    with hub_server({MODEL: model_files}) as hub:
        command = partial(run_here, hub, tmp_path / "home", *arguments)
        assert_named_and_not_kept(hub, command, "tokenizer_config.json", "owner/tiny-llava")


def test_lists_and_files_of_a_start_that_failed_are_not_kept(model_files, pictures, tmp_path):
    arguments = of_hub_model(pictures, tmp_path / "run")
    with hub_server({MODEL: model_files}) as hub:
        honest = hub.reply
        scratched(hub, "/tokenizer_config.json")
        half_right = hub.reply

        def reply(method: str, target: str, form: bytes) -> Reply:
            answer = half_right(method, target, form)
            if "c0nfig" in target:
                time.sleep(1)  # until the other files are there
            if "/tree/" not in target:
                return answer
            return answer._replace(body=answer.body.replace(b'"config.json"', b'"c0nfig.json"'))

        hub.reply = reply  # type: ignore[method-assign]
        assert_refused(run_here(hub, tmp_path / "home", *arguments), "could not be downloaded")
        hub.reply = honest  # type: ignore[method-assign]
        _tree_cache._IN_MEMORY_TREE_CACHE.clear()  # as in a process of its own
        again = run_here(hub, tmp_path / "home", *arguments)
        assert again.returncode == 0, again.stderr


def test_weights_that_came_with_a_flipped_bit_are_named_and_not_kept(
    model_files, pictures, tmp_path
):
    arguments = of_hub_model(pictures, tmp_path / "run")
    with hub_server({MODEL: model_files}) as hub:
        hub.fault = "flipped"
        done = run_here(hub, tmp_path / "home", *arguments)
        assert_refused(done, "model.safetensors of owner/tiny-llava came broken from the hub")
        hub.fault = None
        again = run_here(hub, tmp_path / "home", *arguments)
        assert again.returncode == 0, again.stderr


def test_what_came_broken_once_comes_again_in_the_same_start(model_files, pictures, tmp_path):
    arguments = of_hub_model(pictures, tmp_path / "run")
    with hub_server({MODEL: model_files}) as hub:
        honest, name = hub.reply, "/tokenizer_config.json"
        scratched(hub, name)
        broken = hub.reply

        def reply(method: str, target: str, form: bytes) -> Reply:
            answer = broken(method, target, form)
            if method == "GET" and target.endswith(name):
                hub.reply = honest  # type: ignore[method-assign]
            return answer

        hub.reply = reply  # type: ignore[method-assign]
        done = run_here(hub, tmp_path / "home", *arguments)
        assert done.returncode == 0, done.stderr
        requests = [request for request in hub.requests if request.endswith(name)]
    downloads = [request for request in requests if request.startswith("GET")]
    assert len(downloads) == 2, requests


@pytest.mark.slow
def test_a_card_of_pope_that_came_broken_is_named_and_not_kept(pope_files, pope_answers, tmp_path):
    arguments = ["--model", f"replay:{pope_answers}", "--suite", "pope", "--data", "hub"]
    arguments += ["--out", tmp_path / "run"]
    with hub_server({POPE: pope_files}) as hub:
        command = partial(run, hub, tmp_path / "home", *arguments)
        assert_named_and_not_kept(hub, command, "README.md", "lmms-lab/POPE")


@pytest.mark.parametrize("flag", [False, True])
def test_code_is_downloaded_only_if_it_may_run(model_files, pictures, tmp_path, flag):
    files = model_files | {"modeling_tiny.py": b"raise SystemExit('it ran')\n"}
    arguments = of_hub_model(pictures, tmp_path / "run")
    with hub_server({MODEL: files}) as hub:
        done = run_here(hub, tmp_path / "home", *arguments, *["--trust-remote-code"] * flag)
        assert done.returncode == 0, done.stderr
        assert any("modeling_tiny.py" in request for request in hub.requests) == flag


def test_an_original_lora_its_base_and_its_tower_come_from_three_repositories(pictures, tmp_path):
    write_original(tmp_path / "parts", lora=True)
    files = {
        part: {f.name: f.read_bytes() for f in (tmp_path / "parts" / part).iterdir()}
        for part in ("adapter", "llava", "tower")
    }
    for part, field, named in (
        ("adapter", "adapter_config.json", "base_model_name_or_path"),
        ("adapter", "config.json", "mm_vision_tower"),
    ):
        content = json.loads(files[part][field])
        where = "owner/llava" if field.startswith("adapter") else "owner/tower"
        files[part][field] = json.dumps(content | {named: where}).encode()
    arguments = ["--suite", "pope", "--data", pictures, "--limit", "18"]
    with hub_server(
        {("model", f"owner/{name}"): content for name, content in files.items()}
    ) as hub:
        remote = ["--model", "owner/adapter", *arguments, "--out", tmp_path / "hub"]
        done = run_here(hub, tmp_path / "home", *remote)
        assert done.returncode == 0, done.stderr
    local = run_here(
        hub,
        tmp_path / "home",
        "--model",
        tmp_path / "parts" / "adapter",
        *arguments,
        "--out",
        tmp_path / "local",
    )
    assert local.returncode == 0, local.stderr
    said = []
    for out in ("hub", "local"):
        rows = map(json.loads, (tmp_path / out / "pope" / "answers.jsonl").read_text().splitlines())
        said.append([(row["key"], row["text"], row["p_yes"]) for row in rows])
    assert said[0] == said[1]
    again = run_here(hub, tmp_path / "home", *remote)
    assert again.returncode == 0, "and no hub is needed afterwards"


def test_data_that_is_not_there_is_told_before_a_model_is_downloaded(model_files, tmp_path):
    with hub_server({MODEL: model_files}) as hub:
        words = ("--model", MODEL[1], "--suite", "pope", "--data", tmp_path / "lost")
        done = run_here(hub, tmp_path / "home", *words)
    assert_refused(done, "There is no folder", "lost")
    assert hub.requests == []


def test_a_model_that_is_not_there_is_one_clear_error(model_files, pictures, tmp_path):
    arguments = ("--suite", "pope", "--data", pictures, "--out", tmp_path / "run")
    with hub_server({MODEL: model_files}) as hub:
        assert_refused(
            run_here(hub, tmp_path, "--model", "owner/tiny-lava", *arguments),
            "'owner/tiny-lava'",
            "spelling",
        )
        words = ("--model", "owner/tiny-llava", "--revision", "v2")
        other = run_here(hub, tmp_path, *words, *arguments)
        assert_refused(other, "owner/tiny-llava has no revision 'v2'")
    dead = run_here(hub, tmp_path, "--model", "owner/tiny-llava", *arguments)
    assert_refused(dead, "owner/tiny-llava could not be downloaded", "HF_ENDPOINT")


def test_data_from_a_dead_hub_names_the_way_out(pope_answers, tmp_path):
    with hub_server({}) as hub:
        pass
    done = run(
        hub,
        tmp_path,
        "--model",
        f"replay:{pope_answers}",
        "--suite",
        "pope",
        "--out",
        tmp_path / "run",
    )
    assert_refused(done, "lmms-lab/POPE could not be downloaded", "--data DIR")


def test_the_official_prompt_of_the_judge_comes_from_its_pinned_source(tmp_path, shared):
    """MMHal-Bench's prompt is not shipped: it is read from a text of its eval_gpt4.py."""
    code = b"import json\ntemplate = '''Objects: {}. Q: {} Human: {} Model: {}'''\n"
    repository, revision, name = OFFICIAL_SOURCE
    files = {("dataset", repository): {name: code}}
    answers = shared / "outputs" / "mmhal_llava-onevision-0.5b" / "responses.json"
    words = ("--model", f"replay:{answers}", "--suite", "mmhal", "--data", shared)
    words += ("--limit", 8, "--judge-template", "official")
    with (
        hub_server(files) as hub,
        chat_server(lambda n, body: completion("Rating: 5")) as (url, seen),
    ):
        hub.pinned.add(revision)
        judge = ("--judge", f"openai:m@{url}")
        done = run_here(hub, tmp_path / "home", *words, *judge, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        hub.pinned.clear()
        lost = run_here(hub, tmp_path / "other", *words, *judge, "--out", tmp_path / "lost")
        assert_refused(lost, "own prompt cannot be had", "--judge-template")
    prompts = [body["messages"][0]["content"] for body in seen]
    assert len(prompts) == 8
    assert any(
        prompt.startswith("Objects: Fire hydrant. Q: What color is the fire hydrant cap")
        for prompt in prompts
    )
    record = json.loads((tmp_path / "out" / "mmhal" / "run.json").read_text())
    assert record["judge"]["prompt"] == "official"
